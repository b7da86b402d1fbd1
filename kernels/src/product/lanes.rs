//! Vectors of the processor, with the few operations that a tile needs. Written by hand, since a compiler left to find them
//! in loops loses them in some of the tile's sizes; each is exact or rounds once, as IEEE 754 has it.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::vectorised::fused;

/// So many numbers in one register.
pub trait Lanes: Copy {
    /// How many.
    const COUNT: usize;

    /// The same number in every lane.
    ///
    /// # Safety
    /// As of all methods: the processor has these registers.
    unsafe fn all(value: f32) -> Self;

    /// The numbers from a place on.
    ///
    /// # Safety
    /// There are [`COUNT`](Self::COUNT) of them.
    unsafe fn load(place: *const f32) -> Self;

    /// Writes the numbers to a place.
    ///
    /// # Safety
    /// There is room for [`COUNT`](Self::COUNT) of them.
    unsafe fn store(self, place: *mut f32);

    /// `a * b + self`, rounded once (in WebAssembly twice).
    ///
    /// # Safety
    /// The processor has these registers.
    unsafe fn fused(self, a: Self, b: Self) -> Self;

    /// The sums.
    ///
    /// # Safety
    /// The processor has these registers.
    unsafe fn plus(self, other: Self) -> Self;
}

/// What every processor has, as the compiler finds it.
#[derive(Debug, Clone, Copy)]
pub struct Four([f32; 4]);

impl Lanes for Four {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn all(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(place: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { place.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn store(self, place: *mut f32) {
        // SAFETY: the caller's.
        unsafe { place.cast::<[f32; 4]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn fused(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| fused(a.0[lane], b.0[lane], self.0[lane])))
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
}

/// The side of the blocks that are turned at once.
pub const SIDE: usize = 4;

/// Rows for columns.
#[inline(always)]
pub fn transposed(rows: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has these registers, and they are as long as the rows.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        let mut columns = rows;
        for (column, register) in columns.iter_mut().zip([a, b, c, d]) {
            _mm_storeu_ps(column.as_mut_ptr(), register);
        }
        columns
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    ($register:ty, $count:literal, $all:ident, $load:ident, $store:ident, $fused:ident, $plus:ident) => {
        impl Lanes for $register {
            const COUNT: usize = $count;

            #[inline(always)]
            unsafe fn all(value: f32) -> Self {
                // SAFETY: the caller's.
                unsafe { $all(value) }
            }

            #[inline(always)]
            unsafe fn load(place: *const f32) -> Self {
                // SAFETY: the caller's.
                unsafe { $load(place) }
            }

            #[inline(always)]
            unsafe fn store(self, place: *mut f32) {
                // SAFETY: the caller's.
                unsafe { $store(place, self) }
            }

            #[inline(always)]
            unsafe fn fused(self, a: Self, b: Self) -> Self {
                // SAFETY: the caller's.
                unsafe { $fused(a, b, self) }
            }

            #[inline(always)]
            unsafe fn plus(self, other: Self) -> Self {
                // SAFETY: the caller's.
                unsafe { $plus(self, other) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
registers!(
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);
#[cfg(target_arch = "x86_64")]
registers!(
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
