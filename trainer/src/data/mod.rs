//! Data sets: their manifests, how they are made, and batches from them.

pub mod croissant;
pub mod dataset;
pub mod labels_to_ct;
pub mod manifest;
pub mod natural;
pub mod paint;
pub mod phantom;
pub mod stacks;
