//! Data sets that are made here: the phantom, painted label maps, and natural-looking images for pretraining.

pub mod labels_to_ct;
pub mod natural;
pub mod paint;
pub mod phantom;
