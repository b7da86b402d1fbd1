//! Checks against what is known: reference outputs and golden figures.

pub mod claims;
pub mod golden;
pub mod parity;
