//! How large a network is, and how it is adapted.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The dimensions of a Segment Anything model, as published (or as a fixture's `meta.json` gives them).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamConfig {
    /// Side of the square input image, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels; the image becomes `image_size / patch_size` tokens a side.
    pub patch_size: usize,
    /// Channels of a token in the image encoder.
    pub embed_dim: usize,
    /// Transformer blocks in the image encoder.
    pub depth: usize,
    /// Attention heads of an encoder block.
    pub num_heads: usize,
    /// Side of an attention window, tokens.
    pub window_size: usize,
    /// Blocks that attend to the whole image instead of windows.
    pub global_attn_indexes: Vec<usize>,
    /// Channels of the image embedding, prompts and mask decoder.
    pub prompt_dim: usize,
    /// Hidden channels of the mask decoder's MLPs.
    pub decoder_mlp_dim: usize,
    /// Attention heads in the mask decoder.
    pub decoder_heads: usize,
}

/// More than any dimension of a published network, several times over; what follows from these fits the memory's addresses.
const LARGEST: usize = 1 << 14;
/// The same for what is there many times, each with parameters of its own: blocks, and pairs of each projection.
const MOST: usize = 1 << 7;

impl SamConfig {
    /// The names that [`SamConfig::named`] knows.
    pub const NAMES: [&str; 4] = ["vit_b", "vit_l", "vit_h", "nano"];

    /// A published configuration at its own image size (1024), or `nano` (128), a SAM that two CPU cores can train.
    pub fn named(name: &str) -> Option<Self> {
        let vit = |embed_dim, depth, num_heads, global_attn_indexes: [usize; 4]| Self {
            image_size: 1024,
            patch_size: 16,
            embed_dim,
            depth,
            num_heads,
            window_size: 14,
            global_attn_indexes: global_attn_indexes.into(),
            prompt_dim: 256,
            decoder_mlp_dim: 2048,
            decoder_heads: 8,
        };
        match name {
            "vit_b" => Some(vit(768, 12, 12, [2, 5, 8, 11])),
            "vit_l" => Some(vit(1024, 24, 16, [5, 11, 17, 23])),
            "vit_h" => Some(vit(1280, 32, 16, [7, 15, 23, 31])),
            "nano" => Some(Self {
                image_size: 128,
                patch_size: 16,
                embed_dim: 96,
                depth: 4,
                num_heads: 3,
                window_size: 4,
                global_attn_indexes: vec![1, 3],
                prompt_dim: 64,
                decoder_mlp_dim: 128,
                decoder_heads: 4,
            }),
            _ => None,
        }
    }

    /// The same network for another image size. Its position tables differ in shape.
    pub fn with_image_size(mut self, image_size: usize) -> Self {
        self.image_size = image_size;
        self
    }

    /// Tokens a side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Refuses dimensions that no network can have, naming the first one.
    pub fn check(&self) -> Result<(), Error> {
        let positive = [
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("embed_dim", self.embed_dim),
            ("num_heads", self.num_heads),
            ("window_size", self.window_size),
            ("prompt_dim", self.prompt_dim),
            ("decoder_mlp_dim", self.decoder_mlp_dim),
            ("decoder_heads", self.decoder_heads),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Config(format!("{name} must be at least 1")));
        }
        let sides = positive.map(|(name, value)| (name, value, LARGEST));
        let mut bounded = sides.into_iter().chain([("depth", self.depth, MOST)]);
        if let Some((name, value, most)) = bounded.find(|(_, value, most)| value > most) {
            return Err(Error::Config(format!(
                "{name} is {value}; no network here has more than {most}"
            )));
        }
        if let Some(block) = self.global_attn_indexes.iter().find(|&&block| block >= self.depth) {
            return Err(Error::Config(format!(
                "global_attn_indexes names block {block}, and there are {} (from 0)",
                self.depth
            )));
        }
        let multiples = [
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("embed_dim", self.embed_dim, "num_heads", self.num_heads),
            (
                "prompt_dim",
                self.prompt_dim,
                "twice decoder_heads",
                2 * self.decoder_heads,
            ),
        ];
        for (name, value, of, divisor) in multiples {
            if value % divisor != 0 {
                return Err(Error::Config(format!(
                    "{name} ({value}) must be a multiple of {of} ({divisor})"
                )));
            }
        }
        if !self.prompt_dim.is_multiple_of(32) {
            return Err(Error::Config(format!(
                "prompt_dim ({}) must be a multiple of 32: the adapted decoder divides it by 32",
                self.prompt_dim
            )));
        }
        Ok(())
    }
}

/// How SAM is adapted to a segmentation task (method section "Network").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// Foreground classes; the network returns one mask more, for the background.
    pub num_classes: usize,
    /// Rank of the low-rank updates; 0 leaves them out (the methods without LoRA).
    pub rank: usize,
    /// Number of low-rank pairs per projection, mixed with learned weights when there are several.
    #[serde(default = "one")]
    pub num_lora: usize,
    /// Weight-decomposed updates: magnitude and direction apart.
    #[serde(default)]
    pub dora: bool,
    /// Train DoRA's magnitudes beside the pairs, as its paper does (arXiv 2402.09353). Without, they stay at the norms of the
    /// base's columns (reference behaviour).
    #[serde(default, skip_serializing_if = "is_false")]
    pub train_magnitude: bool,
    /// Factor on the low-rank update.
    #[serde(default = "one_float")]
    pub lora_scale: f64,
    /// How fresh pairs start.
    #[serde(default)]
    pub lora_init: LoraInit,
}

/// How the factors of a low-rank pair start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// B = 0, so that the adapted network starts as the base (the LoRA paper).
    #[default]
    Zero,
    /// A and B both with the framework's default for linear layers (the reference code).
    Reference,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn one() -> usize {
    1
}

fn one_float() -> f64 {
    1.0
}

impl AdapterConfig {
    /// One LoRA pair of the given rank, scale 1, B = 0.
    pub fn lora(num_classes: usize, rank: usize) -> Self {
        Self {
            num_classes,
            rank,
            num_lora: 1,
            dora: false,
            train_magnitude: false,
            lora_scale: 1.0,
            lora_init: LoraInit::Zero,
        }
    }

    /// The same adapted network without low-rank pairs.
    pub fn without_lora(&self) -> Self {
        Self {
            rank: 0,
            num_lora: 1,
            dora: false,
            train_magnitude: false,
            ..self.clone()
        }
    }

    /// Refuses counts that no adapter can have.
    pub fn check(&self) -> Result<(), Error> {
        // Labels are bytes, and the background is one of them.
        if !(1..=255).contains(&self.num_classes) {
            return Err(Error::Config(format!(
                "num_classes is {}; it must be from 1 to 255",
                self.num_classes
            )));
        }
        if self.rank > LARGEST || self.num_lora > MOST {
            return Err(Error::Config(format!(
                "rank is {} and num_lora {}; they must be at most {LARGEST} and {MOST}",
                self.rank, self.num_lora
            )));
        }
        if !self.lora_scale.is_finite() {
            return Err(Error::Config(format!(
                "lora_scale is {}; it must be a number",
                self.lora_scale
            )));
        }
        if self.num_lora == 0 {
            return Err(Error::Config(
                "num_lora must be at least 1; rank = 0 leaves LoRA out".into(),
            ));
        }
        if self.train_magnitude && !self.dora {
            return Err(Error::Config(
                "train_magnitude is DoRA's; set dora = true as well, or remove it".into(),
            ));
        }
        if self.dora && self.rank == 0 {
            return Err(Error::Config("dora needs a rank of at least 1".into()));
        }
        Ok(())
    }
}
