//! Copies of the factors, over a block of k, in the order in which tiles read them.

use std::ops::Range;

use super::lanes::{SIDE, transposed};
use super::{BLOCK, Matrix};

/// A line's place in a strip: longer than a block, so that lines do not meet in one set of a cache.
pub const PITCH: usize = BLOCK + 16;

/// Lines so many elements apart meet in one or two sets of a cache, and drive each other out.
const MEETING: usize = 512;

/// The left factor's rows that a tile needs, over a block of k.
#[derive(Debug, Clone, Copy)]
pub enum Strip<'a, const HIGH: usize> {
    /// Rows as they lie, so many elements apart.
    Lines(&'a [f32], usize),
    /// k after k.
    Turned(&'a [[f32; HIGH]]),
}

impl<'a, const HIGH: usize> Strip<'a, HIGH> {
    /// At most `HIGH` rows, copied where they can't be read as they lie; the others' places keep what is there.
    #[inline(always)]
    pub fn new(place: &'a mut Vec<f32>, matrix: Matrix<'a>, rows: Range<usize>, block: Range<usize>) -> Self {
        let from = &matrix.values[rows.start * matrix.row_stride + block.start * matrix.column_stride..];
        if matrix.column_stride == 1 && !matrix.row_stride.is_multiple_of(MEETING) {
            return Strip::Lines(from, matrix.row_stride);
        }
        let place = at_least(place, HIGH * PITCH);
        if matrix.column_stride == 1 {
            for (line, row) in place.chunks_exact_mut(PITCH).zip(0..rows.len()) {
                line[..block.len()].copy_from_slice(&from[row * matrix.row_stride..][..block.len()]);
            }
            return Strip::Lines(place, PITCH);
        }
        let (places, _) = place[..block.len() * HIGH].as_chunks_mut::<HIGH>();
        for (k, place) in places.iter_mut().enumerate() {
            let from = &from[k * matrix.column_stride..];
            match (matrix.row_stride, from.first_chunk::<HIGH>()) {
                // What is beyond the rows are other rows' elements, and is not looked at.
                (1, Some(from)) => *place = *from,
                _ => {
                    let from = from.iter().step_by(matrix.row_stride.max(1)).take(rows.len());
                    place.iter_mut().zip(from).for_each(|(place, &value)| *place = value);
                }
            }
        }
        Strip::Turned(places)
    }
}

/// The right factor's columns, in panels of `WIDE`: k after k, in each the panel's columns. What the last panel has
/// no columns for keeps what is there.
pub struct Across<'a, const WIDE: usize> {
    values: &'a [f32],
    depth: usize,
    columns: Range<usize>,
}

impl<'a, const WIDE: usize> Across<'a, WIDE> {
    #[inline(always)]
    pub fn copy(place: &'a mut Vec<f32>, matrix: Matrix, columns: Range<usize>, block: Range<usize>) -> Self {
        let depth = block.len();
        let values = at_least(place, columns.len().div_ceil(WIDE) * WIDE * depth);
        let starts = columns.clone().step_by(WIDE);
        for (panel, start) in values.chunks_exact_mut(WIDE * depth).zip(starts) {
            let count = WIDE.min(columns.end - start);
            let from = &matrix.values[block.start * matrix.row_stride + start * matrix.column_stride..];
            let panel = panel.as_chunks_mut::<WIDE>().0;
            if matrix.column_stride == 1 {
                beside::<WIDE>(from, matrix.row_stride, count, panel);
            } else if matrix.row_stride == 1 {
                turn::<WIDE>(from, matrix.column_stride, count, panel);
            } else {
                for (k, place) in panel.iter_mut().enumerate() {
                    let from = from[k * matrix.row_stride..]
                        .iter()
                        .step_by(matrix.column_stride.max(1));
                    let places = place[..count].iter_mut();
                    places.zip(from).for_each(|(place, &value)| *place = value);
                }
            }
        }
        Self { values, depth, columns }
    }

    /// Every panel with its columns.
    #[inline(always)]
    pub fn panels(&self) -> impl Iterator<Item = (&[[f32; WIDE]], Range<usize>)> {
        let columns = self.columns.clone();
        let ranges = columns
            .clone()
            .step_by(WIDE)
            .map(move |start| start..(start + WIDE).min(columns.end));
        let panels = self
            .values
            .chunks_exact(WIDE * self.depth)
            .map(|panel| panel.as_chunks().0);
        panels.zip(ranges)
    }
}

/// So much of a vector, which grows where it must and never shrinks: nothing is filled that will be written.
fn at_least(place: &mut Vec<f32>, count: usize) -> &mut [f32] {
    if place.len() < count {
        place.resize(count, 0.0);
    }
    &mut place[..count]
}

/// Columns that lie side by side.
#[inline(always)]
fn beside<const WIDE: usize>(from: &[f32], stride: usize, count: usize, panel: &mut [[f32; WIDE]]) {
    for (k, place) in panel.iter_mut().enumerate() {
        let from = &from[k * stride..][..count];
        match from.as_array::<WIDE>() {
            Some(from) => *place = *from,
            None => place[..count].copy_from_slice(from),
        }
    }
}

/// Columns of which each lies in a row.
#[inline(always)]
fn turn<const WIDE: usize>(from: &[f32], stride: usize, count: usize, panel: &mut [[f32; WIDE]]) {
    let (depth, columns) = (panel.len(), count / SIDE * SIDE);
    let line = |column: usize| &from[column * stride..][..depth];
    for first in (0..columns).step_by(SIDE) {
        let lines: [&[f32]; SIDE] = std::array::from_fn(|number| line(first + number));
        let (blocks, rest) = panel.as_chunks_mut::<SIDE>();
        for (block, k) in blocks.iter_mut().zip((0..depth).step_by(SIDE)) {
            let lines = lines.map(|line| *line[k..].first_chunk().expect("a whole line"));
            for (place, values) in block.iter_mut().zip(transposed(lines)) {
                place[first..first + SIDE].copy_from_slice(&values);
            }
        }
        for (place, k) in rest.iter_mut().zip(depth / SIDE * SIDE..) {
            place[first..]
                .iter_mut()
                .zip(lines)
                .for_each(|(place, line)| *place = line[k]);
        }
    }
    for column in columns..count {
        let places = panel.iter_mut().map(|place| &mut place[column]);
        places.zip(line(column)).for_each(|(place, &value)| *place = value);
    }
}
