//! From cases to batches: prepared once, then stacked and augmented.

pub mod augmentation;
pub mod prepared;
pub mod stacks;
