//! Divides outputs among threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Below so many elementary steps, handing work to another thread costs more than it gains.
const WORTH_A_THREAD: usize = 1 << 16;

/// How many threads have work of their own that goes through this room.
static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// A thread that has work of its own beside others': while it lives, its operations take no more than its share of the
/// pool. With as many workers as threads none waits for another's pieces; the last one left has them all.
#[derive(Debug)]
pub struct Worker(());

impl Worker {
    /// From now on.
    #[allow(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        WORKERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        WORKERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker's share of the pool's threads. It may change at any time, and changes no bit.
fn share() -> usize {
    #[cfg(feature = "threads")]
    return (rayon::current_num_threads() / WORKERS.load(Ordering::Relaxed).max(1)).max(1);
    #[cfg(not(feature = "threads"))]
    return 1;
}

/// Does work whose operations come one after the other, where they divide themselves with the least waiting: on a thread of
/// the pool, which does its part of each and takes back what nobody else began. Beside other workers it stays on its own
/// thread, since one that waits in the pool may be handed another's whole work.
pub fn in_turn<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "threads")]
    if WORKERS.load(Ordering::Relaxed) <= 1 && share() > 1 {
        return rayon::scope(|_| work());
    }
    work()
}

/// Calls `each` for every number below `count`, on several threads where `work` (elementary steps in all) is worth it.
pub fn each(count: usize, work: usize, each: impl Fn(usize) + Send + Sync) {
    map(count, work, each);
}

/// What `each` makes of every number below `count`, in their order; otherwise like [`each()`].
pub fn map<T: Send>(count: usize, work: usize, each: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    #[cfg(feature = "threads")]
    if count > 1 && work >= WORTH_A_THREAD && share() > 1 {
        use rayon::prelude::*;
        return (0..count).into_par_iter().with_max_len(1).map(each).collect();
    }
    let _ = (work, WORTH_A_THREAD);
    (0..count).map(each).collect()
}

/// Into how many parts work is worth dividing.
fn parts(work: usize) -> usize {
    match share() {
        1 => 1,
        // Twice the threads, so that one that starts late does not keep the others waiting for half of the work.
        threads => (work / WORTH_A_THREAD).clamp(1, 2 * threads),
    }
}

/// Calls `part` for ranges that together are `0..count`, each but the last a multiple of `step` long.
pub fn ranges(count: usize, step: usize, work: usize, part: impl Fn(Range<usize>) + Send + Sync) {
    let steps = count.div_ceil(step);
    let long = steps.div_ceil(parts(work).min(steps).max(1)) * step;
    each(count.div_ceil(long.max(1)), work, |index| {
        part(index * long..((index + 1) * long).min(count));
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
