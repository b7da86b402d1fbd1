//! How large a network is, and how it is adapted.

use serde::{Deserialize, Serialize};

use crate::Error;

/// The dimensions of a Segment Anything model, as published (or as a fixture's `meta.json` gives them).
///
/// As JSON it is one flat table, whose `family` says which encoder's dimensions are in it: `vit` where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Dimensions", into = "Dimensions")]
pub struct SamConfig {
    /// Side of the square input image, pixels.
    pub image_size: usize,
    /// The image encoder.
    pub encoder: EncoderConfig,
    /// Channels of the image embedding, prompts and mask decoder.
    pub prompt_dim: usize,
    /// Hidden channels of the mask decoder's MLPs.
    pub decoder_mlp_dim: usize,
    /// Attention heads in the mask decoder.
    pub decoder_heads: usize,
}

/// An image encoder's dimensions, by family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncoderConfig {
    /// SAM's own vision transformer.
    Vit(VitConfig),
    /// MobileSAM's.
    TinyVit(TinyVitConfig),
}

/// The dimensions of SAM's own image encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VitConfig {
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
}

/// Stages of a TinyViT: the first of convolutions, the others of attention.
pub const STAGES: usize = 4;

/// The dimensions of MobileSAM's image encoder, stage by stage. The first stage has no heads and no windows; what stands in
/// their place is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyVitConfig {
    /// Channels.
    pub embed_dims: [usize; STAGES],
    /// Blocks.
    pub depths: [usize; STAGES],
    /// Attention heads of a block.
    pub num_heads: [usize; STAGES],
    /// Side of an attention window, tokens.
    pub window_sizes: [usize; STAGES],
}

impl TinyVitConfig {
    /// How many times smaller each side is after a stage's end than before; nothing comes after the last one.
    pub fn downsampling(&self, stage: usize) -> usize {
        // The last two stages have the same places.
        match stage + 2 < STAGES {
            true => 2,
            false => 1,
        }
    }

    /// Pixels from one place of a stage to the next.
    pub fn stride(&self, stage: usize) -> usize {
        // Of the two convolutions in front.
        4 * (0..stage).map(|stage| self.downsampling(stage)).product::<usize>()
    }
}

impl EncoderConfig {
    /// Pixels from one token of the embedding to the next.
    pub fn stride(&self) -> usize {
        match self {
            EncoderConfig::Vit(vit) => vit.patch_size,
            EncoderConfig::TinyVit(vit) => vit.stride(STAGES - 1),
        }
    }

    /// Channels of its last token.
    pub fn channels(&self) -> usize {
        match self {
            EncoderConfig::Vit(vit) => vit.embed_dim,
            EncoderConfig::TinyVit(vit) => vit.embed_dims[STAGES - 1],
        }
    }

    /// Its sides by name, each of which must be at least 1.
    fn sides(&self) -> Vec<(&'static str, usize)> {
        match self {
            EncoderConfig::Vit(vit) => vec![
                ("patch_size", vit.patch_size),
                ("embed_dim", vit.embed_dim),
                ("num_heads", vit.num_heads),
                ("window_size", vit.window_size),
            ],
            EncoderConfig::TinyVit(vit) => {
                let named = [
                    ("embed_dims", vit.embed_dims),
                    ("depths", vit.depths),
                    ("num_heads", vit.num_heads),
                    ("window_sizes", vit.window_sizes),
                ];
                let each = |(name, values): (&'static str, [usize; STAGES])| values.map(|value| (name, value));
                named.into_iter().flat_map(each).collect()
            }
        }
    }

    /// Refuses dimensions that no encoder of images of this size can have, naming the first one.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self, image_size: usize) -> Result<(), Error> {
        let mut sides = self.sides();
        sides.push(("image_size", image_size));
        in_bounds(&sides)?;
        multiple_of("image_size", image_size, "the encoder's stride", self.stride())?;
        let heads = |channels, heads| multiple_of("embed_dim", channels, "num_heads", heads);
        match self {
            EncoderConfig::Vit(vit) => {
                at_most("depth", vit.depth, MOST)?;
                if let Some(block) = vit.global_attn_indexes.iter().find(|&&block| block >= vit.depth) {
                    return Err(Error::Config(format!(
                        "global_attn_indexes names block {block}, and there are {} (from 0)",
                        vit.depth
                    )));
                }
                heads(vit.embed_dim, vit.num_heads)
            }
            EncoderConfig::TinyVit(vit) => {
                vit.depths
                    .into_iter()
                    .try_for_each(|depth| at_most("depths", depth, MOST))?;
                multiple_of("embed_dims[0]", vit.embed_dims[0], "two", 2)?;
                let mut stages = vit.embed_dims.into_iter().zip(vit.num_heads).skip(1);
                stages.try_for_each(|(channels, number)| heads(channels, number))
            }
        }
    }
}

/// Refuses a number that is 0 or too large, naming the first one.
fn in_bounds(sides: &[(&str, usize)]) -> Result<(), Error> {
    if let Some((name, _)) = sides.iter().find(|(_, value)| *value == 0) {
        return Err(Error::Config(format!("{name} must be at least 1")));
    }
    sides
        .iter()
        .try_for_each(|(name, value)| at_most(name, *value, LARGEST))
}

fn multiple_of(name: &str, value: usize, of: &str, divisor: usize) -> Result<(), Error> {
    match value.is_multiple_of(divisor) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "{name} ({value}) must be a multiple of {of} ({divisor})"
        ))),
    }
}

fn at_most(name: &str, value: usize, most: usize) -> Result<(), Error> {
    match value <= most {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "{name} is {value}; no network here has more than {most}"
        ))),
    }
}

/// More than any dimension of a published network, several times over; what follows from these fits the memory's addresses.
const LARGEST: usize = 1 << 14;
/// The same for what is there many times, each with parameters of its own: blocks, and pairs of each projection.
const MOST: usize = 1 << 7;

impl SamConfig {
    /// The names that [`SamConfig::named`] knows.
    pub const NAMES: [&str; 5] = ["vit_b", "vit_l", "vit_h", "mobile_sam", "nano"];

    /// A published configuration at its own image size (1024), or `nano` (128), a SAM that two CPU cores can train.
    pub fn named(name: &str) -> Option<Self> {
        let published = |encoder| Self {
            image_size: 1024,
            encoder,
            prompt_dim: 256,
            decoder_mlp_dim: 2048,
            decoder_heads: 8,
        };
        let vit = |embed_dim, depth, num_heads, global_attn_indexes: [usize; 4]| {
            published(EncoderConfig::Vit(VitConfig {
                patch_size: 16,
                embed_dim,
                depth,
                num_heads,
                window_size: 14,
                global_attn_indexes: global_attn_indexes.into(),
            }))
        };
        match name {
            "vit_b" => Some(vit(768, 12, 12, [2, 5, 8, 11])),
            "vit_l" => Some(vit(1024, 24, 16, [5, 11, 17, 23])),
            "vit_h" => Some(vit(1280, 32, 16, [7, 15, 23, 31])),
            "mobile_sam" => Some(published(EncoderConfig::TinyVit(TinyVitConfig {
                embed_dims: [64, 128, 160, 320],
                depths: [2, 2, 6, 2],
                num_heads: [2, 4, 5, 10],
                window_sizes: [7, 7, 14, 7],
            }))),
            "nano" => Some(Self {
                image_size: 128,
                encoder: EncoderConfig::Vit(VitConfig {
                    patch_size: 16,
                    embed_dim: 96,
                    depth: 4,
                    num_heads: 3,
                    window_size: 4,
                    global_attn_indexes: vec![1, 3],
                }),
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

    /// Tokens a side of the embedding.
    pub fn grid(&self) -> usize {
        self.image_size / self.encoder.stride()
    }

    /// Refuses dimensions that no network can have, naming the first one.
    pub fn check(&self) -> Result<(), Error> {
        self.encoder.check(self.image_size)?;
        in_bounds(&[
            ("prompt_dim", self.prompt_dim),
            ("decoder_mlp_dim", self.decoder_mlp_dim),
            ("decoder_heads", self.decoder_heads),
        ])?;
        multiple_of(
            "prompt_dim",
            self.prompt_dim,
            "twice decoder_heads",
            2 * self.decoder_heads,
        )?;
        if !self.prompt_dim.is_multiple_of(32) {
            return Err(Error::Config(format!(
                "prompt_dim ({}) must be a multiple of 32: the adapted decoder divides it by 32",
                self.prompt_dim
            )));
        }
        Ok(())
    }
}

/// A [`SamConfig`] as files have it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dimensions {
    #[serde(skip_serializing_if = "Family::is_vit")]
    family: Family,
    image_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embed_dims: Option<[usize; STAGES]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depths: Option<[usize; STAGES]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_heads: Option<Heads>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_sizes: Option<[usize; STAGES]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    global_attn_indexes: Option<Vec<usize>>,
    prompt_dim: Option<usize>,
    decoder_mlp_dim: Option<usize>,
    decoder_heads: Option<usize>,
}

/// Which encoder it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Family {
    #[default]
    Vit,
    TinyVit,
}

impl Family {
    fn is_vit(&self) -> bool {
        *self == Family::Vit
    }
}

/// Of all blocks alike, or stage by stage.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Heads {
    Alike(usize),
    ByStage([usize; STAGES]),
}

impl TryFrom<Dimensions> for SamConfig {
    type Error = String;

    fn try_from(dimensions: Dimensions) -> Result<Self, String> {
        fn needed<T>(name: &str, value: Option<T>) -> Result<T, String> {
            value.ok_or_else(|| format!("the network's '{name}' is missing"))
        }
        let heads = needed("num_heads", dimensions.num_heads)?;
        let encoder = match (dimensions.family, heads) {
            (Family::Vit, Heads::Alike(num_heads)) => EncoderConfig::Vit(VitConfig {
                patch_size: needed("patch_size", dimensions.patch_size)?,
                embed_dim: needed("embed_dim", dimensions.embed_dim)?,
                depth: needed("depth", dimensions.depth)?,
                num_heads,
                window_size: needed("window_size", dimensions.window_size)?,
                global_attn_indexes: needed("global_attn_indexes", dimensions.global_attn_indexes)?,
            }),
            (Family::TinyVit, Heads::ByStage(num_heads)) => EncoderConfig::TinyVit(TinyVitConfig {
                embed_dims: needed("embed_dims", dimensions.embed_dims)?,
                depths: needed("depths", dimensions.depths)?,
                num_heads,
                window_sizes: needed("window_sizes", dimensions.window_sizes)?,
            }),
            _ => return Err("'num_heads' must be one number for a vit, and one for each stage of a tiny_vit".into()),
        };
        Ok(Self {
            image_size: needed("image_size", dimensions.image_size)?,
            encoder,
            prompt_dim: needed("prompt_dim", dimensions.prompt_dim)?,
            decoder_mlp_dim: needed("decoder_mlp_dim", dimensions.decoder_mlp_dim)?,
            decoder_heads: needed("decoder_heads", dimensions.decoder_heads)?,
        })
    }
}

impl From<SamConfig> for Dimensions {
    fn from(sam: SamConfig) -> Self {
        let whole = Self {
            image_size: Some(sam.image_size),
            prompt_dim: Some(sam.prompt_dim),
            decoder_mlp_dim: Some(sam.decoder_mlp_dim),
            decoder_heads: Some(sam.decoder_heads),
            ..Self::default()
        };
        match sam.encoder {
            EncoderConfig::Vit(vit) => Self {
                patch_size: Some(vit.patch_size),
                embed_dim: Some(vit.embed_dim),
                depth: Some(vit.depth),
                num_heads: Some(Heads::Alike(vit.num_heads)),
                window_size: Some(vit.window_size),
                global_attn_indexes: Some(vit.global_attn_indexes),
                ..whole
            },
            EncoderConfig::TinyVit(vit) => Self {
                family: Family::TinyVit,
                embed_dims: Some(vit.embed_dims),
                depths: Some(vit.depths),
                num_heads: Some(Heads::ByStage(vit.num_heads)),
                window_sizes: Some(vit.window_sizes),
                ..whole
            },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_one_flat_table() {
        for name in SamConfig::NAMES {
            let sam = SamConfig::named(name).unwrap();
            sam.check().unwrap();
            let json = serde_json::to_string(&sam).unwrap();
            assert_eq!(serde_json::from_str::<SamConfig>(&json).unwrap(), sam);
        }
        // Adapters are compared by their bytes: a vit's table stays as it was before there was another family.
        let nano = serde_json::to_string(&SamConfig::named("nano").unwrap()).unwrap();
        let as_ever = r#"{"image_size":128,"patch_size":16,"embed_dim":96,"depth":4,"num_heads":3,"window_size":4,"#;
        let as_ever = as_ever.to_owned()
            + r#""global_attn_indexes":[1,3],"prompt_dim":64,"decoder_mlp_dim":128,"decoder_heads":4}"#;
        assert_eq!(nano, as_ever);
        let refused = |json: &str| serde_json::from_str::<SamConfig>(json).unwrap_err().to_string();
        assert!(refused(&as_ever.replace("\"depth\":4,", "")).contains("'depth' is missing"));
        assert!(refused(&as_ever.replace("depth", "depht")).contains("unknown field"));
        assert!(refused(&as_ever.replace("{\"image", "{\"family\":\"tiny_vit\",\"image")).contains("num_heads"));
    }

    #[test]
    fn dimensions_that_no_network_has_are_refused() {
        let mobile = SamConfig::named("mobile_sam").unwrap();
        let refused = |change: fn(&mut TinyVitConfig)| {
            let mut sam = mobile.clone();
            if let EncoderConfig::TinyVit(vit) = &mut sam.encoder {
                change(vit);
            }
            sam.check().unwrap_err().to_string()
        };
        assert!(refused(|vit| vit.num_heads[2] = 0).contains("num_heads must be at least 1"));
        assert!(refused(|vit| vit.embed_dims[3] = 1 << 20).contains("embed_dims is 1048576"));
        assert!(refused(|vit| vit.num_heads[1] = 3).contains("embed_dim (128) must be a multiple of num_heads (3)"));
        let odd = mobile.clone().with_image_size(100);
        assert!(
            odd.check()
                .unwrap_err()
                .to_string()
                .contains("multiple of the encoder's stride (16)")
        );
        assert_eq!((mobile.grid(), mobile.with_image_size(48).grid()), (64, 3));
    }
}
