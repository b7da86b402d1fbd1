//! Reproducibility harness for federated LoRA fine-tuning of Segment Anything in 3D medical images.
//!
//! Data flows one way, and each module knows only those before it: [`data`] (manifest, volumes, batches),
//! [`training`] (a client's local epoch), [`federation`] (rounds, aggregation, ledger), [`experiment`] (a run and its
//! record), [`report`] (pages of runs), [`verification`] (golden figures), [`bundle`] (archives of runs). [`commands`] is the
//! program's surface, one file a subcommand.

pub mod base;
pub mod bundle;
pub mod commands;
pub mod data;
pub mod device;
mod error;
pub mod experiment;
pub mod federation;
pub mod files;
pub mod folder_lock;
pub mod machine;
pub mod progress;
pub mod report;
pub mod shipped;
pub mod state_dict;
pub mod training;
pub mod verification;
pub mod view;

pub use error::{Error, Result, printable};
