//! Which parameters a method trains and sends.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::AdapterConfig;
use crate::parameters::{Layout, Part, Role, Spec};

/// The fine-tuning methods that the paper compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Everything (no LoRA).
    FullFt,
    /// Every attention, and the decoder's heads.
    AttentionFt,
    /// The whole mask decoder.
    DecoderFt,
    /// The decoder's heads: upscaling, hypernetworks and mask tokens.
    PartialDecoderFt,
    /// All LoRA pairs.
    LoraFt,
    /// All LoRA pairs and the decoder's heads: FLAP-SAM.
    FlapSam,
    /// All LoRA pairs and the whole mask decoder: SAMed.
    LoraDecoderFt,
}

impl Method {
    /// All seven, in the order of the paper's table.
    pub const ALL: [Method; 7] = [
        Method::FullFt,
        Method::AttentionFt,
        Method::DecoderFt,
        Method::PartialDecoderFt,
        Method::LoraFt,
        Method::FlapSam,
        Method::LoraDecoderFt,
    ];

    /// The name in experiment files and records.
    pub fn name(self) -> &'static str {
        match self {
            Method::FullFt => "full_ft",
            Method::AttentionFt => "attention_ft",
            Method::DecoderFt => "decoder_ft",
            Method::PartialDecoderFt => "partial_decoder_ft",
            Method::LoraFt => "lora_ft",
            Method::FlapSam => "flap_sam",
            Method::LoraDecoderFt => "lora_decoder_ft",
        }
    }

    /// Whether the method has LoRA pairs at all.
    pub fn uses_lora(self) -> bool {
        matches!(self, Method::LoraFt | Method::FlapSam | Method::LoraDecoderFt)
    }

    /// Whether the method trains a parameter.
    pub fn trains(self, spec: &Spec) -> bool {
        match &spec.role {
            Role::Constant => return false,
            role if role.is_lora() => return self.uses_lora(),
            Role::Magnitude { trained: true, .. } => return self.uses_lora(),
            _ => (),
        }
        match self {
            Method::FullFt => true,
            Method::AttentionFt => matches!(spec.role, Role::Attention | Role::Head),
            Method::DecoderFt | Method::LoraDecoderFt => spec.part == Part::MaskDecoder,
            Method::PartialDecoderFt | Method::FlapSam => spec.role == Role::Head,
            Method::LoraFt => false,
        }
    }

    /// The names of the parameters that the method trains.
    pub fn trained(self, layout: &Layout) -> BTreeSet<String> {
        let trained = layout.iter().filter(|(_, spec)| self.trains(spec));
        trained.map(|(key, _)| key.clone()).collect()
    }

    /// How many numbers the method trains in a network of this layout.
    ///
    /// ```
    /// use flapsam_model::config::{AdapterConfig, SamConfig};
    /// use flapsam_model::method::Method;
    /// use flapsam_model::sam::Sam;
    ///
    /// # fn main() -> Result<(), flapsam_model::Error> {
    /// // The paper's experiments on Fed-KiTS19: ViT-B at 224 pixels, rank 32, kidney and tumour.
    /// let sam = SamConfig::named("vit_b").expect("one of the known ones").with_image_size(224);
    /// let lora = AdapterConfig::lora(2, 32);
    /// let layout = |method: Method| Sam::layout(&sam, Some(&method.adapter(&lora)));
    /// let full = Method::FullFt.count(&layout(Method::FullFt)?) as f64;
    /// let flap_sam = Method::FlapSam.count(&layout(Method::FlapSam)?) as f64;
    /// assert_eq!((full / flap_sam).round(), 49.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn count(self, layout: &Layout) -> usize {
        self.trained(layout).iter().map(|key| layout[key].count()).sum()
    }

    /// The adapter that the method needs: the given one, without its LoRA pairs if the method has none.
    pub fn adapter(self, adapter: &AdapterConfig) -> AdapterConfig {
        match self.uses_lora() {
            true => adapter.clone(),
            false => adapter.without_lora(),
        }
    }
}
