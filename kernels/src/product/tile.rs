//! The innermost loop, and the way from registers to the output.

use super::lanes::{Four, Lanes};
use super::panels::Strip;
use crate::threads::Shared;

/// An instruction set that tiles are compiled for, each as a function of its own.
pub trait Compiled {
    /// Its registers.
    type Lanes: Lanes;

    /// Computes the sums of a tile of `ROWS` rows and `VECTORS` registers of columns over a block of k, and stores what of
    /// it has a place.
    ///
    /// # Safety
    /// The processor has the instruction set, and the tile's place is the caller's own.
    unsafe fn tile<const ROWS: usize, const VECTORS: usize, const HIGH: usize, const WIDE: usize>(
        a: Strip<HIGH>,
        b: &[[f32; WIDE]],
        way: &Way,
    );
}

macro_rules! compiled {
    ($level:ident, $lanes:ty $(, $features:literal)?) => {
        impl Compiled for $level {
            type Lanes = $lanes;

            #[inline(always)]
            unsafe fn tile<const ROWS: usize, const VECTORS: usize, const HIGH: usize, const WIDE: usize>(
                a: Strip<HIGH>,
                b: &[[f32; WIDE]],
                way: &Way,
            ) {
                #[inline(never)]
                $(#[target_feature(enable = $features)])?
                unsafe fn compiled<const ROWS: usize, const VECTORS: usize, const HIGH: usize, const WIDE: usize>(
                    a: Strip<HIGH>,
                    b: &[[f32; WIDE]],
                    way: &Way,
                ) {
                    // SAFETY: the caller's.
                    unsafe { way.store::<_, ROWS, VECTORS, WIDE>(tile::<$lanes, ROWS, VECTORS, HIGH, WIDE>(a, b, way.extents[0])) }
                }
                // SAFETY: the caller's.
                unsafe { compiled::<ROWS, VECTORS, HIGH, WIDE>(a, b, way) }
            }
        }
    };
}

/// What every processor has.
pub struct Baseline;
compiled!(Baseline, Four);

/// [`crate::Level::Avx2`]
#[cfg(target_arch = "x86_64")]
pub struct Avx2;
#[cfg(target_arch = "x86_64")]
compiled!(Avx2, std::arch::x86_64::__m256, "avx2,fma");

/// [`crate::Level::Avx512`]
#[cfg(target_arch = "x86_64")]
pub struct Avx512;
#[cfg(target_arch = "x86_64")]
compiled!(
    Avx512,
    std::arch::x86_64::__m512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
);

/// Repeats a statement for every row of a tile. It is no loop, since what the compiler does with a loop differs from size to
/// size, and only in a straight line it keeps all sums in registers.
macro_rules! each_row {
    ($row:ident of $rows:ident $body:block) => {
        each_row!($row of $rows $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    ($row:ident of $rows:ident $body:block $($number:literal)*) => {$(
        if $number < $rows {
            const $row: usize = $number;
            $body
        }
    )*};
}

/// The sums, in registers.
type Sums<L, const ROWS: usize, const VECTORS: usize> = [[L; VECTORS]; ROWS];

/// # Safety
/// The processor has the registers.
#[inline(always)]
unsafe fn tile<L: Lanes, const ROWS: usize, const VECTORS: usize, const HIGH: usize, const WIDE: usize>(
    a: Strip<HIGH>,
    b: &[[f32; WIDE]],
    down: usize,
) -> Sums<L, ROWS, VECTORS> {
    const { assert!(ROWS <= HIGH && VECTORS * L::COUNT <= WIDE) }
    // SAFETY: the caller's, and the rows are as wide as was just asserted.
    unsafe {
        let mut sums = [[L::all(0.0); VECTORS]; ROWS];
        match a {
            Strip::Lines(lines, stride) => {
                // Rows that are not there are the last one once more.
                let start = |row: usize| lines[row.min(down - 1) * stride..][..b.len()].as_ptr();
                let starts: [_; ROWS] = std::array::from_fn(start);
                for (k, b) in b.iter().enumerate() {
                    each_row!(ROW of ROWS { add_products(&mut sums[ROW], *starts[ROW].add(k), b) });
                }
            }
            Strip::Turned(a) => {
                for (a, b) in a.iter().zip(b) {
                    each_row!(ROW of ROWS { add_products(&mut sums[ROW], a[ROW], b) });
                }
            }
        }
        sums
    }
}

/// # Safety
/// The processor has the registers, and `b` is as wide as they are.
#[inline(always)]
unsafe fn add_products<L: Lanes, const VECTORS: usize, const WIDE: usize>(
    sums: &mut [L; VECTORS],
    a: f32,
    b: &[f32; WIDE],
) {
    const { assert!(VECTORS <= 2) }
    // SAFETY: the caller's.
    unsafe {
        let (a, b) = (L::all(a), b.as_ptr());
        sums[0] = sums[0].fused(a, L::load(b));
        if VECTORS == 2 {
            sums[VECTORS - 1] = sums[VECTORS - 1].fused(a, L::load(b.add(L::COUNT)));
        }
    }
}

/// Where a tile goes.
pub struct Way {
    /// Its first element.
    pub out: Shared,
    /// Elements from one of the output's rows to the next.
    pub stride: usize,
    /// The tile's rows and columns that have a place.
    pub extents: [usize; 2],
    /// Whether it is added to what is there.
    pub add: bool,
}

impl Way {
    /// # Safety
    /// The processor has the registers, and the place is the caller's own.
    #[inline(always)]
    unsafe fn store<L: Lanes, const ROWS: usize, const VECTORS: usize, const WIDE: usize>(
        &self,
        sums: Sums<L, ROWS, VECTORS>,
    ) {
        let columns = VECTORS * L::COUNT;
        // SAFETY: the caller's.
        unsafe {
            if self.extents == [ROWS, columns] {
                each_row!(ROW of ROWS { self.store_row(sums[ROW], ROW) });
                return;
            }
            let mut spilled = [[0f32; WIDE]; ROWS];
            let place = Way {
                out: Shared::new(spilled.as_flattened_mut()),
                stride: WIDE,
                add: false,
                ..*self
            };
            each_row!(ROW of ROWS { place.store_row(sums[ROW], ROW) });
            let [down, across] = self.extents;
            for (row, sums) in spilled.iter().enumerate().take(down) {
                let out = self.out.slice(row * self.stride, across);
                match self.add {
                    true => out.iter_mut().zip(sums).for_each(|(out, &sum)| *out += sum),
                    false => out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum),
                }
            }
        }
    }

    /// # Safety
    /// The same.
    #[inline(always)]
    unsafe fn store_row<L: Lanes, const VECTORS: usize>(&self, sums: [L; VECTORS], row: usize) {
        // SAFETY: the caller's.
        unsafe {
            let place = self.out.slice(row * self.stride, VECTORS * L::COUNT).as_mut_ptr();
            self.store_lanes(sums[0], place);
            if VECTORS == 2 {
                self.store_lanes(sums[VECTORS - 1], place.add(L::COUNT));
            }
        }
    }

    /// # Safety
    /// The same.
    #[inline(always)]
    unsafe fn store_lanes<L: Lanes>(&self, sums: L, place: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            match self.add {
                true => L::load(place).plus(sums).store(place),
                false => sums.store(place),
            }
        }
    }
}
