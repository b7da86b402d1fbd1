//! The federation: clients train, the server averages, and what travels is counted.

pub mod aggregation;
pub mod averaging;
mod checkpoint;
mod client;
pub mod ledger;
mod rounds;
mod server;
pub mod trace;
pub mod wire;

pub use aggregation::Aggregation;
pub use checkpoint::{CHECKPOINTS, Checkpoint, Checkpoints};
pub use client::{Client, Epoch, LocalTraining};
pub use rounds::{Federation, Folding, Member, Round, RoundRecord, Rounding, Rules, participants, sent};
pub use server::{Server, ServerAdam, cut};
