//! Checks against what is known, reference outputs and golden figures; and how far figures can be told apart.

pub mod claims;
pub mod convergence;
pub mod golden;
pub mod groups;
pub mod parity;
pub mod statistics;
pub mod suite;
pub mod trace;
