//! The depthwise 3x3 convolution with padding 1: every channel by itself.

use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use crate::convolution::turned;
use crate::elements::add;
use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::sums::ROWS;
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

/// Places before and after.
#[derive(Debug, Clone, Copy)]
struct Grids {
    batch: usize,
    inputs: [usize; 2],
    outputs: [usize; 2],
    channels: usize,
    stride: usize,
}

impl Grids {
    fn new(extents: &[usize], stride: usize) -> Self {
        let inputs = [extents[1], extents[2]];
        Self {
            batch: extents[0],
            inputs,
            outputs: inputs.map(|length| length.div_ceil(stride)),
            channels: extents[3],
            stride,
        }
    }

    fn split(place: usize, [rows, columns]: [usize; 2]) -> [usize; 3] {
        [place / columns / rows, place / columns % rows, place % columns]
    }

    /// The input place that an output place sees at a tap.
    fn seen(self, output: usize, tap: usize) -> Option<usize> {
        let [batch, row, column] = Self::split(output, self.outputs);
        let [rows, columns] = self.inputs;
        let along = |place: usize, tap: usize, length: usize| {
            let neighbour = (place * self.stride + tap).checked_sub(1);
            neighbour.filter(|&neighbour| neighbour < length)
        };
        let (row, column) = (along(row, tap / 3, rows)?, along(column, tap % 3, columns)?);
        Some((batch * rows + row) * columns + column)
    }

    /// The output place that sees an input place at a tap.
    fn seeing(self, input: usize, tap: usize) -> Option<usize> {
        let [batch, row, column] = Self::split(input, self.inputs);
        let [rows, columns] = self.outputs;
        let along = |place: usize, tap: usize, length: usize| {
            let centre = (place + 1).checked_sub(tap)?;
            let output = centre / self.stride;
            (centre.is_multiple_of(self.stride) && output < length).then_some(output)
        };
        let (row, column) = (along(row, tap / 3, rows)?, along(column, tap % 3, columns)?);
        Some((batch * rows + row) * columns + column)
    }

    fn count(self, [rows, columns]: [usize; 2]) -> usize {
        self.batch * rows * columns
    }
}

vectorised! {
    fn add_products(a: &[f32], b: &[f32], sums: &mut [f32]) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = fused(a, b, *sum);
        }
    }
}

/// `[place, channel]`: of each place's nine taps that have a partner, the partner's values times the tap's weights
/// `[tap, channel]`, in order.
fn over_taps(
    values: &[f32],
    weights: &[f32],
    [places, channels]: [usize; 2],
    partner: impl Fn(usize, usize) -> Option<usize> + Send + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0; places * channels];
    let work = 9 * out.len();
    threads::chunks(&mut out, channels, work, |first, out| {
        for (number, out) in out.chunks_exact_mut(channels).enumerate() {
            for (tap, weights) in weights.chunks_exact(channels).enumerate() {
                if let Some(place) = partner(first + number, tap) {
                    add_products(&values[place * channels..][..channels], weights, out);
                }
            }
        }
    });
    out
}

/// The gradient of the weights, `[tap, channel]`: sums over output places in order, in blocks.
fn of_weights(x: &[f32], slopes: &[f32], grids: Grids) -> Vec<f32> {
    let channels = grids.channels;
    let mut out = vec![0.0; 9 * channels];
    let shared = Shared::new(&mut out);
    let places = grids.count(grids.outputs);
    threads::each(9, 9 * slopes.len(), |tap| {
        // SAFETY: every tap has its own.
        let out = unsafe { shared.slice(tap * channels, channels) };
        let mut sums = vec![0f32; channels];
        for start in (0..places).step_by(ROWS) {
            sums.fill(0.0);
            for output in start..(start + ROWS).min(places) {
                if let Some(input) = grids.seen(output, tap) {
                    let (x, slopes) = (&x[input * channels..], &slopes[output * channels..]);
                    add_products(&x[..channels], &slopes[..channels], &mut sums);
                }
            }
            add(&sums, out);
        }
    });
    out
}

impl Operation<2> for Depthwise {
    /// Input and weight, where their partner's gradient is wanted, and the grids.
    type Kept = (Option<Values>, Option<Values>, Grids);

    fn forward(&self, [x, weight]: &[Values; 2], [x_wanted, weight_wanted]: [bool; 2]) -> (Values, Self::Kept) {
        let grids = Grids::new(&shape(x), self.stride);
        let (channels, [rows, columns]) = (grids.channels, grids.outputs);
        let weights = turned(&dense(weight), 1, [channels, 9]);
        let extents = [grids.count(grids.outputs), channels];
        let out = over_taps(&dense(x), &weights, extents, |place, tap| grids.seen(place, tap));
        let kept = (
            weight_wanted.then(|| x.clone()),
            x_wanted.then(|| weight.clone()),
            grids,
        );
        (tensor(out, [grids.batch, rows, columns, channels]), kept)
    }

    fn backward(&self, (x, weight, grids): Self::Kept, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let (channels, [rows, columns]) = (grids.channels, grids.inputs);
        let slopes = dense(&gradient);
        let of_weight = x.map(|x| {
            let out = of_weights(&dense(&x), &slopes, grids);
            tensor(turned(&out, 1, [9, channels]), [channels, 1, 3, 3])
        });
        let of_x = weight.map(|weight| {
            let weights = turned(&dense(&weight), 1, [channels, 9]);
            let extents = [grids.count(grids.inputs), channels];
            let out = over_taps(&slopes, &weights, extents, |place, tap| grids.seeing(place, tap));
            tensor(out, [grids.batch, rows, columns, channels])
        });
        [of_x, of_weight]
    }
}
