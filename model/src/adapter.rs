//! What travels and what is published: a method's trained parameters, with all that is needed to use them.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::checkpoint::{read_safetensors, write_safetensors};
use crate::config::{AdapterConfig, SamConfig};
use crate::method::Method;
use crate::parameters::{Parameters, Spec, StateDict, check};
use crate::preprocessing::Preprocessing;
use crate::sam::Sam;

const METADATA_KEY: &str = "flapsam_adapter";

/// A trained adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// How it was made and how to use it.
    pub metadata: AdapterMetadata,
    /// The trained parameters under SAM's own names.
    pub state: StateDict,
}

/// All that is needed to use an adapter on its base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterMetadata {
    /// The method that trained it.
    pub method: Method,
    /// The network it was trained in, at its training image size.
    pub sam: SamConfig,
    /// How the network is adapted.
    pub adapter: AdapterConfig,
    /// Name of each class, background first.
    pub classes: Vec<String>,
    /// How intensities are prepared.
    pub preprocessing: Preprocessing,
    /// Lower-case hexadecimal sha256 of the base checkpoint's file.
    pub base_sha256: String,
    /// Seed of the parts that start fresh and that the method does not train.
    pub seed: u64,
}

/// More parameters than any published network has, several times over.
const MOST_PARAMETERS: usize = 1 << 31;

impl AdapterMetadata {
    /// Refuses what no adapter is, before anything is made of it.
    fn check(&self) -> Result<(), Error> {
        self.sam.check()?;
        self.adapter.check()?;
        self.preprocessing.check()?;
        let (names, masks) = (self.classes.len(), self.adapter.num_classes + 1);
        if names != masks {
            return Err(Error::Config(format!(
                "the adapter names {names} classes and has masks for {masks}; it is damaged, or not one of ours"
            )));
        }
        Ok(())
    }
}

impl Adapter {
    /// A safetensors file. The same adapter gives the same bytes.
    ///
    /// ```
    /// use flapsam_model::adapter::{Adapter, AdapterMetadata};
    /// use flapsam_model::checkpoint::sha256;
    /// use flapsam_model::config::{AdapterConfig, SamConfig};
    /// use flapsam_model::method::Method;
    /// use flapsam_model::parameters::initialise;
    /// use flapsam_model::preprocessing::Preprocessing;
    /// use flapsam_model::sam::Sam;
    ///
    /// # fn main() -> Result<(), flapsam_model::Error> {
    /// let sam = SamConfig::named("nano").expect("one of the known ones");
    /// let (adapter, method) = (AdapterConfig::lora(1, 4), Method::FlapSam);
    /// let layout = Sam::layout(&sam, Some(&adapter))?;
    /// let mut state = initialise(&layout, 1);
    /// let trained = method.trained(&layout);
    /// state.retain(|key, _| trained.contains(key));
    /// let metadata = AdapterMetadata {
    ///     method,
    ///     sam,
    ///     adapter,
    ///     classes: vec!["background".into(), "hippocampus".into()],
    ///     preprocessing: Preprocessing::default(),
    ///     base_sha256: sha256(b"the base checkpoint's file"),
    ///     seed: 1,
    /// };
    /// let adapter = Adapter { metadata, state };
    /// assert_eq!(Adapter::from_bytes(&adapter.to_bytes())?, adapter);
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_bytes(&self) -> Vec<u8> {
        let metadata = serde_json::to_string(&self.metadata).expect("plain data is valid JSON");
        write_safetensors(&self.state, Some((METADATA_KEY, metadata)))
    }

    /// Reads what [`Adapter::to_bytes`] wrote.
    ///
    /// # Errors
    /// Not a safetensors file, without an adapter's metadata, or its tensors are not those that its metadata promise.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (state, metadata) = read_safetensors(bytes)?;
        let Some(metadata) = metadata.get(METADATA_KEY) else {
            let why = format!("it has no '{METADATA_KEY}' metadata; pass an adapter.safetensors that flapsam wrote");
            return Err(Error::format("the adapter", why));
        };
        let metadata: AdapterMetadata =
            serde_json::from_str(metadata).map_err(|why| Error::format("the adapter's metadata", why))?;
        metadata.check()?;
        let adapter = Self { metadata, state };
        adapter.check_layout()?;
        Ok(adapter)
    }

    fn check_layout(&self) -> Result<(), Error> {
        let metadata = &self.metadata;
        let mut layout = Sam::layout(&metadata.sam, Some(&metadata.adapter))?;
        let counts = layout.values().map(Spec::count);
        let parameters = counts.fold(0, usize::saturating_add);
        if parameters > MOST_PARAMETERS {
            return Err(Error::Config(format!(
                "the adapter is for a network of {parameters} parameters, more than any there is; it is damaged, or not \
                 one of ours"
            )));
        }
        let trained = metadata.method.trained(&layout);
        layout.retain(|key, _| trained.contains(key));
        check(&self.state, &layout, &format!("{} adapter", metadata.method.name()))
    }

    /// The whole network's weights: the base's, resized and completed, with the adapter's in their place.
    ///
    /// # Errors
    /// The base is another than the adapter was trained on, or lacks a parameter.
    pub fn on_base(&self, base: &StateDict, base_sha256: &str) -> Result<StateDict, Error> {
        let metadata = &self.metadata;
        if metadata.base_sha256 != base_sha256 {
            return Err(Error::OtherBase {
                adapter: metadata.base_sha256.clone(),
                base: base_sha256.to_owned(),
            });
        }
        let adapter = Some(&metadata.adapter);
        let mut state = crate::checkpoint::adapt(base, &metadata.sam, adapter, metadata.seed)?;
        state.extend(self.state.clone());
        Ok(state)
    }

    /// The adapted network on a device.
    ///
    /// # Errors
    /// As of [`Adapter::on_base`].
    pub fn network(&self, base: &StateDict, base_sha256: &str, device: &Device) -> Result<Sam, Error> {
        let parameters = Parameters::new(&self.on_base(base, base_sha256)?, device);
        Sam::new(&self.metadata.sam, Some(&self.metadata.adapter), &parameters)
    }
}
