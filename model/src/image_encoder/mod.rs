//! SAM's image encoders, by family.

mod tiny_vit;
mod vit;
mod windows;

use burn::tensor::Tensor;
use flapsam_kernels::linear;
use tiny_vit::TinyVit;
use vit::Vit;

use crate::Error;
use crate::config::{AdapterConfig, EncoderConfig, SamConfig};
use crate::layers::{Conv3x3, LayerNorm};
use crate::parameters::{Init, Scope};

/// Of the norms of a [`Vit`] and of every [`Neck`].
const EPSILON: f64 = 1e-6;

/// Images to embeddings: a trunk, by family, and SAM's neck.
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    trunk: Trunk,
    neck: Neck,
}

#[derive(Debug, Clone)]
enum Trunk {
    Vit(Box<Vit>),
    TinyVit(Box<TinyVit>),
}

impl ImageEncoder {
    /// Builds the encoder; with an adapter, its attentions are adapted.
    ///
    /// # Errors
    /// A parameter is missing, or of another shape.
    pub fn new(scope: &mut Scope, config: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Self, Error> {
        let trunk = match &config.encoder {
            EncoderConfig::Vit(vit) => Trunk::Vit(Box::new(Vit::new(scope, vit, config.grid(), adapter)?)),
            EncoderConfig::TinyVit(vit) => Trunk::TinyVit(Box::new(TinyVit::new(scope, vit, adapter)?)),
        };
        let channels = config.encoder.channels();
        Ok(Self {
            trunk,
            neck: Neck::new(&mut scope.at("neck"), channels, config.prompt_dim)?,
        })
    }

    /// `[batch, 3, row, column]` in `[0, 1]` to `[batch, prompt_dim, row / stride, column / stride]`, where the stride is
    /// [`EncoderConfig::stride`].
    pub fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        (0..self.parts()).fold(images, |x, part| self.part(part, x))
    }

    /// How many parts it has, of which each takes what the one before gave, for whoever cannot wait for all of them.
    pub fn parts(&self) -> usize {
        1 + self.blocks() + 1
    }

    /// What a part makes of the last one's, or the first of images: patches, then every block, then the neck.
    pub fn part(&self, part: usize, x: Tensor<4>) -> Tensor<4> {
        match (part, &self.trunk) {
            (0, Trunk::Vit(vit)) => vit.patches(x),
            (0, Trunk::TinyVit(vit)) => vit.patches(x),
            (part, _) if part > self.blocks() => self.neck.forward(x),
            (part, Trunk::Vit(vit)) => vit.blocks[part - 1].forward(x),
            (part, Trunk::TinyVit(vit)) => vit.blocks[part - 1].forward(x),
        }
    }

    fn blocks(&self) -> usize {
        match &self.trunk {
            Trunk::Vit(vit) => vit.blocks.len(),
            Trunk::TinyVit(vit) => vit.blocks.len(),
        }
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
