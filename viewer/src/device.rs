//! Where to compute: decided by what the user asks for and what the browser offers.

use flapsam_model::self_test::SelfTest;
use serde::Serialize;

use crate::Error;

/// What the user asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// WebGPU when its adapter is real hardware, else the CPU.
    Auto,
    /// WebGPU, on a software adapter too.
    WebGpu,
    /// The CPU.
    Cpu,
}

impl Choice {
    /// `auto`, `webgpu` or `cpu`.
    ///
    /// # Errors
    /// Another word.
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "auto" => Ok(Choice::Auto),
            "webgpu" => Ok(Choice::WebGpu),
            "cpu" => Ok(Choice::Cpu),
            _ => Err(Error::Request(format!(
                "there is no device '{name}'; choose auto, webgpu or cpu"
            ))),
        }
    }
}

/// Where the network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The browser's WebGPU.
    WebGpu,
    /// WebAssembly with 128-bit vectors, one thread.
    Cpu,
}

/// What the browser says of its WebGPU adapter. Browsers may leave all of it empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// Who made it: "nvidia".
    pub vendor: String,
    /// Its family: "turing".
    pub architecture: String,
    /// Its name.
    pub description: String,
    /// The browser calls it a fallback.
    pub fallback: bool,
}

impl Adapter {
    /// Whether it computes on the CPU after all.
    pub fn is_software(&self) -> bool {
        const SOFTWARE: [&str; 5] = ["swiftshader", "llvmpipe", "lavapipe", "software", "basic render"];
        let words = [&self.vendor, &self.architecture, &self.description];
        let named = |word: &&String| SOFTWARE.iter().any(|name| word.to_lowercase().contains(name));
        self.fallback || words.iter().any(named)
    }

    /// What it calls itself.
    pub fn name(&self) -> String {
        let words = [&self.vendor, &self.architecture, &self.description].map(|word| word.trim());
        let known: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        match known.is_empty() {
            true => "an adapter that the browser does not name".into(),
            false => known.join(" "),
        }
    }
}

/// Where to compute, and a sentence why.
///
/// # Errors
/// WebGPU was asked for and there is no adapter.
pub fn decide(choice: Choice, adapter: Option<&Adapter>) -> Result<(Backend, String), Error> {
    match (choice, adapter) {
        (Choice::Cpu, _) => Ok((Backend::Cpu, "You chose the CPU.".into())),
        (Choice::WebGpu, Some(adapter)) if adapter.is_software() => {
            let why = format!(
                "You chose WebGPU. Its adapter is software ({}): slower than the CPU itself.",
                adapter.name()
            );
            Ok((Backend::WebGpu, why))
        }
        (Choice::WebGpu, Some(adapter)) => Ok((Backend::WebGpu, format!("You chose WebGPU on {}.", adapter.name()))),
        (Choice::WebGpu, None) => Err(Error::Device(
            "this browser offers no WebGPU adapter; choose the CPU, or try a current Chrome, Edge, Firefox or Safari \
             with its graphics driver in order"
                .into(),
        )),
        (Choice::Auto, Some(adapter)) if adapter.is_software() => {
            let why = format!(
                "WebGPU's adapter here is software ({}), which is slower than the CPU itself.",
                adapter.name()
            );
            Ok((Backend::Cpu, why))
        }
        (Choice::Auto, Some(adapter)) => Ok((Backend::WebGpu, format!("WebGPU runs on {}.", adapter.name()))),
        (Choice::Auto, None) => Ok((Backend::Cpu, "This browser offers no WebGPU adapter.".into())),
    }
}

/// What a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of the largest tensor; none on the CPU.
    pub largest_tensor: Option<usize>,
    /// Bytes on the host.
    pub host: usize,
}

impl Limits {
    /// A page's on the CPU. Its WebAssembly memory ends at 4 GiB; a part of it is for the network.
    pub const CPU: Self = Self {
        largest_tensor: None,
        host: 3 << 30,
    };

    /// Whether the device can hold a tensor of so many bytes.
    pub fn allow(&self, largest: usize) -> bool {
        self.largest_tensor.is_none_or(|limit| largest <= limit)
    }

    /// Why it cannot: a tensor of so many bytes, for slices of `rows` x `columns` pixels.
    pub fn refuse(&self, largest: usize, [rows, columns]: [usize; 2]) -> Error {
        Error::Limit(format!(
            "this network needs a tensor of {} on slices of {rows} x {columns} pixels, and WebGPU here allows {}; choose \
             the CPU, or a smaller network",
            amount(largest),
            amount(self.largest_tensor.unwrap_or_default())
        ))
    }
}

/// Bytes as people read them.
pub fn amount(bytes: usize) -> String {
    match bytes < 10_000_000 {
        true => format!("{} kB", bytes.div_ceil(1000)),
        false => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}

/// What the page says it runs on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Where the network runs.
    pub backend: Backend,
    /// The adapter, if there is one, whether it is used or not.
    pub adapter: Option<Adapter>,
    /// Whether that adapter computes on the CPU.
    pub software: bool,
    /// Why it runs there.
    pub why: String,
    /// What a run may take.
    pub limits: Limits,
    /// WebGPU's limits that decide it, bytes; none on the CPU.
    pub max_storage_buffer_binding_size: Option<u64>,
    /// See above.
    pub max_buffer_size: Option<u64>,
    /// WebGPU features of the device.
    pub features: Vec<String>,
    /// What WebGPU answered on a network whose answer is known; none where it was not asked.
    pub self_test: Option<SelfTest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(vendor: &str, architecture: &str) -> Adapter {
        Adapter {
            vendor: vendor.into(),
            architecture: architecture.into(),
            ..Adapter::default()
        }
    }

    #[test]
    fn real_hardware_is_used_and_software_only_when_forced() {
        let (hardware, software) = (adapter("nvidia", "turing"), adapter("google", "swiftshader"));
        let backend = |choice, adapter| decide(choice, adapter).unwrap().0;
        assert_eq!(backend(Choice::Auto, Some(&hardware)), Backend::WebGpu);
        assert_eq!(backend(Choice::Auto, Some(&software)), Backend::Cpu);
        assert_eq!(backend(Choice::Auto, None), Backend::Cpu);
        assert_eq!(backend(Choice::WebGpu, Some(&software)), Backend::WebGpu);
        assert_eq!(backend(Choice::Cpu, Some(&hardware)), Backend::Cpu);
        let refusal = decide(Choice::WebGpu, None).unwrap_err();
        assert_eq!(refusal.kind(), "device");
        assert!(refusal.to_string().contains("choose the CPU"), "{refusal}");
    }

    #[test]
    fn the_sentence_names_the_adapter() {
        let why = |adapter: &Adapter| decide(Choice::Auto, Some(adapter)).unwrap().1;
        assert!(why(&adapter("nvidia", "turing")).contains("nvidia turing"));
        assert!(why(&adapter("google", "swiftshader")).contains("slower than the CPU"));
        assert!(why(&adapter("", "")).contains("does not name"));
    }

    #[test]
    fn a_fallback_adapter_is_software_without_a_name() {
        let fallback = Adapter {
            fallback: true,
            ..Adapter::default()
        };
        assert!(fallback.is_software() && !Adapter::default().is_software());
    }

    #[test]
    fn choices_are_three_words() {
        assert_eq!(Choice::named("webgpu").unwrap(), Choice::WebGpu);
        assert_eq!(Choice::named("gpu").unwrap_err().kind(), "request");
    }
}
