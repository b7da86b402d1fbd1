//! A run: the experiment file, the runner, the record it leaves.

pub mod across;
mod choice;
mod config;
pub mod estimate;
mod evaluation;
mod files;
pub mod metrics;
mod mistakes;
mod network;
mod record;
mod runner;
pub mod suite;
pub mod sweep;
mod trace;

pub use config::{Experiment, Setting};
pub use evaluation::{CaseScores, MeanScores};
pub(crate) use record::utc;
pub use record::{Provenance, Record, Timing};
pub use runner::{ADAPTER, Start, adapter_of, adapters, run, run_folders};
pub use trace::TRACE;
