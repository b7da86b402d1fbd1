//! The federation: clients train, the server averages, and what travels is counted.

pub mod aggregation;
mod client;
mod server;

pub use client::{Client, Epoch, LocalTraining};
pub use server::{Traffic, aggregate, norm};
