//! SAM's image encoder: a vision transformer with windowed attention and decomposed relative positions.

use burn::tensor::Tensor;
use flapsam_kernels::{Positions, add_row, attention, gelu, linear};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::layers::{Conv3x3, LayerNorm, Linear};
use crate::lora::QueryValueLora;
use crate::parameters::{Init, Scope};

const EPSILON: f64 = 1e-6;

/// Images to embeddings.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    patch_embed: Linear,
    patch_size: usize,
    pos_embed: Tensor<4>,
    blocks: Vec<Block>,
    neck: Neck,
}

impl ImageEncoder {
    /// Builds the encoder; with an adapter, its attentions are adapted.
    pub fn new(scope: &mut Scope, config: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Self, Error> {
        let (dim, patch, grid) = (config.embed_dim, config.patch_size, config.grid());
        let init = Init::fan_in(3 * patch * patch);
        let mut proj = scope.at("patch_embed");
        let mut proj = proj.at("proj");
        // A convolution whose stride is its kernel: a linear layer over each patch.
        let patch_embed = Linear {
            weight: proj.parameter_as("weight", [dim, 3, patch, patch], [dim, 3 * patch * patch], init)?,
            bias: Some(proj.parameter("bias", [dim], init)?),
        };
        let pos_embed = scope.parameter("pos_embed", [1, grid, grid, dim], Init::Constant(0.0))?;
        let blocks = (0..config.depth).map(|index| {
            let window = match config.global_attn_indexes.contains(&index) {
                true => None,
                false => Some(config.window_size),
            };
            let mut scope = scope.at("blocks");
            Block::new(&mut scope.at(index), config, window, adapter)
        });
        let blocks = blocks.collect::<Result<_, _>>()?;
        Ok(Self {
            patch_embed,
            patch_size: patch,
            pos_embed,
            blocks,
            neck: Neck::new(&mut scope.at("neck"), dim, config.prompt_dim)?,
        })
    }

    /// `[batch, 3, row, column]` in `[0, 1]` to `[batch, prompt_dim, row / patch, column / patch]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let [batch, channels, rows, columns] = images.dims();
        let patch = self.patch_size;
        let (high, wide) = (rows / patch, columns / patch);
        let patches = images
            .reshape([batch, channels, high, patch, wide, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, high, wide, channels * patch * patch]);
        let x = add_row(self.patch_embed.forward(patches), self.pos_embed.clone());
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.neck.forward(x)
    }
}

#[derive(Debug, Clone)]
struct Block {
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
        config: &SamConfig,
        window: Option<usize>,
        adapter: Option<&AdapterConfig>,
    ) -> Result<Self, Error> {
        let dim = config.embed_dim;
        let side = window.unwrap_or(config.grid());
        let attn = Attention::new(&mut scope.at("attn"), dim, config.num_heads, side, adapter)?;
        Ok(Self {
            norm1: LayerNorm::new(&mut scope.at("norm1"), dim, EPSILON)?,
            attn,
            norm2: LayerNorm::new(&mut scope.at("norm2"), dim, EPSILON)?,
            lin1: Linear::new(&mut scope.at("mlp").at("lin1"), dim, 4 * dim)?,
            lin2: Linear::new(&mut scope.at("mlp").at("lin2"), 4 * dim, dim)?,
            window,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
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

/// Splits `[batch, row, column, channel]` into square windows, padded with zeros: `[batch * windows, side, side, channel]`.
fn to_windows(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, high, wide, channels] = x.dims();
    let (down, across) = (high.div_ceil(side), wide.div_ceil(side));
    let (below, right) = (down * side - high, across * side - wide);
    let x = match (below, right) {
        (0, 0) => x,
        _ => x.pad([(0, 0), (0, below), (0, right), (0, 0)], 0.0),
    };
    x.reshape([batch, down, side, across, side, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch * down * across, side, side, channels])
}

/// Undoes [`to_windows`] and cuts the padding off.
fn from_windows(windows: Tensor<4>, side: usize, high: usize, wide: usize) -> Tensor<4> {
    let (down, across) = (high.div_ceil(side), wide.div_ceil(side));
    let [count, _, _, channels] = windows.dims();
    let batch = count / (down * across);
    windows
        .reshape([batch, down, across, side, side, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch, down * side, across * side, channels])
        .narrow(1, 0, high)
        .narrow(2, 0, wide)
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
        Ok(Self {
            qkv: Linear::new(&mut scope.at("qkv"), dim, 3 * dim)?,
            proj: Linear::new(&mut scope.at("proj"), dim, dim)?,
            rel_pos_h: scope.parameter("rel_pos_h", table, Init::Constant(0.0))?,
            rel_pos_w: scope.parameter("rel_pos_w", table, Init::Constant(0.0))?,
            lora: match adapter {
                Some(adapter) => QueryValueLora::new(scope, adapter, dim, dim)?,
                None => None,
            },
            heads,
        })
    }

    /// `[batch, row, column, channel]` to the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, high, wide, channels] = x.dims();
        let scale = 1.0 / ((channels / self.heads) as f64).sqrt();
        let positions = Positions {
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

/// Token channels to prompt channels: 1x1 and 3x3 convolutions with channel norms.
#[derive(Debug, Clone)]
struct Neck {
    reduce: Tensor<2>,
    norm1: LayerNorm,
    conv: Conv3x3,
    norm2: LayerNorm,
}

impl Neck {
    fn new(scope: &mut Scope, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let init = Init::fan_in(inputs);
        let shapes = ([outputs, inputs, 1, 1], [outputs, inputs]);
        Ok(Self {
            reduce: scope.at(0).parameter_as("weight", shapes.0, shapes.1, init)?,
            norm1: LayerNorm::new(&mut scope.at(1), outputs, EPSILON)?,
            conv: Conv3x3::new(&mut scope.at(2), outputs, outputs)?,
            norm2: LayerNorm::new(&mut scope.at(3), outputs, EPSILON)?,
        })
    }

    /// `[batch, row, column, token channel]` to `[batch, prompt channel, row, column]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = linear(x, self.reduce.clone(), None);
        let x = self.conv.forward(self.norm1.forward(x));
        self.norm2.forward(x).permute([0, 3, 1, 2])
    }
}
