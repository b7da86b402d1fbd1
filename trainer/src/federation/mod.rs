//! The federation: clients train, the server averages, and what travels is counted.

pub mod aggregation;
mod client;
mod server;

pub use aggregation::Aggregation;
pub use client::{Client, Epoch, LocalTraining};
pub use server::{Traffic, aggregate, lora_error, norm};
