//! exp, ln and erf by fixed polynomials: the same bits everywhere, and several at a time.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LN_2, LOG2_E};

use crate::vectorised::fused;

/// Below this, exp is zero (its true value there is less than 1e-37).
const EXP_LOW: f32 = -86.0;
/// Above this, exp is infinite.
const EXP_HIGH: f32 = 88.722_84;
/// Added to a number below 2^22, it leaves the nearest integer in the last bits.
const TO_INTEGER: f32 = 12_582_912.0;

/// `e^x`, to 1e-7 of its value (the tests try every 97th number).
///
/// By `2^n e^r` with `|r| <= ln 2 / 2`, and the power series of `e^r` to the seventh power.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that n times the first one is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = fused(x, LOG2_E, TO_INTEGER);
    let n = shifted - TO_INTEGER;
    let r = fused(n, -LN_2_HIGH, x);
    let r = fused(n, -LN_2_LOW, r);
    let series = [
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ];
    let power = series.into_iter().fold(0.0, |sum, factor| fused(sum, r, factor));
    // 2^(n - 1) by its exponent's bits, and the last factor of two apart, since 2^128 has no bits.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(126) << 23);
    let value = power * scale * 2.0;
    let value = if x < EXP_LOW { 0.0 } else { value };
    if x > EXP_HIGH { f32::INFINITY } else { value }
}

/// The natural logarithm of a positive number that is not subnormal, to 1.1e-7 of its value or of one.
///
/// By `n ln 2 + ln m` with `m` around one, and the series of `ln m` in `(m - 1) / (m + 1)`.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // Moves the border between exponents to sqrt(1/2).
    const HALF_ROOT: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(HALF_ROOT);
    let n = ((bits as i32) >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff) + HALF_ROOT);
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = [1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0];
    let sum = series.into_iter().fold(0.0, |sum, factor| fused(sum, square, factor));
    let value = fused(n, LN_2, fused(2.0 * s * square, sum, 2.0 * s));
    let value = if x < f32::INFINITY { value } else { x };
    let outside = if x == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
    if x > 0.0 { value } else { outside }
}

/// The error function, to 1.4e-7 of one.
///
/// Below 1 by its power series; above it as `1 - erfc`, where `ln erfc` is a polynomial, fitted at the Chebyshev points
/// of [1, 4].
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    const SERIES: [f32; 10] = [
        -1.636_584_4e-7,
        1.646_211_4e-6,
        -1.492_565e-5,
        1.205_533_3e-4,
        -8.548_327e-4,
        5.223_978e-3,
        -2.686_617_2e-2,
        0.112_837_92,
        -0.376_126_38,
        FRAC_2_SQRT_PI,
    ];
    const LN_ERFC: [f32; 9] = [
        1.637_151_4e-6,
        -4.605_804e-5,
        5.968_056_5e-4,
        -4.759_596e-3,
        2.642_113_5e-2,
        -0.110_080_086,
        -0.631_826_04,
        -1.130_233_4,
        3.201_380_6e-4,
    ];
    let size = x.abs();
    let square = size * size;
    let near = SERIES.into_iter().fold(0.0, |sum, factor| fused(sum, square, factor)) * size;
    let capped = if size > 4.0 { 4.0 } else { size };
    let far = LN_ERFC.into_iter().fold(0.0, |sum, factor| fused(sum, capped, factor));
    let far = 1.0 - exp(far);
    let value = if size < 1.0 { near } else { far };
    let value = if x.is_nan() { x } else { value };
    value.copysign(x)
}

/// `base^exponent` by repeated multiplication.
pub fn power(base: f64, exponent: usize) -> f64 {
    let bits = (0..usize::BITS).rev().map(|bit| exponent >> bit & 1 == 1);
    bits.fold(1.0, |power, set| power * power * if set { base } else { 1.0 })
}

/// The sine, for tables that are made once.
pub fn sin(x: f32) -> f32 {
    libm::sinf(x)
}

/// The cosine, for tables that are made once.
pub fn cos(x: f32) -> f32 {
    libm::cosf(x)
}

/// The standard normal distribution's share below `x`.
#[inline(always)]
pub fn normal_share(x: f32) -> f32 {
    fused(erf(x * FRAC_1_SQRT_2), 0.5, 0.5)
}

/// The standard normal distribution's density at `x`.
#[inline(always)]
pub fn normal_density(x: f32) -> f32 {
    const FRAC_1_SQRT_2_PI: f32 = 0.398_942_3;
    FRAC_1_SQRT_2_PI * exp(-0.5 * x * x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest difference from a function in f64, over what `scale` makes of its value, at every 97th number of a
    /// range and at its ends.
    fn worst([low, high]: [f32; 2], ours: fn(f32) -> f32, exact: fn(f64) -> f64, scale: fn(f64) -> f64) -> f64 {
        let numbers = (low.to_bits()..=high.to_bits())
            .step_by(97)
            .map(f32::from_bits)
            .chain([low, high]);
        let error = |x: f32| {
            let want = exact(x as f64);
            (ours(x) as f64 - want).abs() / scale(want)
        };
        numbers.map(error).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_exact_to_its_last_bit_or_two() {
        let size = |x: f64| x.abs();
        assert!(worst([0.0, 88.7], exp, f64::exp, size) < 1e-7);
        assert!(worst([0.0, 86.0], |x| exp(-x), |x| (-x).exp(), size) < 1e-7);
        let ends = [f32::NEG_INFINITY, -86.01, -0.0, 0.0, 89.0, f32::INFINITY].map(exp);
        assert_eq!(ends, [0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn powers_are_products() {
        let powers = [power(0.9, 0), power(0.5, 10), power(3.0, 5), power(-0.25, 3)];
        assert_eq!(powers, [1.0, 1.0 / 1024.0, 243.0, -1.0 / 64.0]);
    }

    #[test]
    fn ln_is_exact_to_its_last_bit_or_two() {
        let size = |x: f64| x.abs().max(1.0);
        assert!(worst([f32::MIN_POSITIVE, f32::MAX], ln, f64::ln, size) < 1.1e-7);
        assert_eq!(
            [0.0, 1.0, f32::INFINITY].map(ln),
            [f32::NEG_INFINITY, 0.0, f32::INFINITY]
        );
        assert!(ln(-1.0).is_nan() && ln(f32::NAN).is_nan());
    }

    /// The function in f64: its integral by Simpson's rule.
    fn exact_erf(x: f64) -> f64 {
        let steps = 400;
        let density = |t: f64| (-t * t).exp();
        let width = x / steps as f64;
        let inner = (1..steps).map(|k| density(k as f64 * width) * if k % 2 == 1 { 4.0 } else { 2.0 });
        (density(0.0) + inner.sum::<f64>() + density(x)) * width / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn erf_is_exact_to_its_last_bit_or_two() {
        let numbers = (0..=5000).map(|step| step as f32 / 1000.0);
        let errors = numbers.flat_map(|x| {
            [
                erf(x) as f64 - exact_erf(x as f64),
                erf(-x) as f64 + exact_erf(x as f64),
            ]
        });
        let worst = errors.map(f64::abs).fold(0.0, f64::max);
        assert!(worst < 1.4e-7, "{worst:e}");
        assert_eq!(
            [f32::NEG_INFINITY, 0.0, 9.0, f32::INFINITY].map(erf),
            [-1.0, 0.0, 1.0, 1.0]
        );
        assert!(erf(f32::NAN).is_nan());
    }
}
