//! Which parameters a method trains and sends.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::AdapterConfig;
use crate::parameters::{Layout, Spec, Training};

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

    /// Whether the method trains the parameter of that name.
    pub fn trains(self, key: &str) -> bool {
        if is_lora(key) {
            return self.uses_lora();
        }
        let attention = key.contains("attn") && !key.contains("norm_final_attn");
        match self {
            Method::FullFt => true,
            Method::AttentionFt => attention || is_head(key),
            Method::DecoderFt | Method::LoraDecoderFt => key.starts_with("mask_decoder."),
            Method::PartialDecoderFt | Method::FlapSam => is_head(key),
            Method::LoraFt => false,
        }
    }

    /// The names of the parameters that the method trains.
    pub fn trained(self, layout: &Layout) -> BTreeSet<String> {
        let is_trained = |(key, spec): &(&String, &Spec)| match spec.training {
            Training::ByMethod => self.trains(key),
            Training::WithLora => self.uses_lora(),
            Training::Never => false,
        };
        let trained = layout.iter().filter(is_trained);
        trained.map(|(key, _)| key.clone()).collect()
    }

    /// How many numbers the method trains in a network of this layout.
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

/// LoRA pairs and their mixing weights. DoRA's magnitudes are not among them: in the reference the LoRA methods never
/// train them (its counts and four-step fixtures say so); [`AdapterConfig::train_magnitude`] does.
pub fn is_lora(key: &str) -> bool {
    key.contains(".lora_")
}

/// The weights that mix several LoRAs: trained, but never sent.
pub fn is_personal(key: &str) -> bool {
    key.ends_with(".lora_scale")
}

/// What must be trained for a new set of classes.
pub fn is_head(key: &str) -> bool {
    let heads = [
        "mask_decoder.output_upscaling.",
        "mask_decoder.output_hypernetworks_mlps.",
        "mask_decoder.mask_tokens.",
    ];
    heads.iter().any(|head| key.starts_with(head))
}
