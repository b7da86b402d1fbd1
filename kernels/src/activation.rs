//! Functions of single elements, and softmax.

use burn::tensor::Tensor;

use crate::elementary::{exp, normal_density, normal_share};
use crate::operation::{Operation, Values, apply, dense, on_cpu, owned, shape, tensor};
use crate::sums;
use crate::threads;

/// GELU with the error function.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if on_cpu(&x) {
        return apply(Gelu, [x.into()]);
    }
    // Written out: the gradient of burn's own is of the tanh approximation.
    let share = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    x * share
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match on_cpu(&x) {
        true => apply(Sigmoid, [x.into()]),
        false => burn::tensor::activation::sigmoid(x),
    }
}

/// Softmax over one axis.
pub fn softmax<const D: usize>(x: Tensor<D>, axis: usize) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::activation::softmax(x, axis);
    }
    let last = D - 1;
    apply::<1, D>(Softmax, [x.swap_dims(axis, last).into()]).swap_dims(axis, last)
}

vectorised! {
    fn gelu_values(values: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(values) {
            *out = x * normal_share(x);
        }
    }

    fn gelu_gradient(values: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(values) {
            *out *= normal_share(x) + x * normal_density(x);
        }
    }

    fn sigmoid_values(values: &[f32], out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(values) {
            *out = 1.0 / (1.0 + exp(-x));
        }
    }

    fn softmax_line(out: &mut [f32]) {
        let [_, scale] = exponentials(out);
        for value in out {
            *value *= scale;
        }
    }

    fn softmax_gradient(result: &[f32], out: &mut [f32]) {
        let along = sums::pairs(result, out, |result, gradient| result * gradient);
        for (out, &result) in out.iter_mut().zip(result) {
            *out = result * (*out - along);
        }
    }
}

/// Puts `e^(x - largest)` in place of each element of a line; returns the largest, and one over the sum.
#[inline(always)]
pub(crate) fn exponentials(line: &mut [f32]) -> [f32; 2] {
    let largest = sums::largest(line);
    for value in line.iter_mut() {
        *value = exp(*value - largest);
    }
    [largest, 1.0 / sums::line(line, |x| x)]
}

#[derive(Debug, Clone)]
struct Gelu;

impl Operation<1> for Gelu {
    type Kept = Values;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Values) {
        let values = dense(x);
        let mut out = vec![0.0; values.len()];
        threads::chunks(&mut out, 1, 16 * values.len(), |first, out| {
            gelu_values(&values[first..][..out.len()], out);
        });
        (tensor(out, shape(x)), x.clone())
    }

    fn backward(&self, x: Values, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let (values, extents) = (dense(&x), shape(&x));
        let mut out = owned(gradient);
        threads::chunks(&mut out, 1, 24 * values.len(), |first, out| {
            gelu_gradient(&values[first..][..out.len()], out);
        });
        [Some(tensor(out, extents))]
    }
}

#[derive(Debug, Clone)]
struct Sigmoid;

impl Operation<1> for Sigmoid {
    /// The result.
    type Kept = Values;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Values) {
        let values = dense(x);
        let mut out = vec![0.0; values.len()];
        sigmoid_values(&values, &mut out);
        let out = tensor(out, shape(x));
        (out.clone(), out)
    }

    fn backward(&self, result: Values, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let mut out = owned(gradient);
        for (out, result) in out.iter_mut().zip(dense(&result).iter()) {
            *out *= result * (1.0 - result);
        }
        [Some(tensor(out, shape(&result)))]
    }
}

/// Over the last axis.
#[derive(Debug, Clone)]
struct Softmax;

impl Operation<1> for Softmax {
    /// The result.
    type Kept = Values;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Values) {
        let mut out = dense(x).into_owned();
        let width = shape(x).last().copied().unwrap_or(1).max(1);
        let work = 16 * out.len();
        threads::chunks(&mut out, width, work, |_, rows| {
            rows.chunks_exact_mut(width).for_each(softmax_line);
        });
        let out = tensor(out, shape(x));
        (out.clone(), out)
    }

    fn backward(&self, result: Values, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let mut out = owned(gradient);
        let width = shape(&result).last().copied().unwrap_or(1).max(1);
        let lines = dense(&result);
        for (result, out) in lines.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            softmax_gradient(result, out);
        }
        [Some(tensor(out, shape(&result)))]
    }
}
