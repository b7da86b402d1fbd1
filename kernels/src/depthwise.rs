//! The depthwise 3x3 convolution with padding 1: every channel by itself.

use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use crate::convolution::turned;
use crate::elements::add;
use crate::neighbourhood::{Neighbourhoods, Taps};
use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::sums::{LANES, ROWS};
use crate::threads::{self, Shared};
use crate::vectorised::fused;

/// Convolves `[batch, row, column, channel]` with a weight `[channel, 1, 3, 3]`, a place in `stride` along rows and columns:
/// `[batch, row / stride, column / stride, channel]`, rounded up. The sum over the neighbourhood runs over its rows and then
/// its columns.
pub fn depthwise3x3(x: Tensor<4>, weight: Tensor<4>, stride: usize) -> Tensor<4> {
    if on_cpu(&x) {
        return apply(Depthwise { stride }, [x.into(), weight.into()]);
    }
    let options = ConvOptions::new([stride, stride], [1, 1], [1, 1], weight.dims()[0]);
    conv2d(x.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1])
}

#[derive(Debug, Clone)]
struct Depthwise {
    stride: usize,
}

vectorised! {
    fn add_products(a: &[f32], b: &[f32], sums: &mut [f32]) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = fused(a, b, *sum);
        }
    }
}

/// `[place, channel]`: of each place's taps that have a partner, the partner's values times the tap's weights
/// `[tap, channel]`, in order.
fn over_taps(
    values: &[f32],
    weights: &[f32],
    [places, channels]: [usize; 2],
    partners: impl Fn(usize) -> Taps + Send + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0; places * channels];
    let work = 9 * out.len();
    threads::chunks(&mut out, channels, work, |first, out| {
        for (number, out) in out.chunks_exact_mut(channels).enumerate() {
            for (weights, partner) in weights.chunks_exact(channels).zip(partners(first + number)) {
                if let Some(place) = partner {
                    add_products(&values[place * channels..][..channels], weights, out);
                }
            }
        }
    });
    out
}

/// The gradient of the weights, `[tap, channel]`: sums over output places in order, in blocks.
fn of_weights(x: &[f32], slopes: &[f32], grid: Neighbourhoods) -> Vec<f32> {
    let channels = grid.channels;
    let mut out = vec![0.0; 9 * channels];
    let shared = Shared::new(&mut out);
    threads::ranges(channels, LANES, 9 * slopes.len(), |range| {
        let width = range.len();
        let mut sums = vec![0f32; 9 * width];
        for start in (0..grid.output_places()).step_by(ROWS) {
            sums.fill(0.0);
            for output in start..(start + ROWS).min(grid.output_places()) {
                let slopes = &slopes[output * channels + range.start..][..width];
                for (sums, input) in sums.chunks_exact_mut(width).zip(grid.seen(output)) {
                    if let Some(input) = input {
                        add_products(&x[input * channels + range.start..][..width], slopes, sums);
                    }
                }
            }
            for (tap, sums) in sums.chunks_exact(width).enumerate() {
                // SAFETY: the ranges are inside the channels and do not overlap.
                add(sums, unsafe { shared.slice(tap * channels + range.start, width) });
            }
        }
    });
    out
}

impl Operation<2> for Depthwise {
    /// Input and weight, where their partner's gradient is wanted, and which places they bring together.
    type Kept = (Option<Values>, Option<Values>, Neighbourhoods);

    fn forward(&self, [x, weight]: &[Values; 2], [x_wanted, weight_wanted]: [bool; 2]) -> (Values, Self::Kept) {
        let grid = Neighbourhoods::new(&shape(x), self.stride);
        let (channels, [rows, columns]) = (grid.channels, grid.outputs);
        let weights = turned(&dense(weight), 1, [channels, 9]);
        let extents = [grid.output_places(), channels];
        let out = over_taps(&dense(x), &weights, extents, |place| grid.seen(place));
        let kept = (weight_wanted.then(|| x.clone()), x_wanted.then(|| weight.clone()), grid);
        (tensor(out, [grid.batch, rows, columns, channels]), kept)
    }

    fn backward(&self, (x, weight, grid): Self::Kept, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let (channels, [rows, columns]) = (grid.channels, grid.inputs);
        let slopes = dense(&gradient);
        let of_weight = x.map(|x| {
            let out = of_weights(&dense(&x), &slopes, grid);
            tensor(turned(&out, 1, [9, channels]), [channels, 1, 3, 3])
        });
        let of_x = weight.map(|weight| {
            let weights = turned(&dense(&weight), 1, [channels, 9]);
            let extents = [grid.input_places(), channels];
            let out = over_taps(&slopes, &weights, extents, |place| grid.seeing(place));
            tensor(out, [grid.batch, rows, columns, channels])
        });
        [of_x, of_weight]
    }
}
