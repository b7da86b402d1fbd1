//! Cases: scans and labels that belong together, read, pinned, or imported from a folder of one's own.

pub mod dataset;
pub mod fit;
pub mod import;
pub mod lock;
pub mod memory;
pub mod scan;
