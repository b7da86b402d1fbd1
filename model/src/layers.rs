//! The layers that SAM is made of, with PyTorch's weight layout.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use flapsam_kernels::{conv3x3, layer_norm, linear};

use crate::Error;
use crate::parameters::{Init, Scope};

/// `y = x W^T + b` over the last axis.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor<2>,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
}

impl Linear {
    /// A layer with bias.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let init = Init::fan_in(inputs);
        Ok(Self {
            weight: scope.parameter("weight", [outputs, inputs], init)?,
            bias: Some(scope.parameter("bias", [outputs], init)?),
        })
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear(x, self.weight.clone(), self.bias.clone())
    }
}

/// Normalisation over the last axis.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm over `channels`.
    pub fn new(scope: &mut Scope, channels: usize, epsilon: f64) -> Result<Self, Error> {
        Ok(Self {
            weight: scope.parameter("weight", [channels], Init::Constant(1.0))?,
            bias: scope.parameter("bias", [channels], Init::Constant(0.0))?,
            epsilon,
        })
    }

    /// `[.., channels]` to the same shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.clone(), self.bias.clone(), self.epsilon)
    }
}

/// A 3x3 convolution with padding 1 and no bias.
#[derive(Debug, Clone)]
pub struct Conv3x3 {
    weight: Tensor<4>,
}

impl Conv3x3 {
    /// From `inputs` to `outputs` channels.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let init = Init::fan_in(inputs * 9);
        Ok(Self {
            weight: scope.parameter("weight", [outputs, inputs, 3, 3], init)?,
        })
    }

    /// `[batch, row, column, in]` to `[batch, row, column, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv3x3(x, self.weight.clone())
    }
}

/// Linear layers with ReLU between them.
#[derive(Debug, Clone)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    /// `depth` layers (at least one), with `hidden` channels between them.
    pub fn new(scope: &mut Scope, inputs: usize, hidden: usize, outputs: usize, depth: usize) -> Result<Self, Error> {
        let layers = (0..depth).map(|index| {
            let from = if index == 0 { inputs } else { hidden };
            let to = if index + 1 == depth { outputs } else { hidden };
            Linear::new(&mut scope.at("layers").at(index), from, to)
        });
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut layers = self.layers.iter();
        let first = layers.next().map(|layer| layer.forward(x.clone()));
        layers.fold(first.unwrap_or(x), |x, layer| layer.forward(relu(x)))
    }
}
