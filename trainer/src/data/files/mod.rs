//! A data set's files: where they are, whether they are right, and how they are fetched.

pub mod archive;
pub mod check;
pub mod download;
pub mod folder;
