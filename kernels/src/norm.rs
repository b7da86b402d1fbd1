//! Layer norm, and the channel norm, which is one where channels are the last axis.

use burn::tensor::Tensor;

use crate::elements::multiply;
use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::sums;
use crate::threads::{self, Shared};

/// Normalises over the last axis: `[.., channels]` to the same shape, with a weight and a bias `[channels]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, epsilon: f64) -> Tensor<D> {
    match on_cpu(&x) {
        true => apply(
            LayerNorm {
                epsilon: epsilon as f32,
            },
            [x.into(), weight.into(), bias.into()],
        ),
        false => burn::tensor::module::layer_norm(x, weight, Some(bias), epsilon),
    }
}

#[derive(Debug, Clone)]
struct LayerNorm {
    epsilon: f32,
}

/// The line's mean, and one over its deviation.
type Moments = [f32; 2];

vectorised! {
    fn moments(row: &[f32], epsilon: f32) -> Moments {
        let count = row.len() as f32;
        let mean = sums::line(row, |x| x) / count;
        let variance = sums::line(row, |x| (x - mean) * (x - mean)) / count;
        [mean, 1.0 / (variance + epsilon).sqrt()]
    }

    fn normalise(row: &[f32], moments: Moments, weight: &[f32], bias: &[f32], out: &mut [f32]) {
        let [mean, scale] = moments;
        for (out, ((&x, &weight), &bias)) in out.iter_mut().zip(row.iter().zip(weight).zip(bias)) {
            *out = (x - mean) * scale * weight + bias;
        }
    }

    /// The gradient of a line; before, `out` holds its normalised values.
    fn line_gradient(gradient: &[f32], weight: &[f32], scale: f32, weighted: &mut [f32], out: &mut [f32]) {
        for (weighted, (&gradient, &weight)) in weighted.iter_mut().zip(gradient.iter().zip(weight)) {
            *weighted = gradient * weight;
        }
        let count = out.len() as f32;
        let mean = sums::line(weighted, |x| x) / count;
        let along = sums::pairs(weighted, out, |weighted, normed| weighted * normed) / count;
        for (out, &weighted) in out.iter_mut().zip(&*weighted) {
            *out = (weighted - mean - *out * along) * scale;
        }
    }

    fn normed(row: &[f32], moments: Moments, out: &mut [f32]) {
        for (out, &x) in out.iter_mut().zip(row) {
            *out = (x - moments[0]) * moments[1];
        }
    }
}

impl Operation<3> for LayerNorm {
    /// Input, weight, and each line's moments.
    type Kept = (Values, Values, Vec<Moments>);

    fn forward(&self, [x, weight, bias]: &[Values; 3], _: [bool; 3]) -> (Values, Self::Kept) {
        let (values, factors, bias) = (dense(x), dense(weight), dense(bias));
        let width = factors.len();
        let mut out = vec![0.0; values.len()];
        let mut moments_of = vec![[0f32; 2]; values.len() / width];
        let places = Shared::new(moments_of.as_flattened_mut());
        threads::chunks(&mut out, width, 4 * values.len(), |first, out| {
            let rows = values[first * width..].chunks_exact(width);
            for (number, (row, out)) in rows.zip(out.chunks_exact_mut(width)).enumerate() {
                let moments = moments(row, self.epsilon);
                // SAFETY: the chunks are of different lines.
                unsafe { places.slice(2 * (first + number), 2) }.copy_from_slice(&moments);
                normalise(row, moments, &factors, &bias, out);
            }
        });
        (tensor(out, shape(x)), (x.clone(), weight.clone(), moments_of))
    }

    fn backward(
        &self,
        (x, weight, moments): Self::Kept,
        gradient: Values,
        [x_wanted, weight_wanted, bias_wanted]: [bool; 3],
    ) -> [Option<Values>; 3] {
        let (values, factors, slopes) = (dense(&x), dense(&weight), dense(&gradient));
        let width = factors.len();
        let each_line = |line: &(dyn Fn(usize, &mut [f32]) + Send + Sync)| {
            let mut out = vec![0.0; values.len()];
            threads::chunks(&mut out, width, 4 * values.len(), |first, out| {
                for (number, out) in out.chunks_exact_mut(width).enumerate() {
                    let row = first + number;
                    normed(&values[row * width..][..width], moments[row], out);
                    line(row, out);
                }
            });
            out
        };
        let down = |values: &[f32]| {
            let mut out = vec![0.0; width];
            sums::columns(width, values, &mut out);
            tensor(out, [width])
        };
        let of_x = x_wanted.then(|| {
            let out = each_line(&|row, out| {
                let mut weighted = vec![0.0; width];
                line_gradient(
                    &slopes[row * width..][..width],
                    &factors,
                    moments[row][1],
                    &mut weighted,
                    out,
                );
            });
            tensor(out, shape(&x))
        });
        let of_weight =
            weight_wanted.then(|| down(&each_line(&|row, out| multiply(out, &slopes[row * width..][..width]))));
        let of_bias = bias_wanted.then(|| down(&slopes));
        [of_x, of_weight, of_bias]
    }
}
