//! DICOM: a series of images as the volume that it is, and masks as DICOM segmentations.
//!
//! The `dicom` crates read files and unpack pixels; which images make a volume, and where it lies, is here.

mod attributes;
mod lengths;
mod packed;
pub mod segmentation;
pub mod series;
