//! Bilinear resizing.

use burn::tensor::Tensor;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};

use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::threads;

/// What stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// The image's outer edges, half a pixel beyond the outermost centres.
    Edges,
    /// The centres of the corner pixels.
    Corners,
}

/// Resizes `[batch, channel, row, column]`.
pub fn resize_bilinear(images: Tensor<4>, [rows, columns]: [usize; 2], alignment: Alignment) -> Tensor<4> {
    let [_, _, high, wide] = images.dims();
    if [high, wide] == [rows, columns] {
        return images;
    }
    if on_cpu(&images) {
        let operation = Resize {
            to: [rows, columns],
            alignment,
        };
        return apply(operation, [images.into()]);
    }
    let options = InterpolateOptions::new(InterpolateMode::Bilinear)
        .with_output_size([rows, columns])
        .with_align_corners(alignment == Alignment::Corners);
    interpolate(images, options)
}

#[derive(Debug, Clone)]
struct Resize {
    to: [usize; 2],
    alignment: Alignment,
}

/// Two places, and the share of the second one.
type Tap = (usize, usize, f32);

/// Where each place of an axis takes its value from.
fn taps(from: usize, to: usize, alignment: Alignment) -> Vec<Tap> {
    let tap = |place: usize| {
        let place = place as f64;
        let position = match alignment {
            Alignment::Edges => ((place + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
            Alignment::Corners => place * (from - 1) as f64 / (to - 1).max(1) as f64,
        };
        let first = (position as usize).min(from - 1);
        (first, (first + 1).min(from - 1), (position - first as f64) as f32)
    };
    (0..to).map(tap).collect()
}

impl Resize {
    fn taps(&self, from: usize, to: usize) -> Vec<Tap> {
        taps(from, to, self.alignment)
    }
}

impl Operation<1> for Resize {
    /// The input's extents.
    type Kept = Vec<usize>;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Vec<usize>) {
        let (extents, values) = (shape(x), dense(x));
        let [rows, columns] = self.to;
        let (down, across) = (self.taps(extents[2], rows), self.taps(extents[3], columns));
        let (wide, area) = (extents[3], extents[2] * extents[3]);
        let mut out = vec![0.0; extents[0] * extents[1] * rows * columns];
        let work = 8 * out.len();
        threads::chunks(&mut out, rows * columns, work, |first, out| {
            for (number, out) in out.chunks_exact_mut(rows * columns).enumerate() {
                let image = &values[(first + number) * area..][..area];
                for (out, &(above, below, share)) in out.chunks_exact_mut(columns).zip(&down) {
                    let (above, below) = (&image[above * wide..][..wide], &image[below * wide..][..wide]);
                    for (out, &(left, right, along)) in out.iter_mut().zip(&across) {
                        let mix = |line: &[f32]| line[left] * (1.0 - along) + line[right] * along;
                        *out = mix(above) * (1.0 - share) + mix(below) * share;
                    }
                }
            }
        });
        (tensor(out, [extents[0], extents[1], rows, columns]), extents)
    }

    fn backward(&self, extents: Vec<usize>, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let [rows, columns] = self.to;
        let (down, across) = (self.taps(extents[2], rows), self.taps(extents[3], columns));
        let (wide, area) = (extents[3], extents[2] * extents[3]);
        let slopes = dense(&gradient);
        let mut out = vec![0.0; extents.iter().product()];
        for (out, slopes) in out.chunks_exact_mut(area).zip(slopes.chunks_exact(rows * columns)) {
            for (slopes, &(above, below, share)) in slopes.chunks_exact(columns).zip(&down) {
                for (&slope, &(left, right, along)) in slopes.iter().zip(&across) {
                    for (row, slope) in [(above, slope * (1.0 - share)), (below, slope * share)] {
                        out[row * wide + left] += slope * (1.0 - along);
                        out[row * wide + right] += slope * along;
                    }
                }
            }
        }
        [Some(tensor(out, extents))]
    }
}
