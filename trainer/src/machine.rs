//! What the program runs on, in words: the facts that a report of differing figures needs.

use std::fs;

/// Facts by name, as far as the system tells them.
pub fn facts() -> Vec<(&'static str, String)> {
    let threads = rayon::current_num_threads();
    let commit = option_env!("FLAPSAM_COMMIT").unwrap_or("unknown");
    let known = [
        ("processor", processor()),
        ("instruction sets", instruction_sets()),
        ("caches", caches()),
    ];
    let known = known.into_iter().filter_map(|(name, fact)| Some((name, fact?)));
    let always = [
        ("threads", threads.to_string()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        (
            "program",
            format!("flapsam {}, commit {commit}", env!("CARGO_PKG_VERSION")),
        ),
        ("Cargo.lock", format!("sha256 {}", env!("FLAPSAM_LOCK"))),
    ];
    known.chain(always).collect()
}

/// The facts as lines.
pub fn describe() -> String {
    let lines = facts().into_iter().map(|(name, fact)| format!("  {name:<18}{fact}\n"));
    lines.collect()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let entry = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = entry("model name").or_else(|| entry("CPU part"))?;
    let numbers = ["cpu family", "model\t", "stepping"].map(entry);
    Some(match numbers {
        [Some(family), Some(model), Some(stepping)] => {
            format!("{name} (family {family}, model {model}, stepping {stepping})")
        }
        _ => name,
    })
}

/// Those that the kernels are compiled for, as far as the processor has them.
fn instruction_sets() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("AVX-512", is_x86_feature_detected!("avx512f")),
        ];
        let has: Vec<&str> = has.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        Some(match has.is_empty() {
            true => "neither AVX2 nor FMA nor AVX-512".into(),
            false => has.join(", "),
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Size and ways of each cache of the first processor.
fn caches() -> Option<String> {
    let folder = "/sys/devices/system/cpu/cpu0/cache";
    let cache = |index: usize| {
        let read = |name: &str| fs::read_to_string(format!("{folder}/index{index}/{name}")).ok();
        let [level, kind, size, ways] = ["level", "type", "size", "ways_of_associativity"].map(read);
        let kind = match kind?.trim() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!(
            "L{}{kind} {} {}-way",
            level?.trim(),
            size?.trim(),
            ways?.trim()
        ))
    };
    let caches: Vec<String> = (0..).map_while(cache).collect();
    (!caches.is_empty()).then(|| caches.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_name_program_and_threads() {
        let text = describe();
        assert!(text.contains("flapsam 0.") && text.contains("threads"), "{text}");
    }
}
