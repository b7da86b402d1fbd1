//! Data sets, from the manifest to a batch; each module knows only those before it.
//!
//! [`manifest`] says what a data set consists of, [`files`] fetches and checks its files, [`cases`] reads scans with their
//! labels, [`batches`] prepares, augments and stacks them. [`synthetic`] makes data sets that need no download, [`dicom`] reads
//! scans as hospitals have them.

pub mod batches;
pub mod cases;
pub mod dicom;
pub mod files;
pub mod manifest;
pub mod synthetic;
