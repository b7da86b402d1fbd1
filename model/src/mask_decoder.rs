//! SAM's mask decoder, official and adapted: tokens ask the image for masks.

use burn::tensor::Tensor;
use flapsam_kernels::{add_row, arrange, gelu, linear, matmul_transposed};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::layers::{LayerNorm, Mlp};
use crate::parameters::{Init, Role, Scope, Start};
use crate::transformer::TwoWayTransformer;

/// The official decoder's mask tokens: one for a single answer, three for ambiguous prompts.
const OFFICIAL_MASKS: usize = 4;
/// The official decoder's stages of upscaling.
const OFFICIAL_STAGES: usize = 2;
/// Channel norms of the upscaling: the framework's default, as everywhere in the image encoder.
const CHANNEL_NORM_EPSILON: f64 = 1e-6;

/// Embeddings and prompts to masks.
#[derive(Debug, Clone)]
pub struct MaskDecoder {
    transformer: TwoWayTransformer,
    iou_token: Tensor<2>,
    mask_tokens: Tensor<2>,
    upscaling: Upscaling,
    hypernetworks: Vec<Mlp>,
    iou_prediction_head: Mlp,
}

impl MaskDecoder {
    /// The official decoder, or, with an adapter, one mask per class at full resolution.
    pub fn new(scope: &mut Scope, config: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Self, Error> {
        let dim = config.prompt_dim;
        let (masks, stages) = match adapter {
            Some(adapter) => (adapter.num_classes + 1, 4),
            None => (OFFICIAL_MASKS, OFFICIAL_STAGES),
        };
        // What depends on the number of masks, or comes after the official upscaling.
        let fresh = match adapter {
            Some(_) => Start::Drawn,
            None => Start::Official,
        };
        let mut heads = scope.here().role(Role::Head);
        let upscaling = Upscaling::new(&mut heads.at("output_upscaling"), dim, stages)?;
        let normal = Init::Normal { std: 1.0 };
        let mut heads = heads.start(fresh.clone());
        let hypernetworks = (0..masks).map(|index| {
            let mut scope = heads.at("output_hypernetworks_mlps");
            Mlp::new(&mut scope.at(index), dim, dim, upscaling.channels, 3)
        });
        let hypernetworks = hypernetworks.collect::<Result<_, _>>()?;
        let mask_tokens = heads.at("mask_tokens").parameter("weight", [masks, dim], normal)?;
        let mut scores = scope.at("iou_prediction_head").start(fresh);
        let iou_prediction_head = Mlp::new(&mut scores, dim, dim, masks, 3)?;
        Ok(Self {
            transformer: TwoWayTransformer::new(&mut scope.at("transformer"), config, adapter)?,
            iou_token: scope.at("iou_token").parameter("weight", [1, dim], normal)?,
            mask_tokens,
            upscaling,
            hypernetworks,
            iou_prediction_head,
        })
    }

    /// Image embedding `[batch, channel, row, column]` (with the dense prompt added), positional grid
    /// `[1, channel, row, column]` and sparse prompts `[batch or 1, point, channel]`;
    /// to masks `[batch, mask, row, column]` (logits) and predicted scores `[batch, mask]`.
    pub fn forward(&self, image: Tensor<4>, positions: Tensor<4>, sparse: Option<Tensor<3>>) -> (Tensor<4>, Tensor<2>) {
        let [batch, dim, rows, columns] = image.dims();
        let masks = self.hypernetworks.len();
        let output_tokens = vec![self.iou_token.clone(), self.mask_tokens.clone()];
        let tokens = Tensor::cat(output_tokens, 0);
        let none = Tensor::zeros([batch, masks + 1, dim], &tokens.device());
        let tokens = add_row(none, tokens);
        let tokens = match sparse {
            Some(sparse) => {
                let times = batch / sparse.dims()[0];
                Tensor::cat(vec![tokens, sparse.repeat_dim(0, times)], 1)
            }
            None => tokens,
        };
        let places = |x: Tensor<4>| {
            let batch = x.dims()[0];
            x.reshape([batch, dim, rows * columns]).swap_dims(1, 2)
        };
        let (tokens, image) = self.transformer.forward(tokens, places(image), places(positions));

        let scores = self.iou_prediction_head.forward(tokens.clone().narrow(1, 0, 1));
        let weights = self.hypernetworks.iter().enumerate().map(|(index, mlp)| {
            let token = tokens.clone().narrow(1, 1 + index, 1);
            mlp.forward(token)
        });
        let weights = Tensor::cat(weights.collect(), 1);
        let pixels = self.upscaling.forward(image);
        let logits = matmul_transposed(weights, pixels);
        let logits = self.upscaling.arrange(logits, rows, columns);
        (logits, scores.reshape([batch, masks]))
    }
}

/// Transposed 2x2 convolutions with stride 2, channel norms and GELU between them.
///
/// Where kernel and stride are equal, no two places overlap: a stage is a linear layer that turns each place into
/// its four children. So the stages run on a flat list of places, and only the finished masks are arranged into an
/// image, once, by [`Upscaling::arrange`].
#[derive(Debug, Clone)]
struct Upscaling {
    stages: Vec<Stage>,
    /// Channels after the last stage.
    channels: usize,
}

#[derive(Debug, Clone)]
struct Stage {
    /// `[in, out, 2, 2]`
    weight: Tensor<4>,
    bias: Tensor<1>,
    norm: Option<LayerNorm>,
}

impl Upscaling {
    /// The official decoder has two stages, the adapted one four, up to the input's resolution.
    fn new(scope: &mut Scope, dim: usize, stages: usize) -> Result<Self, Error> {
        let channels: Vec<usize> = std::iter::once(dim)
            .chain((0..stages).map(|stage| dim / (4 << stage)))
            .collect();
        let stage = |index: usize| {
            let (inputs, outputs) = (channels[index], channels[index + 1]);
            // PyTorch's fan-in of a transposed convolution counts its outputs.
            let init = Init::fan_in(outputs * 4);
            // Of the official two stages come the convolutions, and the norm between them.
            let start = |official: bool| if official { Start::Official } else { Start::Drawn };
            let mut conv = scope.at(3 * index).start(start(index < OFFICIAL_STAGES));
            Ok(Stage {
                weight: conv.parameter("weight", [inputs, outputs, 2, 2], init)?,
                bias: conv.parameter("bias", [outputs], init)?,
                norm: match index + 1 < stages {
                    true => {
                        let mut norm = scope.at(3 * index + 1).start(start(index + 1 < OFFICIAL_STAGES));
                        Some(LayerNorm::new(&mut norm, outputs, CHANNEL_NORM_EPSILON)?)
                    }
                    false => None,
                },
            })
        };
        Ok(Self {
            stages: (0..stages).map(stage).collect::<Result<_, Error>>()?,
            channels: channels[stages],
        })
    }

    /// `[batch, place, channel]` to `[batch, place * 4^stages, channel]`, children beside their parent.
    fn forward(&self, places: Tensor<3>) -> Tensor<3> {
        self.stages.iter().fold(places, |x, stage| {
            let [batch, places, inputs] = x.dims();
            let [_, outputs, _, _] = stage.weight.dims();
            let weight = stage.weight.clone().permute([2, 3, 1, 0]);
            let x = linear(x, weight.reshape([4 * outputs, inputs]), None);
            let x = add_row(x.reshape([batch, 4 * places, outputs]), stage.bias.clone());
            gelu(match &stage.norm {
                Some(norm) => norm.forward(x),
                None => x,
            })
        })
    }

    /// Puts `[batch, mask, place * 4^stages]` into an image: `[batch, mask, row * 2^stages, column * 2^stages]`.
    fn arrange(&self, masks: Tensor<3>, rows: usize, columns: usize) -> Tensor<4> {
        let [batch, count, total] = masks.dims();
        let side = 1 << self.stages.len();
        arrange(
            masks.reshape([batch * count, rows * columns, total / (rows * columns)]),
            [rows, columns],
            self.stages.len(),
        )
        .reshape([batch, count, rows * side, columns * side])
    }
}
