use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Outcome, print_json};
use crate::base::network::{network, official_file};
use crate::error::Result;
use crate::files::read;
use crate::state_dict::checkpoint;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint, .pth or .safetensors.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    /// By the name that `--model` takes; none if it is no network known here.
    network: Option<&'static str>,
    /// Tensors of the network.
    tensors: usize,
    /// Their values, the statistics of batch norms among them.
    parameters: usize,
    /// How many tensors the file keeps in each type.
    types: BTreeMap<String, usize>,
    sha256: String,
    /// The official file that it is, to the byte.
    official: Option<String>,
    /// What the file says of itself.
    notes: BTreeMap<String, String>,
}

pub fn run(args: Args) -> Result<Outcome> {
    let checkpoint = checkpoint(&args.file, &read(&args.file)?)?;
    let report = Report {
        file: args.file,
        network: network(&checkpoint.state),
        tensors: checkpoint.state.len(),
        parameters: checkpoint.state.values().map(|array| array.values.len()).sum(),
        types: checkpoint.types,
        official: official_file(&checkpoint.sha256)?,
        sha256: checkpoint.sha256,
        notes: checkpoint.notes,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::Passed)
}

fn print_report(report: &Report) {
    let row = |name: &str, value: &str| println!("  {name:<12}{value}");
    println!("{}", report.file.display());
    row("network", report.network.unwrap_or("unknown"));
    row("tensors", &report.tensors.to_string());
    row("parameters", &report.parameters.to_string());
    let types = report.types.iter().map(|(name, count)| format!("{count} of {name}"));
    row("types", &types.collect::<Vec<_>>().join(", "));
    row("sha256", &report.sha256);
    let none = "none of data-manifests/sam-checkpoints.json has this sha256";
    row("official", report.official.as_deref().unwrap_or(none));
    for (name, note) in &report.notes {
        row("note", &format!("{name}: {note}"));
    }
}
