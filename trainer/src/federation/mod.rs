//! The federation: clients train, the server averages, and what travels is counted.

pub mod aggregation;
pub mod averaging;
mod checkpoint;
mod client;
pub mod envelope;
mod fault;
pub mod fixed_point;
mod folding;
mod global;
pub mod ledger;
mod member;
pub mod privacy;
mod robust;
mod rounds;
mod rules;
mod server;
mod server_adam;
mod sums;
pub mod trace;
pub mod wire;

pub use aggregation::Aggregation;
pub use checkpoint::{CHECKPOINTS, Checkpoints, Holders};
pub use client::{Client, Epoch, LocalTraining};
pub use fault::{Fault, FaultKind};
pub use folding::{Folding, cut, fold};
pub use global::Global;
pub use member::{Member, Update};
pub use privacy::{Privacy, Secret};
pub use robust::Robust;
pub use rounds::Federation;
pub use rules::{Rules, participants};
pub use server::{Aggregated, Inbox, Invited, Round, RoundRecord, Rounding, Seat, Server, shares};
pub use server_adam::ServerAdam;
pub use sums::Sums;
