//! Matrix products on slices.
//!
//! The right factor is copied into panels as narrow as a tile of the output (`panels`), the left one where its rows can't
//! be read as they lie, so that the innermost loop (`tile`) reads memory in a row whatever the strides are. A tile's sums stay in registers for a whole block of k.

mod lanes;
mod panels;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

use self::lanes::Lanes;
use self::panels::{Across, Strip};
#[cfg(target_arch = "x86_64")]
use self::tile::{Avx2, Avx512};
use self::tile::{Baseline, Compiled, Way};
use crate::threads::{self, Shared};
use crate::vectorised::Level;

/// Products that are accumulated from zero before their sum is added to the others.
pub const BLOCK: usize = 256;

/// Columns whose panels stay in the second-level cache while all rows go by. It changes no bit.
const COLUMNS_AT_ONCE: usize = 768;

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
    let (rows, columns, work) = (a.rows, b.columns, a.rows * b.columns * a.columns / 16);
    let place = Place {
        out: Shared::new(out),
        stride,
        output,
    };
    let (product, tile) = (Product { a, b, place }, Tile::here());
    // Dividing columns copies no panel of them twice; it needs enough of them for equal shares.
    match columns >= rows || columns >= 16 * tile.columns {
        true => threads::ranges(columns, tile.columns, work, |columns| product.part(0..rows, columns)),
        false => threads::ranges(rows, tile.rows, work, |rows| product.part(rows, 0..columns)),
    }
}

/// `a b` into a place that nobody else writes to, on this thread.
///
/// # Safety
/// The place holds `a.rows` rows of `b.columns` elements, `stride` apart, and no other thread touches them meanwhile.
pub(crate) unsafe fn multiply_here(a: Matrix, b: Matrix, place: Place) {
    let product = Product { a, b, place };
    product.part(0..product.a.rows, 0..product.b.columns);
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
    const AVX512: Self = Self { rows: 12, columns: 32 };
    const AVX2: Self = Self { rows: 6, columns: 16 };
    const BASELINE: Self = Self { rows: 8, columns: 8 };

    fn here() -> Self {
        match Level::here() {
            Level::Avx512 => Self::AVX512,
            Level::Avx2 => Self::AVX2,
            Level::Baseline => Self::BASELINE,
        }
    }
}

/// A product and its place.
struct Product<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    place: Place,
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

impl Product<'_> {
    /// A rectangle of the product.
    fn part(&self, rows: Range<usize>, columns: Range<usize>) {
        if self.a.columns == 0 {
            return self.fill_with_nothing(rows, columns);
        }
        PANELS.with_borrow_mut(|panels| match Level::here() {
            // SAFETY: the processor has what the level names.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512(self, panels, rows, columns) },
            // SAFETY: the same.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2(self, panels, rows, columns) },
            _ => self
                .blocks::<Baseline, { Tile::BASELINE.rows }, 4, 2, { Tile::BASELINE.columns }>(panels, rows, columns),
        });
    }

    /// An empty sum is zero.
    fn fill_with_nothing(&self, rows: Range<usize>, columns: Range<usize>) {
        if self.place.output == Output::Replace {
            for row in rows {
                let start = row * self.place.stride + columns.start;
                // SAFETY: the part's own place.
                unsafe { self.place.out.slice(start, columns.len()) }.fill(0.0);
            }
        }
    }

    /// Tiles are `HIGH` rows by `WIDE` columns; what is left of rows and columns takes the smaller ones.
    #[inline(always)]
    fn blocks<L: Compiled, const HIGH: usize, const HALF: usize, const LOW: usize, const WIDE: usize>(
        &self,
        panels: &mut Panels,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        for start in (0..self.a.columns).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(self.a.columns);
            let add = start > 0 || self.place.output == Output::Add;
            for left in columns.clone().step_by(COLUMNS_AT_ONCE) {
                let columns = left..(left + COLUMNS_AT_ONCE).min(columns.end);
                let across = Across::<WIDE>::copy(&mut panels.b, self.b, columns, block.clone());
                for top in rows.clone().step_by(HIGH) {
                    let down = HIGH.min(rows.end - top);
                    let strip = Strip::<HIGH>::new(&mut panels.a, self.a, top..top + down, block.clone());
                    match down {
                        _ if down > HALF => self.tiles::<L, HIGH, HIGH, WIDE>(strip, &across, top, down, add),
                        _ if down > LOW => self.tiles::<L, HALF, HIGH, WIDE>(strip, &across, top, down, add),
                        _ => self.tiles::<L, LOW, HIGH, WIDE>(strip, &across, top, down, add),
                    }
                }
            }
        }
    }

    /// The tiles of a strip.
    #[inline(always)]
    fn tiles<L: Compiled, const ROWS: usize, const HIGH: usize, const WIDE: usize>(
        &self,
        strip: Strip<HIGH>,
        across: &Across<WIDE>,
        top: usize,
        down: usize,
        add: bool,
    ) {
        for (panel, columns) in across.panels() {
            let way = Way {
                // SAFETY: inside, as the shapes were found to fit.
                out: unsafe { self.place.out.from(top * self.place.stride + columns.start) },
                stride: self.place.stride,
                extents: [down, columns.len()],
                add,
            };
            // SAFETY: the level was asked for, and the tile's place is the part's own.
            unsafe {
                match columns.len() > L::Lanes::COUNT {
                    true => L::tile::<ROWS, 2, HIGH, WIDE>(strip, panel, &way),
                    false => L::tile::<ROWS, 1, HIGH, WIDE>(strip, panel, &way),
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(product: &Product, panels: &mut Panels, rows: Range<usize>, columns: Range<usize>) {
    product.blocks::<Avx2, { Tile::AVX2.rows }, 4, 2, { Tile::AVX2.columns }>(panels, rows, columns);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn avx512(product: &Product, panels: &mut Panels, rows: Range<usize>, columns: Range<usize>) {
    product.blocks::<Avx512, { Tile::AVX512.rows }, 8, 4, { Tile::AVX512.columns }>(panels, rows, columns);
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
