//! The program's surface: one file a subcommand.

mod base;
mod bench;
mod bundle;
mod claims;
mod client;
mod completions;
mod data;
mod device;
mod diff;
mod doctor;
mod estimate;
mod export;
mod federate;
mod figures;
mod labels_to_ct;
mod new;
mod params;
mod parity;
mod phantom;
mod pretrain;
mod privacy;
mod prompt;
mod report;
mod run;
mod scan_args;
mod segment;
mod server;
mod verify;
mod view;

use std::path::Path;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::data::manifest::Manifest;
use crate::error::Result;

/// How a command ended, when it could run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Passed,
    /// Exit code 1: it ran, and a check failed.
    CheckFailed,
}

impl Outcome {
    /// That of a check that passed, or did not.
    fn of(passed: bool) -> Self {
        match passed {
            true => Self::Passed,
            false => Self::CheckFailed,
        }
    }
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
    /// Say what of this program works on this machine, and what to do for the rest.
    Doctor(doctor::Args),
    /// Check that a device computes what it should.
    Device(device::Args),
    /// Write completions for a shell, or the manual's page.
    Completions(completions::Args),
    /// List, download, check and pin data sets.
    Data(data::Args),
    /// Compare the network with reference outputs, quantity by quantity.
    Parity(parity::Args),
    /// Make the phantom: a synthetic federated data set that needs no download.
    Phantom(phantom::Args),
    /// Paint synthetic CT on real label maps: semi-synthetic data with real anatomy.
    LabelsToCt(labels_to_ct::Args),
    /// Train a small SAM on procedural images, as the base for the phantom's experiments.
    Pretrain(pretrain::Args),
    /// Write an experiment of your own, as a file with comments that can be run at once.
    New(new::Args),
    /// Run an experiment: one of a suite's, or a file.
    Run(run::Args),
    /// A site's part of a federation over many machines.
    Client(client::Args),
    /// The coordinating site's part of it.
    Server(server::Args),
    /// Say how private so much noise makes a federation's clients, or how much noise it takes.
    Privacy(privacy::Args),
    /// Write an experiment's Flower app, which carries files between real sites.
    Federate(federate::Args),
    /// Make one HTML page of a run or of several, and describe each run's folder as an RO-Crate.
    Report(report::Args),
    /// Pack runs into one archive that can be checked anywhere, and check such an archive.
    Bundle(bundle::Args),
    /// Segment a scan with a run's adapter.
    Segment(segment::Args),
    /// Ask a base without an adapter about one slice, by clicks and a box, as the viewer's page does.
    Prompt(prompt::Args),
    /// Write a run's network for other programs: the reference's, one without LoRA, or a browser's.
    Export(export::Args),
    /// Show a run's cases in a browser, and segment them there.
    View(view::Args),
    /// Run a suite and compare every figure with the golden one.
    Verify(verify::Args),
    /// Compare two runs, a run and its golden figures, or two groups of runs: what moved, and by how much.
    Diff(diff::Args),
    /// Show, compare and import base checkpoints.
    Base(base::Args),
    /// Count what each method trains and sends, without any weights.
    Params(params::Args),
    /// Time training steps and inference on this machine.
    Bench(bench::Args),
}

impl Flapsam {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// It could not run: exit code 2.
    pub fn run(self) -> Result<Outcome> {
        match self.command {
            Command::Doctor(args) => doctor::run(args),
            Command::Device(args) => device::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Data(args) => data::run(args),
            Command::Parity(args) => parity::run(args),
            Command::Phantom(args) => phantom::run(args),
            Command::Pretrain(args) => pretrain::run(args),
            Command::New(args) => new::run(&args),
            Command::Run(args) => run::run(args),
            Command::Client(args) => client::run(args),
            Command::Server(args) => server::run(args),
            Command::Privacy(args) => privacy::run(&args),
            Command::Federate(args) => federate::run(args),
            Command::Report(args) => report::run(args),
            Command::Bundle(args) => bundle::run(args),
            Command::LabelsToCt(args) => labels_to_ct::run(args),
            Command::Segment(args) => segment::run(args),
            Command::Prompt(args) => prompt::run(args),
            Command::Export(args) => export::run(args),
            Command::Verify(args) => verify::run(args),
            Command::View(args) => view::run(args),
            Command::Diff(args) => diff::run(args),
            Command::Base(args) => base::run(args),
            Command::Params(args) => params::run(args),
            Command::Bench(args) => bench::run(args),
        }
    }
}

/// Says what data set was made, and where.
fn print_made(manifest: &Manifest, data: &Path, kind: &str, json: bool) -> Result<()> {
    let (cases, folder) = (manifest.cases.len(), data.join(&manifest.about.name));
    match json {
        true => print_json(&json!({"name": manifest.about.name, "kind": kind, "cases": cases, "folder": folder})),
        false => {
            println!("{cases} {kind} cases in {}", folder.display());
            Ok(())
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
