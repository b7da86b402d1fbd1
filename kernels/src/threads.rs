//! Divides outputs among threads.

use std::ops::Range;

/// Below so many elementary steps, handing work to another thread costs more than it gains.
const WORTH_A_THREAD: usize = 1 << 17;

/// Calls `each` for every number below `count`, on several threads where `work` (elementary steps in all) is worth it.
pub fn each(count: usize, work: usize, each: impl Fn(usize) + Send + Sync) {
    #[cfg(feature = "threads")]
    if count > 1 && work >= WORTH_A_THREAD && rayon::current_num_threads() > 1 {
        use rayon::prelude::*;
        return (0..count).into_par_iter().with_max_len(1).for_each(each);
    }
    let _ = (work, WORTH_A_THREAD);
    (0..count).for_each(each);
}

/// Into how many parts work is worth dividing.
fn parts(work: usize) -> usize {
    #[cfg(feature = "threads")]
    {
        // Twice the threads, so that one that starts late does not keep the others waiting for half of the work.
        let threads = rayon::current_num_threads();
        match threads {
            1 => 1,
            _ => (work / WORTH_A_THREAD).clamp(1, 2 * threads),
        }
    }
    #[cfg(not(feature = "threads"))]
    {
        let _ = work;
        1
    }
}

/// Calls `part` for ranges that together are `0..count`, each but the last a multiple of `step` long.
pub fn ranges(count: usize, step: usize, work: usize, part: impl Fn(Range<usize>) + Send + Sync) {
    let steps = count.div_ceil(step);
    let long = steps.div_ceil(parts(work).min(steps).max(1)) * step;
    each(count.div_ceil(long.max(1)), work, |index| {
        part(index * long..((index + 1) * long).min(count))
    });
}

/// Calls `part` for pieces of `values` of `step` elements or a multiple of it, with the number of each one's first step.
pub fn chunks(values: &mut [f32], step: usize, work: usize, part: impl Fn(usize, &mut [f32]) + Send + Sync) {
    let (count, shared) = (values.len(), Shared::new(values));
    ranges(count, step.max(1), work, |range| {
        // SAFETY: the ranges are inside `values` and do not overlap.
        let piece = unsafe { shared.slice(range.start, range.len()) };
        part(range.start / step.max(1), piece);
    });
}

/// A place that several threads write to, each to elements of its own.
#[derive(Debug, Clone, Copy)]
pub struct Shared(*mut f32);

// SAFETY: a pointer alone does nothing; whoever writes through it answers for it.
unsafe impl Send for Shared {}
// SAFETY: the same.
unsafe impl Sync for Shared {}

impl Shared {
    /// The start of these values.
    pub fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The place an offset further on.
    ///
    /// # Safety
    /// It lies inside the values, or at their end.
    pub unsafe fn from(self, offset: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { self.0.add(offset) })
    }

    /// So many elements from an offset on.
    ///
    /// # Safety
    /// They lie inside the values, and no other thread touches them meanwhile.
    pub unsafe fn slice<'a>(self, offset: usize, count: usize) -> &'a mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), count) }
    }
}
