//! Data sets: their manifests, how they are fetched, checked and made, and batches from them.

pub mod archive;
pub mod augmentation;
pub mod check;
pub mod croissant;
pub mod dataset;
pub mod download;
pub mod folder;
pub mod import;
pub mod labels_to_ct;
pub mod lock;
pub mod manifest;
pub mod memory;
pub mod natural;
pub mod paint;
pub mod phantom;
pub mod prepared;
pub mod stacks;
