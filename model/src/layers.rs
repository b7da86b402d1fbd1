//! The layers that SAM is made of, with PyTorch's weight layout.

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, layer_norm, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};

use crate::Error;
use crate::parameters::{Init, Scope, to_vec};

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
        project(x, self.weight.clone(), self.bias.clone())
    }
}

/// `x W^T + b` with a weight in PyTorch's `[out, in]` layout.
pub fn project<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    linear(x, weight.transpose(), bias)
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
        let bias = Some(self.bias.clone());
        layer_norm(x, self.weight.clone(), bias, self.epsilon)
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

    /// `[batch, in, row, column]` to `[batch, out, row, column]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        conv2d(x, self.weight.clone(), None, options)
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

/// GELU with the error function.
///
/// Written out, not `burn::tensor::activation::gelu`: that one's gradient is of the tanh approximation, and the
/// reference differentiates the exact function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if cfg!(target_arch = "wasm32") && x.device() == Device::flex() {
        return gelu_on_host(x);
    }
    let half = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * half
}

/// The same on the host and without a gradient, for the browser's one thread: there a scalar error function takes a sixth
/// of a small network's time, and this one runs on vectors.
fn gelu_on_host<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (shape, device) = (x.dims(), x.device());
    let mut values = to_vec(x);
    for value in &mut values {
        *value *= 0.5 + 0.5 * erf(*value * std::f32::consts::FRAC_1_SQRT_2);
    }
    Tensor::from_data(TensorData::new(values, shape), &device)
}

/// The error function to 3e-7 and rounding: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.28.
fn erf(x: f32) -> f32 {
    const A: [f32; 6] = [
        4.306_38e-5,
        2.765_672e-4,
        1.520_143e-4,
        9.270_527e-3,
        4.228_201e-2,
        7.052_307_8e-2,
    ];
    let size = x.abs();
    let sum = A.iter().fold(0.0, |sum, a| (sum + a) * size) + 1.0;
    let fourth = (sum * sum) * (sum * sum);
    let sixteenth = (fourth * fourth) * (fourth * fourth);
    (1.0 - 1.0 / sixteenth).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_on_the_host_is_gelu() {
        let values: Vec<f32> = (-4000..=4000).map(|step| step as f32 / 200.0).collect();
        let x = Tensor::<1>::from_floats(values.as_slice(), &Device::flex());
        let pairs = to_vec(gelu(x.clone())).into_iter().zip(to_vec(gelu_on_host(x)));
        let largest = pairs.map(|(exact, fast)| (exact - fast).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-6, "{largest}");
    }
}
