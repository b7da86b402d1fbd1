//! From a list of places with their descendants beside them to an image.

use burn::tensor::Tensor;

use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::threads;

/// Puts `[image, row * column, 4^stages]`, where each place's four children stand in its stead stage after stage (upper
/// left, upper right, lower left, lower right), into images: `[image, row * 2^stages, column * 2^stages]`.
pub fn arrange(x: Tensor<3>, [rows, columns]: [usize; 2], stages: usize) -> Tensor<3> {
    if on_cpu(&x) {
        return apply(Arrange { rows, columns, stages }, [x.into()]);
    }
    let images = x.dims()[0];
    let start = x.reshape([images, rows, columns, 1 << (2 * stages)]);
    let arranged = (0..stages).fold(start, |x, _| {
        let [images, rows, columns, rest] = x.dims();
        x.reshape([images, rows, columns, 2, 2, rest / 4])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([images, 2 * rows, 2 * columns, rest / 4])
    });
    arranged.squeeze_dim(3)
}

#[derive(Debug, Clone)]
struct Arrange {
    rows: usize,
    columns: usize,
    stages: usize,
}

impl Arrange {
    /// Moves every image of a list by `one(in list's order, in image's order)`.
    fn each(&self, from: &[f32], move_one: impl Fn(&[f32], &mut [f32], &[usize]) + Send + Sync) -> Vec<f32> {
        let side = 1 << self.stages;
        // A descendant's place in its ancestor's square: row bits and column bits take turns in its number.
        let descendants = (0..side * side).map(|number: usize| {
            let bits =
                |first: usize| (0..self.stages).fold(0, |sum, bit| sum | (number >> (2 * bit + first) & 1) << bit);
            bits(1) * self.columns * side + bits(0)
        });
        let descendants: Vec<usize> = descendants.collect();
        let area = self.rows * self.columns * side * side;
        let mut out = vec![0.0; from.len()];
        threads::chunks(&mut out, area, from.len(), |first, out| {
            for (from, out) in from[first * area..].chunks_exact(area).zip(out.chunks_exact_mut(area)) {
                move_one(from, out, &descendants);
            }
        });
        out
    }

    /// Every place's first pixel.
    fn corners(&self) -> impl Iterator<Item = usize> {
        let (side, columns) = (1 << self.stages, self.columns);
        (0..self.rows).flat_map(move |row| (0..columns).map(move |column| (row * columns * side + column) * side))
    }
}

impl Operation<1> for Arrange {
    /// The list's extents.
    type Kept = Vec<usize>;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Vec<usize>) {
        let out = self.each(&dense(x), |list, image, descendants| {
            for (list, corner) in list.chunks_exact(descendants.len()).zip(self.corners()) {
                for (&value, &offset) in list.iter().zip(descendants) {
                    image[corner + offset] = value;
                }
            }
        });
        let side = 1 << self.stages;
        (
            tensor(out, [shape(x)[0], self.rows * side, self.columns * side]),
            shape(x),
        )
    }

    fn backward(&self, extents: Vec<usize>, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let out = self.each(&dense(&gradient), |image, list, descendants| {
            for (list, corner) in list.chunks_exact_mut(descendants.len()).zip(self.corners()) {
                for (value, &offset) in list.iter_mut().zip(descendants) {
                    *value = image[corner + offset];
                }
            }
        });
        [Some(tensor(out, extents))]
    }
}
