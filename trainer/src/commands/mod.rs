//! The program's surface: one file a subcommand.

mod params;
mod parity;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// How a command ended, when it could run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Passed,
    /// Exit code 1: it ran, and a check failed.
    CheckFailed,
}

/// Reproducibility harness for federated LoRA fine-tuning of Segment Anything in 3D medical images.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Flapsam {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the network with reference outputs, quantity by quantity.
    Parity(parity::Args),
    /// Count what each method trains and sends, without any weights.
    Params(params::Args),
}

impl Flapsam {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// It could not run: exit code 2.
    pub fn run(self) -> Result<Outcome> {
        match self.command {
            Command::Parity(args) => parity::run(args),
            Command::Params(args) => params::run(args),
        }
    }
}

/// Prints facts for machines.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|why| crate::Error::Message(format!("the result cannot be written as JSON: {why}")))?;
    println!("{text}");
    Ok(())
}
