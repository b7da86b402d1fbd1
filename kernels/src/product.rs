//! Matrix products on slices.
//!
//! Both factors are copied into panels as narrow as a tile of the output, so that the innermost loop reads memory in a
//! row whatever the strides are. A tile's sums stay in registers for a whole block of k.

use std::cell::RefCell;
use std::ops::Range;

use crate::threads::{self, Shared};
use crate::vectorised::{Level, fused};

/// Products that are accumulated from zero before their sum is added to the others.
pub const BLOCK: usize = 256;

/// Rows whose panels stay in the second-level cache while all columns go by. It changes no bit.
const ROWS_AT_ONCE: usize = 192;

/// A matrix in a slice, with any strides.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose element (row, column) is `values[row * strides[0] + column * strides[1]]`.
    ///
    /// # Panics
    /// If an element lies outside (a programming error).
    pub fn new(values: &'a [f32], [rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> Self {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * row_stride + (columns - 1) * column_stride < values.len());
        }
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// A row-major matrix.
    pub fn dense(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::new(values, [rows, columns], [columns, 1])
    }

    /// Rows for columns.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What becomes of what is in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is replaced.
    Replace,
    /// The product's block sums are added to it, in order.
    Add,
}

/// `a b` into `out`, row-major with so many elements from one row to the next.
///
/// # Panics
/// If the shapes do not fit (a programming error).
pub fn multiply(a: Matrix, b: Matrix, out: &mut [f32], stride: usize, output: Output) {
    assert!(a.rows == 0 || b.columns == 0 || (a.rows - 1) * stride + b.columns <= out.len());
    assert!(b.columns <= stride || a.rows <= 1);
    let (rows, columns) = (a.rows, b.columns);
    let place = Place {
        out: Shared::new(out),
        stride,
        output,
    };
    let work = rows * columns * a.columns / 16;
    let tile = Tile::here();
    let part = |rows, columns| {
        Part {
            a,
            b,
            place,
            rows,
            columns,
        }
        .compute()
    };
    // Each thread copies the factor that it does not divide: the smaller one, if the longer side is divided.
    match rows >= columns {
        true => threads::ranges(rows, tile.rows, work, |rows| part(rows, 0..columns)),
        false => threads::ranges(columns, tile.columns, work, |columns| part(0..rows, columns)),
    }
}

/// `a b` into a place that nobody else writes to, on this thread.
///
/// # Safety
/// The place holds `a.rows` rows of `b.columns` elements, `stride` apart, and no other thread touches them meanwhile.
pub(crate) unsafe fn multiply_here(a: Matrix, b: Matrix, place: Place) {
    let (rows, columns) = (0..a.rows, 0..b.columns);
    Part {
        a,
        b,
        place,
        rows,
        columns,
    }
    .compute();
}

/// Where a product goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Its first element.
    pub out: Shared,
    /// Elements from one row to the next.
    pub stride: usize,
    /// What becomes of what is there.
    pub output: Output,
}

/// Rows and columns of the output whose sums fit in the processor's registers.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: usize,
    columns: usize,
}

impl Tile {
    fn here() -> Self {
        let (rows, columns) = match Level::here() {
            Level::Avx512 => (12, 32),
            Level::Avx2 => (6, 16),
            Level::Baseline => (8, 8),
        };
        Self { rows, columns }
    }
}

/// A rectangle of the output.
struct Part<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    place: Place,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Panels, kept from one product to the next.
#[derive(Default)]
struct Panels {
    a: Vec<f32>,
    b: Vec<f32>,
}

thread_local! {
    static PANELS: RefCell<Panels> = RefCell::default();
}

impl Part<'_> {
    fn compute(self) {
        if self.a.columns == 0 {
            return self.fill_with_nothing();
        }
        PANELS.with_borrow_mut(|panels| match Level::here() {
            // SAFETY: the processor has what the level names.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512(&self, panels) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2(&self, panels) },
            _ => self.blocks::<8, 8>(panels),
        });
    }

    /// An empty sum is zero.
    fn fill_with_nothing(&self) {
        if self.place.output == Output::Replace {
            for row in self.rows.clone() {
                let start = row * self.place.stride + self.columns.start;
                // SAFETY: the part's own place.
                unsafe { self.place.out.slice(start, self.columns.len()) }.fill(0.0);
            }
        }
    }

    #[inline(always)]
    fn blocks<const ROWS: usize, const COLUMNS: usize>(&self, panels: &mut Panels) {
        for start in (0..self.a.columns).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(self.a.columns);
            let add = start > 0 || self.place.output == Output::Add;
            pack::<COLUMNS>(&mut panels.b, self.b.transposed(), self.columns.clone(), block.clone());
            for top in self.rows.clone().step_by(ROWS_AT_ONCE) {
                let rows = top..(top + ROWS_AT_ONCE).min(self.rows.end);
                pack::<ROWS>(&mut panels.a, self.a, rows.clone(), block.clone());
                self.tiles::<ROWS, COLUMNS>(panels, rows, block.len(), add);
            }
        }
    }

    #[inline(always)]
    fn tiles<const ROWS: usize, const COLUMNS: usize>(
        &self,
        panels: &Panels,
        rows: Range<usize>,
        depth: usize,
        add: bool,
    ) {
        let lefts = self.columns.clone().step_by(COLUMNS);
        for (b, left) in panels.b.chunks_exact(depth * COLUMNS).zip(lefts) {
            let across = COLUMNS.min(self.columns.end - left);
            let tops = rows.clone().step_by(ROWS);
            for (a, top) in panels.a.chunks_exact(depth * ROWS).zip(tops) {
                let sums = tile::<ROWS, COLUMNS>(a, b);
                let down = ROWS.min(rows.end - top);
                for (row, sums) in sums.iter().enumerate().take(down) {
                    let start = (top + row) * self.place.stride + left;
                    // SAFETY: the part's own place.
                    let out = unsafe { self.place.out.slice(start, across) };
                    match out.as_mut_array::<COLUMNS>() {
                        Some(out) => store(sums, out, add),
                        None => store(&sums[..across], out, add),
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(part: &Part, panels: &mut Panels) {
    part.blocks::<6, 16>(panels);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn avx512(part: &Part, panels: &mut Panels) {
    part.blocks::<12, 32>(panels);
}

/// The sums of a tile over a block of k, from panels.
#[inline(always)]
fn tile<const ROWS: usize, const COLUMNS: usize>(a: &[f32], b: &[f32]) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0f32; COLUMNS]; ROWS];
    for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.as_chunks::<COLUMNS>().0) {
        for row in 0..ROWS {
            for column in 0..COLUMNS {
                sums[row][column] = fused(a[row], b[column], sums[row][column]);
            }
        }
    }
    sums
}

#[inline(always)]
fn store(sums: &[f32], out: &mut [f32], add: bool) {
    for (out, &sum) in out.iter_mut().zip(sums) {
        *out = if add { *out + sum } else { sum };
    }
}

/// Copies lines of a matrix, over a block of k, into panels of `WIDTH` lines each: k after k, in each the panel's lines. The
/// last panel is filled up with zeros.
#[inline(always)]
fn pack<const WIDTH: usize>(panels: &mut Vec<f32>, lines: Matrix, range: Range<usize>, block: Range<usize>) {
    let depth = block.len();
    panels.resize(range.len().div_ceil(WIDTH) * WIDTH * depth, 0.0);
    let starts = range.clone().step_by(WIDTH);
    for (panel, start) in panels.chunks_exact_mut(WIDTH * depth).zip(starts) {
        let count = WIDTH.min(range.end - start);
        let from = &lines.values[start * lines.row_stride + block.start * lines.column_stride..];
        let panel = panel.as_chunks_mut::<WIDTH>().0;
        if lines.row_stride == 1 {
            for (k, place) in panel.iter_mut().enumerate() {
                let from = &from[k * lines.column_stride..][..count];
                match from.as_array::<WIDTH>() {
                    Some(from) => *place = *from,
                    None => {
                        place[..count].copy_from_slice(from);
                        place[count..].fill(0.0);
                    }
                }
            }
        } else if lines.column_stride == 1 && count == WIDTH {
            turn::<WIDTH>(from, lines.row_stride, panel);
        } else {
            for line in 0..WIDTH {
                let places = panel.iter_mut().map(|place| &mut place[line]);
                if line < count {
                    let from = from[line * lines.row_stride..]
                        .iter()
                        .step_by(lines.column_stride.max(1));
                    places.zip(from).for_each(|(place, &value)| *place = value);
                } else {
                    places.for_each(|place| *place = 0.0);
                }
            }
        }
    }
}

/// Rows and columns of the blocks that [`turn`] takes at once: so many shuffles of whole vectors the compiler finds.
const TURNED: usize = 4;

/// Copies `WIDTH` lines, of which each lies in a row, into a panel.
#[inline(always)]
fn turn<const WIDTH: usize>(from: &[f32], stride: usize, panel: &mut [[f32; WIDTH]]) {
    let whole = panel.len() / TURNED * TURNED;
    let (blocks, rest) = panel.split_at_mut(whole);
    for (block, k) in blocks.as_chunks_mut::<TURNED>().0.iter_mut().zip((0..).step_by(TURNED)) {
        for first in (0..WIDTH / TURNED).map(|number| number * TURNED) {
            let lines: [[f32; TURNED]; TURNED] = std::array::from_fn(|line| {
                let start = (first + line) * stride + k;
                *from[start..].first_chunk().expect("a whole line")
            });
            for (place, k) in block.iter_mut().zip(0..) {
                let across: [f32; TURNED] = std::array::from_fn(|line| lines[line][k]);
                place[first..first + TURNED].copy_from_slice(&across);
            }
        }
        for line in WIDTH / TURNED * TURNED..WIDTH {
            let values = &from[line * stride + k..][..TURNED];
            block
                .iter_mut()
                .zip(values)
                .for_each(|(place, &value)| place[line] = value);
        }
    }
    for (place, k) in rest.iter_mut().zip(whole..) {
        place
            .iter_mut()
            .enumerate()
            .for_each(|(line, place)| *place = from[line * stride + k]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The contract, word for word.
    fn by_definition(a: Matrix, b: Matrix, out: &mut [f32], stride: usize, output: Output) {
        for row in 0..a.rows {
            for column in 0..b.columns {
                let place = &mut out[row * stride + column];
                if output == Output::Replace {
                    *place = 0.0;
                }
                for start in (0..a.columns).step_by(BLOCK) {
                    let ks = start..(start + BLOCK).min(a.columns);
                    let sum = ks.fold(0.0, |sum, k| {
                        let left = a.values[row * a.row_stride + k * a.column_stride];
                        let right = b.values[k * b.row_stride + column * b.column_stride];
                        left.mul_add(right, sum)
                    });
                    *place += sum;
                }
            }
        }
    }

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    /// Both orders of strides, with gaps.
    fn matrix(values: &[f32], [rows, columns]: [usize; 2], by_column: bool, gap: usize) -> Matrix<'_> {
        match by_column {
            true => Matrix::new(values, [rows, columns], [1 + gap, (1 + gap) * rows]),
            false => Matrix::new(values, [rows, columns], [columns + gap, 1]),
        }
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn every_bit_is_as_defined(
            rows in 1usize..70,
            depth in prop_oneof![0usize..4, 1usize..40, 250usize..260, 500usize..530],
            columns in 1usize..70,
            orders in any::<[bool; 2]>(),
            gap in 0usize..3,
            add in any::<bool>(),
            seed in any::<u32>(),
        ) {
            let values = |lines: usize, across: usize, seed| noise((lines.max(1) + 3) * (across.max(1) + 3) * (gap + 1), seed);
            let (a, b) = (values(rows, depth, seed), values(depth, columns, seed ^ 1));
            let a = matrix(&a, [rows, depth], orders[0], gap);
            let b = matrix(&b, [depth, columns], orders[1], gap);
            let stride = columns + gap;
            let mut found = noise(rows * stride, seed ^ 2);
            let mut want = found.clone();
            let output = if add { Output::Add } else { Output::Replace };
            multiply(a, b, &mut found, stride, output);
            by_definition(a, b, &mut want, stride, output);
            prop_assert_eq!(bits(&found), bits(&want));
        }
    }

    /// The second implementation, by other hands.
    #[test]
    fn every_bit_is_that_of_another_crate() {
        let shapes = [
            (98, 768, 307),
            (7, 16384, 33),
            (64, 4097, 20),
            (1, 300, 1),
            (1, 1000, 50),
            (50, 1000, 1),
            (130, 96, 384),
        ];
        for (rows, depth, columns) in shapes {
            let (a, b) = (noise(rows * depth, 3), noise(depth * columns, 4));
            let (mut found, mut want) = (vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]);
            let (left, right) = (
                Matrix::dense(&a, rows, depth),
                Matrix::dense(&b, columns, depth).transposed(),
            );
            multiply(left, right, &mut found, columns, Output::Replace);
            let (deep, wide) = (depth as isize, columns as isize);
            // SAFETY: the strides are those of the vectors.
            unsafe {
                let (a, b, out) = (a.as_ptr(), b.as_ptr(), want.as_mut_ptr());
                matrixmultiply::sgemm(rows, depth, columns, 1.0, a, deep, 1, b, 1, deep, 0.0, out, wide, 1);
            }
            assert_eq!(bits(&found), bits(&want), "{rows} x {depth} x {columns}");
        }
    }
}
