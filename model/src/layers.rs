//! The layers that SAM is made of, with PyTorch's weight layout.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use flapsam_kernels::{add_row, conv3x3, depthwise3x3, layer_norm, linear};

use crate::Error;
use crate::parameters::{Init, Scope, Start};

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
        conv3x3(x, self.weight.clone(), 1)
    }
}

/// How a [`ConvNorm`] sees its neighbourhood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// 1x1.
    Point,
    /// 3x3 with padding 1.
    Full {
        /// Places from one output to the next.
        stride: usize,
    },
    /// 3x3 with padding 1, every channel by itself.
    Depthwise {
        /// Places from one output to the next.
        stride: usize,
    },
}

/// A convolution with the batch norm behind it, whose statistics never move: one convolution with a bias. The weight keeps
/// the convolution's name (`c.weight`) and the bias the norm's (`bn.bias`); see [`Start::Folded`].
#[derive(Debug, Clone)]
pub struct ConvNorm {
    weight: Tensor<4>,
    bias: Tensor<1>,
    kernel: Kernel,
}

impl ConvNorm {
    /// From `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// A parameter is missing, or of another shape.
    pub fn new(scope: &mut Scope, inputs: usize, outputs: usize, kernel: Kernel) -> Result<Self, Error> {
        let (inputs, side) = match kernel {
            Kernel::Point => (inputs, 1),
            Kernel::Full { .. } => (inputs, 3),
            Kernel::Depthwise { .. } => (1, 3),
        };
        let start = Start::Folded {
            conv: scope.key("c.weight"),
            norm: scope.key("bn"),
        };
        let mut scope = scope.here().start(start);
        let (shape, init) = ([outputs, inputs, side, side], Init::fan_in(inputs * side * side));
        Ok(Self {
            weight: scope.at("c").parameter("weight", shape, init)?,
            bias: scope.at("bn").parameter("bias", [outputs], Init::Constant(0.0))?,
            kernel,
        })
    }

    /// `[batch, row, column, in]` to `[batch, row / stride, column / stride, out]`, rounded up.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (weight, bias) = (self.weight.clone(), self.bias.clone());
        match self.kernel {
            Kernel::Point => {
                let [outputs, inputs, _, _] = weight.dims();
                linear(x, weight.reshape([outputs, inputs]), Some(bias))
            }
            Kernel::Full { stride } => add_row(conv3x3(x, weight, stride), bias),
            Kernel::Depthwise { stride } => add_row(depthwise3x3(x, weight, stride), bias),
        }
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
