//! MobileSAM's image encoder, TinyViT: convolutions first, then transformer blocks whose windows have a bias for every
//! distance (arXiv 2207.10666, 2306.14289).

use burn::tensor::Tensor;
use flapsam_kernels::{Positions, attention, gelu};

use super::windows::{from_windows, to_windows};
use crate::Error;
use crate::config::{AdapterConfig, TinyVitConfig};
use crate::layers::{ConvNorm, Kernel, LayerNorm, Linear};
use crate::lora::QueryValueLora;
use crate::parameters::{Init, Projection, Role, Scope};

/// Of the blocks' norms.
const EPSILON: f64 = 1e-5;
/// How many times wider a block is inside.
pub(crate) const EXPANSION: usize = 4;

/// Four stages, each of half the last one's rows and columns, but for the last.
#[derive(Debug, Clone)]
pub struct TinyVit {
    patch_embed: [ConvNorm; 2],
    /// Of all stages, in their order.
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
pub enum Block {
    Convolution(Box<Bottleneck>),
    Attention(Box<Windowed>),
    /// On to the next stage.
    Downsample(Box<Bottleneck>),
}

impl TinyVit {
    /// Builds the encoder; with an adapter, its attentions are adapted.
    pub fn new(scope: &mut Scope, config: &TinyVitConfig, adapter: Option<&AdapterConfig>) -> Result<Self, Error> {
        let dims = config.embed_dims;
        let mut convolutions = scope.at("patch_embed");
        let mut convolutions = convolutions.at("seq");
        let down = Kernel::Full { stride: 2 };
        let patch_embed = [
            ConvNorm::new(&mut convolutions.at(0), 3, dims[0] / 2, down)?,
            ConvNorm::new(&mut convolutions.at(2), dims[0] / 2, dims[0], down)?,
        ];
        let mut blocks = Vec::new();
        for stage in 0..dims.len() {
            let mut scope = scope.at("layers");
            blocks.extend(stage_of(&mut scope.at(stage), config, stage, adapter)?);
        }
        Ok(Self { patch_embed, blocks })
    }

    /// `[batch, 3, row, column]` to tokens `[batch, row / 4, column / 4, channel]`, of which the blocks make those of
    /// `[batch, row / 16, column / 16, channel]`.
    pub fn patches(&self, images: Tensor<4>) -> Tensor<4> {
        let [first, second] = &self.patch_embed;
        second.forward(gelu(first.forward(images.permute([0, 2, 3, 1]))))
    }
}

/// A stage's blocks.
fn stage_of(
    scope: &mut Scope,
    config: &TinyVitConfig,
    stage: usize,
    adapter: Option<&AdapterConfig>,
) -> Result<Vec<Block>, Error> {
    let dim = config.embed_dims[stage];
    let mut blocks = Vec::new();
    for index in 0..config.depths[stage] {
        let mut scope = scope.at("blocks");
        let mut scope = scope.at(index);
        blocks.push(match stage {
            0 => {
                let widths = [dim, EXPANSION * dim, dim];
                Block::Convolution(Box::new(Bottleneck::new(&mut scope, widths, 1)?))
            }
            _ => {
                let (heads, side) = (config.num_heads[stage], config.window_sizes[stage]);
                Block::Attention(Box::new(Windowed::new(&mut scope, dim, heads, side, adapter)?))
            }
        });
    }
    if let Some(&next) = config.embed_dims.get(stage + 1) {
        let widths = [dim, next, next];
        let mut scope = scope.at("downsample");
        let down = Bottleneck::new(&mut scope, widths, config.downsampling(stage))?;
        blocks.push(Block::Downsample(Box::new(down)));
    }
    Ok(blocks)
}

impl Block {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Convolution(bottleneck) => gelu(bottleneck.forward(x.clone()) + x),
            Self::Attention(windowed) => windowed.forward(x),
            Self::Downsample(bottleneck) => bottleneck.forward(x),
        }
    }
}

/// Two 1x1 convolutions with a depthwise one between them, and GELU after the first two.
#[derive(Debug, Clone)]
pub struct Bottleneck {
    conv1: ConvNorm,
    conv2: ConvNorm,
    conv3: ConvNorm,
}

impl Bottleneck {
    fn new(scope: &mut Scope, [inputs, hidden, outputs]: [usize; 3], stride: usize) -> Result<Self, Error> {
        Ok(Self {
            conv1: ConvNorm::new(&mut scope.at("conv1"), inputs, hidden, Kernel::Point)?,
            conv2: ConvNorm::new(&mut scope.at("conv2"), hidden, hidden, Kernel::Depthwise { stride })?,
            conv3: ConvNorm::new(&mut scope.at("conv3"), hidden, outputs, Kernel::Point)?,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = gelu(self.conv1.forward(x));
        self.conv3.forward(gelu(self.conv2.forward(x)))
    }
}

/// Attention in windows, a depthwise convolution that lets windows see each other, and an MLP.
#[derive(Debug, Clone)]
pub struct Windowed {
    attn: Attention,
    local_conv: ConvNorm,
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    side: usize,
}

impl Windowed {
    fn new(
        scope: &mut Scope,
        dim: usize,
        heads: usize,
        side: usize,
        adapter: Option<&AdapterConfig>,
    ) -> Result<Self, Error> {
        let attn = Attention::new(&mut scope.at("attn").role(Role::Attention), dim, heads, side, adapter)?;
        let local = Kernel::Depthwise { stride: 1 };
        let local_conv = ConvNorm::new(&mut scope.at("local_conv"), dim, dim, local)?;
        let mut mlp = scope.at("mlp");
        Ok(Self {
            attn,
            local_conv,
            norm: LayerNorm::new(&mut mlp.at("norm"), dim, EPSILON)?,
            fc1: Linear::new(&mut mlp.at("fc1"), dim, EXPANSION * dim)?,
            fc2: Linear::new(&mut mlp.at("fc2"), EXPANSION * dim, dim)?,
            side,
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, high, wide, _] = x.dims();
        // Padded before the norm, which makes its bias of a padded token.
        let windows = to_windows(x.clone(), self.side);
        let x = x + from_windows(self.attn.forward(windows), self.side, high, wide);
        let x = self.local_conv.forward(x);
        let hidden = gelu(self.fc1.forward(self.norm.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }
}

/// Multi-head self-attention in a window, with a bias for every head and distance.
#[derive(Debug, Clone)]
struct Attention {
    norm: LayerNorm,
    /// Rows head by head: query, key and value of the first, of the second ..
    qkv: Linear,
    proj: Linear,
    biases: Tensor<2>,
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
        let width = dim / heads;
        let projection = |part: usize| Projection {
            weight: scope.key("qkv.weight"),
            rows: (0..heads)
                .map(|head| (3 * head + part) * width)
                .map(|first| [first, first + width])
                .collect(),
        };
        let (query, value) = (projection(0), projection(2));
        Ok(Self {
            norm: LayerNorm::new(&mut scope.at("norm"), dim, EPSILON)?,
            qkv: Linear::new(&mut scope.at("qkv"), dim, 3 * dim)?,
            proj: Linear::new(&mut scope.at("proj"), dim, dim)?,
            biases: scope.parameter("attention_biases", [heads, side * side], Init::Constant(0.0))?,
            lora: match adapter {
                Some(adapter) => QueryValueLora::new(scope, adapter, dim, query, value)?,
                None => None,
            },
            heads,
        })
    }

    /// `[window, row, column, channel]` to the same shape.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [windows, high, wide, channels] = x.dims();
        let x = self.norm.forward(x).reshape([windows, high * wide, channels]);
        let scale = 1.0 / ((channels / self.heads) as f64).sqrt();
        let positions = Positions::Biases {
            biases: self.biases.clone(),
            grid: [high, wide],
        };
        let x = attention(self.query_key_value(x), self.heads, scale, Some(positions));
        self.proj.forward(x.reshape([windows, high, wide, channels]))
    }

    /// `[window, token, channel]` to three of the same shape, the channels of a head side by side.
    fn query_key_value(&self, x: Tensor<3>) -> [Tensor<3>; 3] {
        let channels = x.dims()[2];
        let width = channels / self.heads;
        let [query, key, value] = [0, 1, 2].map(|part| Linear {
            weight: self
                .qkv
                .weight
                .clone()
                .reshape([self.heads, 3, width, channels])
                .narrow(1, part, 1)
                .reshape([channels, channels]),
            bias: self.qkv.bias.clone().map(|bias| {
                bias.reshape([self.heads, 3, width])
                    .narrow(1, part, 1)
                    .reshape([channels])
            }),
        });
        match &self.lora {
            Some(lora) => [
                lora.query.project_linear(x.clone(), &query),
                key.forward(x.clone()),
                lora.value.project_linear(x, &value),
            ],
            None => [query, key, value].map(|layer| layer.forward(x.clone())),
        }
    }
}
