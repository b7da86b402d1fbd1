//! What several operations do with the elements of lines.

use crate::sums;

vectorised! {
    /// Adds one line to another.
    pub fn add(values: &[f32], out: &mut [f32]) {
        for (out, &value) in out.iter_mut().zip(values) {
            *out += value;
        }
    }

    /// Multiplies each element with its own factor.
    pub fn multiply(out: &mut [f32], factors: &[f32]) {
        for (out, &factor) in out.iter_mut().zip(factors) {
            *out *= factor;
        }
    }

    /// Multiplies all elements with one factor.
    pub fn scale(out: &mut [f32], factor: f32) {
        for out in out {
            *out *= factor;
        }
    }

    /// The sum of the products of two lines' elements.
    pub fn inner(left: &[f32], right: &[f32]) -> f32 {
        sums::pairs(left, right, |left, right| left * right)
    }
}
