//! The server's side: how clients' updates become one.

pub mod aggregation;
