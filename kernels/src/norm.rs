//! Layer norm, and the channel norm, which is one where channels are the last axis.

use burn::tensor::Tensor;

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

/// What is done with the inputs, gradients, moments and places of several lines.
type OnLines<'a> = dyn Fn(&[f32], &[f32], &[Moments], &mut [f32]) + Send + Sync + 'a;

vectorised! {
    /// Lines after lines, with their moments.
    fn normalise(
        rows: &[f32],
        epsilon: f32,
        factors: [&[f32]; 2],
        moments: &mut [Moments],
        out: &mut [f32],
    ) {
        let [weight, bias] = factors;
        let (width, count) = (weight.len(), weight.len() as f32);
        let lines = rows.chunks_exact(width).zip(out.chunks_exact_mut(width));
        for ((row, out), moments) in lines.zip(moments) {
            let mean = sums::line(row, |x| x) / count;
            let variance = sums::line(row, |x| (x - mean) * (x - mean)) / count;
            let scale = 1.0 / (variance + epsilon).sqrt();
            *moments = [mean, scale];
            for (out, ((&x, &weight), &bias)) in out.iter_mut().zip(row.iter().zip(weight).zip(bias)) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
    }

    /// The lines' gradients.
    fn input_gradients(rows: &[f32], slopes: &[f32], weight: &[f32], moments: &[Moments], out: &mut [f32]) {
        let (width, count) = (weight.len(), weight.len() as f32);
        let mut weighted = vec![0.0; width];
        let lines = rows.chunks_exact(width).zip(slopes.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for (((row, slopes), out), &[mean, scale]) in lines.zip(moments) {
            for (weighted, (&slope, &weight)) in weighted.iter_mut().zip(slopes.iter().zip(weight)) {
                *weighted = slope * weight;
            }
            for (out, &x) in out.iter_mut().zip(row) {
                *out = (x - mean) * scale;
            }
            let mean = sums::line(&weighted, |x| x) / count;
            let along = sums::pairs(&weighted, out, |weighted, normed| weighted * normed) / count;
            for (out, &weighted) in out.iter_mut().zip(&weighted) {
                *out = (weighted - mean - *out * along) * scale;
            }
        }
    }

    /// Each line's share of the weight's gradient.
    fn weight_gradients(rows: &[f32], slopes: &[f32], width: usize, moments: &[Moments], out: &mut [f32]) {
        let lines = rows.chunks_exact(width).zip(slopes.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for (((row, slopes), out), &[mean, scale]) in lines.zip(moments) {
            for (out, (&x, &slope)) in out.iter_mut().zip(row.iter().zip(slopes)) {
                *out = (x - mean) * scale * slope;
            }
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
        let mut moments = vec![[0f32; 2]; values.len() / width];
        let places = Shared::new(moments.as_flattened_mut());
        threads::chunks(&mut out, width, 4 * values.len(), |first, out| {
            // SAFETY: the chunks are of different lines.
            let moments = unsafe { places.slice(2 * first, 2 * out.len() / width) };
            let moments = moments.as_chunks_mut::<2>().0;
            let rows = &values[first * width..][..out.len()];
            normalise(rows, self.epsilon, [&factors, &bias], moments, out);
        });
        (tensor(out, shape(x)), (x.clone(), weight.clone(), moments))
    }

    fn backward(
        &self,
        (x, weight, moments): Self::Kept,
        gradient: Values,
        [x_wanted, weight_wanted, bias_wanted]: [bool; 3],
    ) -> [Option<Values>; 3] {
        let (values, factors, slopes) = (dense(&x), dense(&weight), dense(&gradient));
        let width = factors.len();
        let each = |lines: &OnLines| {
            let mut out = vec![0.0; values.len()];
            threads::chunks(&mut out, width, 4 * values.len(), |first, out| {
                let range = first * width..first * width + out.len();
                lines(&values[range.clone()], &slopes[range], &moments[first..], out);
            });
            out
        };
        let down = |values: &[f32]| {
            let mut out = vec![0.0; width];
            sums::columns(width, values, &mut out);
            tensor(out, [width])
        };
        let of_x = x_wanted.then(|| {
            let out = each(&|rows, slopes, moments, out| input_gradients(rows, slopes, &factors, moments, out));
            tensor(out, shape(&x))
        });
        let of_weight = weight_wanted.then(|| {
            down(&each(&|rows, slopes, moments, out| {
                weight_gradients(rows, slopes, width, moments, out);
            }))
        });
        let of_bias = bias_wanted.then(|| down(&slopes));
        [of_x, of_weight, of_bias]
    }
}
