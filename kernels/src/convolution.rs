//! The 3x3 convolution with padding 1, as a product: each place's neighbourhood is a row.

use burn::tensor::Tensor;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

use crate::elements::add;
use crate::neighbourhood::Neighbourhoods;
use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::product::{Matrix, Output, multiply};
use crate::threads;

/// Convolves `[batch, row, column, in]` with a weight `[out, in, 3, 3]`, a place in `stride` along rows and columns:
/// `[batch, row / stride, column / stride, out]`, rounded up. In the sum over the neighbourhood, k runs over its rows, its
/// columns and then the channels.
pub fn conv3x3(x: Tensor<4>, weight: Tensor<4>, stride: usize) -> Tensor<4> {
    if on_cpu(&x) {
        return apply(Conv3x3 { stride }, [x.into(), weight.into()]);
    }
    let options = ConvOptions::new([stride, stride], [1, 1], [1, 1], 1);
    conv2d(x.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1])
}

#[derive(Debug, Clone)]
struct Conv3x3 {
    stride: usize,
}

/// `[out, in, 3, 3]` to `[out, 3, 3, in]`, or back.
pub(crate) fn turned(values: &[f32], outputs: usize, [from, to]: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for filter in values.chunks_exact(values.len() / outputs) {
        for column in 0..to {
            out.extend((0..from).map(|row| filter[row * to + column]));
        }
    }
    out
}

/// Every centre's neighbourhood: `[centre, tap, channel]`, zero beyond the edge.
fn neighbourhoods(values: &[f32], grid: Neighbourhoods) -> Vec<f32> {
    let width = grid.channels;
    let mut out = vec![0.0; grid.output_places() * 9 * width];
    let work = out.len();
    threads::chunks(&mut out, 9 * width, work, |first, out| {
        for (number, out) in out.chunks_exact_mut(9 * width).enumerate() {
            for (out, neighbour) in out.chunks_exact_mut(width).zip(grid.seen(first + number)) {
                if let Some(place) = neighbour {
                    out.copy_from_slice(&values[place * width..][..width]);
                }
            }
        }
    });
    out
}

/// The gradients of places from those of neighbourhoods: of each place's nine parts in all of them, the sum in order.
fn gathered(values: &[f32], grid: Neighbourhoods) -> Vec<f32> {
    let width = grid.channels;
    let mut out = vec![0.0; grid.input_places() * width];
    let work = 9 * out.len();
    threads::chunks(&mut out, width, work, |first, out| {
        for (number, out) in out.chunks_exact_mut(width).enumerate() {
            // From the first place that sees it to the last.
            for (tap, centre) in grid.seeing(first + number).into_iter().enumerate().rev() {
                if let Some(place) = centre {
                    add(&values[(place * 9 + tap) * width..][..width], out);
                }
            }
        }
    });
    out
}

impl Operation<2> for Conv3x3 {
    /// Input and weight, where their partner's gradient is wanted, and the input's grid.
    type Kept = (Option<Values>, Option<Values>, Neighbourhoods);

    fn forward(&self, [x, weight]: &[Values; 2], [x_wanted, weight_wanted]: [bool; 2]) -> (Values, Self::Kept) {
        let (grid, outputs) = (Neighbourhoods::new(&shape(x), self.stride), shape(weight)[0]);
        let k = 9 * grid.channels;
        let places = neighbourhoods(&dense(x), grid);
        let filters = turned(&dense(weight), outputs, [grid.channels, 9]);
        let mut out = vec![0.0; grid.output_places() * outputs];
        let (left, right) = (
            Matrix::dense(&places, grid.output_places(), k),
            Matrix::dense(&filters, outputs, k),
        );
        multiply(left, right.transposed(), &mut out, outputs, Output::Replace);
        let kept = (weight_wanted.then(|| x.clone()), x_wanted.then(|| weight.clone()), grid);
        let [rows, columns] = grid.outputs;
        (tensor(out, [grid.batch, rows, columns, outputs]), kept)
    }

    fn backward(&self, (x, weight, grid): Self::Kept, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let outputs = shape(&gradient)[3];
        let (k, places) = (9 * grid.channels, grid.output_places());
        let slopes = dense(&gradient);
        let slopes = Matrix::dense(&slopes, places, outputs);
        let of_weight = x.map(|x| {
            let rows = neighbourhoods(&dense(&x), grid);
            let mut out = vec![0.0; outputs * k];
            multiply(
                slopes.transposed(),
                Matrix::dense(&rows, places, k),
                &mut out,
                k,
                Output::Replace,
            );
            tensor(
                turned(&out, outputs, [9, grid.channels]),
                [outputs, grid.channels, 3, 3],
            )
        });
        let of_x = weight.map(|weight| {
            let filters = turned(&dense(&weight), outputs, [grid.channels, 9]);
            let mut rows = vec![0.0; places * k];
            multiply(
                slopes,
                Matrix::dense(&filters, outputs, k),
                &mut rows,
                k,
                Output::Replace,
            );
            tensor(
                gathered(&rows, grid),
                [grid.batch, grid.inputs[0], grid.inputs[1], grid.channels],
            )
        });
        [of_x, of_weight]
    }
}
