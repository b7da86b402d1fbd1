use std::path::{Path, PathBuf};

use flapsam_model::parameters::StateDict;
use serde::Serialize;

use super::{Outcome, print_json};
use crate::base::difference::{Comparison, compare, fold_norms};
use crate::error::{Error, Result};
use crate::state_dict::read_state_dict;

/// How many of the tensors that are furthest apart are shown.
const TENSORS_SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint, .pth or .safetensors.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// Another one.
    #[arg(value_name = "B")]
    second: PathBuf,
    /// Fold batch norms into their convolutions first: an imported file has them folded, the official one has not.
    #[arg(long)]
    fold_norms: bool,
    /// Pass tensors, too, whose largest difference is at most this share of their largest magnitude.
    #[arg(long, value_name = "SHARE")]
    within: Option<f64>,
    /// Show every tensor that differs.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    first: Side,
    second: Side,
    norms_folded: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// Tensors that differ, and by no more than `--within`.
    within: usize,
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Side {
    file: PathBuf,
    sha256: String,
}

pub fn run(args: Args) -> Result<Outcome> {
    let (first, first_sha256) = read(&args.first, args.fold_norms)?;
    let (second, second_sha256) = read(&args.second, args.fold_norms)?;
    let comparison = compare(&first, &second);
    let let_pass = |relative| args.within.is_some_and(|within| relative <= within);
    let within = comparison
        .different
        .iter()
        .filter(|tensor| let_pass(tensor.relative))
        .count();
    let report = Report {
        first: Side {
            file: args.first,
            sha256: first_sha256,
        },
        second: Side {
            file: args.second,
            sha256: second_sha256,
        },
        norms_folded: args.fold_norms,
        passed: within == comparison.different.len()
            && comparison.other_shapes.is_empty()
            && comparison.only_first.is_empty()
            && comparison.only_second.is_empty(),
        comparison,
        within,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report, args.all),
    }
    Ok(Outcome::of(report.passed))
}

fn read(path: &Path, fold: bool) -> Result<(StateDict, String)> {
    let (state, sha256) = read_state_dict(path)?;
    if state.is_empty() {
        return Err(Error::invalid(path, "it holds no weights; pass a checkpoint"));
    }
    Ok(match fold {
        true => (fold_norms(state), sha256),
        false => (state, sha256),
    })
}

fn print_report(report: &Report, all: bool) {
    let comparison = &report.comparison;
    println!("A is {}", report.first.file.display());
    println!("B is {}", report.second.file.display());
    if !comparison.different.is_empty() {
        println!("\n{:<74}{:>10}{:>10}  values", "tensor", "absolute", "relative");
    }
    let shown = if all { usize::MAX } else { TENSORS_SHOWN };
    for tensor in comparison.different.iter().take(shown) {
        println!(
            "{:<74}{:>10.1e}{:>10.1e}  {} of {}",
            tensor.name, tensor.absolute, tensor.relative, tensor.values_different, tensor.values
        );
    }
    let hidden = comparison.different.len().saturating_sub(shown);
    if hidden > 0 {
        println!("and {hidden} that are closer (--all shows them)");
    }
    for tensor in &comparison.other_shapes {
        println!("{}: {:?} in A, {:?} in B", tensor.name, tensor.first, tensor.second);
    }
    for (side, names) in [("A", &comparison.only_first), ("B", &comparison.only_second)] {
        names.iter().for_each(|name| println!("{name}: only in {side}"));
    }
    let counts = [
        (comparison.different.len() - report.within, "different"),
        (report.within, "different by no more than --within"),
        (comparison.other_shapes.len(), "of other shapes"),
        (comparison.only_first.len(), "only in A"),
        (comparison.only_second.len(), "only in B"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let rest: String = counts.map(|(count, what)| format!(", {count} {what}")).collect();
    println!("\n{} tensors are equal to the bit{rest}", comparison.equal);
    let norms = comparison.different.iter().any(|tensor| tensor.name.contains(".bn."));
    if norms && !report.norms_folded {
        println!("batch norms differ: --fold-norms compares what the networks compute, however a file keeps it");
    }
}
