//! SAM's own image encoder: a vision transformer with windowed attention and decomposed relative positions.

use burn::tensor::Tensor;
use flapsam_kernels::{Positions, add_row, attention, gelu, linear};

use super::EPSILON;
use super::windows::{from_windows, to_windows};
use crate::Error;
use crate::config::{AdapterConfig, VitConfig};
use crate::layers::{LayerNorm, Linear};
use crate::lora::QueryValueLora;
use crate::parameters::{Init, Projection, Role, Scope, Start};

/// Patches and blocks.
#[derive(Debug, Clone)]
pub struct Vit {
    patch_embed: Linear,
    patch_size: usize,
    pos_embed: Tensor<4>,
    pub blocks: Vec<Block>,
}

impl Vit {
    /// Builds the transformer for a square of `grid` tokens a side; with an adapter, its attentions are adapted.
    pub fn new(
        scope: &mut Scope,
        config: &VitConfig,
        grid: usize,
        adapter: Option<&AdapterConfig>,
    ) -> Result<Self, Error> {
        let (dim, patch) = (config.embed_dim, config.patch_size);
        let init = Init::fan_in(3 * patch * patch);
        let mut proj = scope.at("patch_embed");
        let mut proj = proj.at("proj");
        // A convolution whose stride is its kernel: a linear layer over each patch.
        let patch_embed = Linear {
            weight: proj.parameter_as("weight", [dim, 3, patch, patch], [dim, 3 * patch * patch], init)?,
            bias: Some(proj.parameter("bias", [dim], init)?),
        };
        let mut positions = scope.here().start(Start::Resized);
        let pos_embed = positions.parameter("pos_embed", [1, grid, grid, dim], Init::Constant(0.0))?;
        let blocks = (0..config.depth).map(|index| {
            let window = match config.global_attn_indexes.contains(&index) {
                true => None,
                false => Some(config.window_size),
            };
            let mut scope = scope.at("blocks");
            Block::new(&mut scope.at(index), config, grid, window, adapter)
        });
        Ok(Self {
            patch_embed,
            patch_size: patch,
            pos_embed,
            blocks: blocks.collect::<Result<_, _>>()?,
        })
    }

    /// `[batch, 3, row, column]` to tokens `[batch, row / patch, column / patch, channel]`, for the blocks.
    pub fn patches(&self, images: Tensor<4>) -> Tensor<4> {
        let [batch, channels, rows, columns] = images.dims();
        let patch = self.patch_size;
        let (high, wide) = (rows / patch, columns / patch);
        let patches = images
            .reshape([batch, channels, high, patch, wide, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, high, wide, channels * patch * patch]);
        add_row(self.patch_embed.forward(patches), self.pos_embed.clone())
    }
}

#[derive(Debug, Clone)]
pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    /// Side of an attention window, tokens; `None` attends globally.
    window: Option<usize>,
}

impl Block {
    fn new(
        scope: &mut Scope,
        config: &VitConfig,
        grid: usize,
        window: Option<usize>,
        adapter: Option<&AdapterConfig>,
    ) -> Result<Self, Error> {
        let dim = config.embed_dim;
        let side = window.unwrap_or(grid);
        let attn = Attention::new(
            &mut scope.at("attn").role(Role::Attention),
            dim,
            config.num_heads,
            side,
            adapter,
        )?;
        Ok(Self {
            norm1: LayerNorm::new(&mut scope.at("norm1"), dim, EPSILON)?,
            attn,
            norm2: LayerNorm::new(&mut scope.at("norm2"), dim, EPSILON)?,
            lin1: Linear::new(&mut scope.at("mlp").at("lin1"), dim, 4 * dim)?,
            lin2: Linear::new(&mut scope.at("mlp").at("lin2"), 4 * dim, dim)?,
            window,
        })
    }

    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, high, wide, _] = x.dims();
        let normed = self.norm1.forward(x.clone());
        let attended = match self.window {
            None => self.attn.forward(normed),
            Some(side) => {
                let windows = to_windows(normed, side);
                from_windows(self.attn.forward(windows), side, high, wide)
            }
        };
        let x = x + attended;
        let hidden = gelu(self.lin1.forward(self.norm2.forward(x.clone())));
        x + self.lin2.forward(hidden)
    }
}

/// Multi-head self-attention over a square of tokens, with relative positions by row and by column.
#[derive(Debug, Clone)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    rel_pos_h: Tensor<2>,
    rel_pos_w: Tensor<2>,
    lora: Option<QueryValueLora>,
    heads: usize,
}

impl Attention {
    fn new(
        scope: &mut Scope,
        dim: usize,
        heads: usize,
        side: usize,
        adapter: Option<&AdapterConfig>,
    ) -> Result<Self, Error> {
        let table = [2 * side - 1, dim / heads];
        let third = |part: usize| Projection::new(scope.key("qkv.weight"), part * dim, (part + 1) * dim);
        let (query, value) = (third(0), third(2));
        let mut positions = scope.here().start(Start::Resized);
        let mut table = |name| positions.parameter(name, table, Init::Constant(0.0));
        let (rel_pos_h, rel_pos_w) = (table("rel_pos_h")?, table("rel_pos_w")?);
        Ok(Self {
            qkv: Linear::new(&mut scope.at("qkv"), dim, 3 * dim)?,
            proj: Linear::new(&mut scope.at("proj"), dim, dim)?,
            rel_pos_h,
            rel_pos_w,
            lora: match adapter {
                Some(adapter) => QueryValueLora::new(scope, adapter, dim, query, value)?,
                None => None,
            },
            heads,
        })
    }

    /// `[batch, row, column, channel]` to the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, high, wide, channels] = x.dims();
        let scale = 1.0 / ((channels / self.heads) as f64).sqrt();
        let positions = Positions::Relative {
            rows: self.rel_pos_h.clone(),
            columns: self.rel_pos_w.clone(),
            grid: [high, wide],
        };
        let inputs = self.query_key_value(x.reshape([batch, high * wide, channels]));
        let x = attention(inputs, self.heads, scale, Some(positions)).reshape([batch, high, wide, channels]);
        self.proj.forward(x)
    }

    /// `[batch, token, channel]` to three of the same shape.
    fn query_key_value(&self, x: Tensor<3>) -> [Tensor<3>; 3] {
        let channels = x.dims()[2];
        let Some(lora) = &self.lora else {
            let qkv = self.qkv.forward(x);
            return [0, 1, 2].map(|part| qkv.clone().narrow(2, part * channels, channels));
        };
        let third = |part| {
            let weight = self.qkv.weight.clone();
            let bias = self.qkv.bias.clone();
            (
                weight.narrow(0, part * channels, channels),
                bias.map(|bias| bias.narrow(0, part * channels, channels)),
            )
        };
        let (query, key, value) = (third(0), third(1), third(2));
        [
            lora.query.project(x.clone(), query.0, query.1),
            linear(x.clone(), key.0, key.1),
            lora.value.project(x, value.0, value.1),
        ]
    }
}
