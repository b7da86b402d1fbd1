//! Sums in a fixed order.

use crate::elements::add;
use crate::threads::{self, Shared};

/// Lanes of a sum along a line: as many as the widest processor adds at once.
pub const LANES: usize = 16;

/// Rows of a block of a sum down columns.
pub const ROWS: usize = 256;

/// The lanes of a sum, as a tree.
#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of what `term` makes of each element of a line.
#[inline(always)]
pub fn line(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += term(value);
    }
    tree(lanes)
}

/// The sum of what `term` makes of each pair of elements of two lines.
#[inline(always)]
pub fn pairs(left: &[f32], right: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            lanes[lane] += term(left[lane], right[lane]);
        }
    }
    for (lane, (&left, &right)) in lanes.iter_mut().zip(left_rest.iter().zip(right_rest)) {
        *lane += term(left, right);
    }
    tree(lanes)
}

/// The largest element of a line: exact in any order.
#[inline(always)]
pub fn largest(values: &[f32]) -> f32 {
    let larger = |one: f32, other: f32| if one > other { one } else { other };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = larger(chunk[lane], lanes[lane]);
        }
    }
    let lanes = lanes.into_iter().chain(rest.iter().copied());
    lanes.fold(f32::NEG_INFINITY, larger)
}

/// The sum down each of `width` columns of a matrix.
pub fn columns(width: usize, values: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    if width == 0 {
        return;
    }
    let shared = Shared::new(out);
    threads::ranges(width, LANES, values.len(), |range| {
        // SAFETY: the ranges are inside `out` and do not overlap.
        let out = unsafe { shared.slice(range.start, range.len()) };
        let mut block_sums = vec![0f32; out.len()];
        for block in values.chunks(ROWS * width) {
            add_rows(block, width, range.start, &mut block_sums);
            add(&block_sums, out);
            block_sums.fill(0.0);
        }
    });
}

vectorised! {
    /// Adds each row's elements, from a column on.
    fn add_rows(rows: &[f32], width: usize, start: usize, sums: &mut [f32]) {
        for row in rows.chunks_exact(width) {
            for (sum, &value) in sums.iter_mut().zip(&row[start..]) {
                *sum += value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_length() {
        for count in 0..70 {
            let values: Vec<f32> = (0..count).map(|k| (k * k % 13) as f32).collect();
            let whole: f32 = values.iter().sum();
            assert_eq!(line(&values, |x| x), whole);
            assert_eq!(pairs(&values, &values, |x, y| x - y), 0.0);
            let top = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&values), top);
        }
    }

    #[test]
    fn columns_of_several_blocks() {
        let (rows, width) = (2 * ROWS + 3, 37);
        let values: Vec<f32> = (0..rows * width).map(|k| (k % width) as f32).collect();
        let mut out = vec![f32::NAN; width];
        columns(width, &values, &mut out);
        let want: Vec<f32> = (0..width).map(|column| (rows * column) as f32).collect();
        assert_eq!(out, want);
    }
}
