use std::path::PathBuf;

use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::verification::parity::{Comparison, Tolerance, Verdict, compare};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Case folders, or folders of case folders.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// MobileSAM's weights, for cases that were made with them and do not bring them.
    #[arg(long)]
    base: Option<PathBuf>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let device = OpenDevice::open(args.device)?;
    let mut comparisons = Vec::new();
    for folder in &args.folders {
        comparisons.extend(compare(folder, args.base.as_deref(), &device.device)?);
    }
    let count = |verdict| {
        comparisons
            .iter()
            .filter(|comparison| comparison.verdict == verdict)
            .count()
    };
    let failed = count(Verdict::Failed);
    if args.json {
        print_json(&comparisons)?;
    } else {
        print_table(&comparisons);
        println!(
            "{} quantities on {}: {} within tolerance, {} within their own rounding, {failed} failed",
            comparisons.len(),
            device.name,
            count(Verdict::Passed),
            count(Verdict::PassedByRounding),
        );
    }
    Ok(Outcome::of(failed == 0))
}

fn print_table(comparisons: &[Comparison]) {
    let widest = comparisons
        .iter()
        .map(|comparison| comparison.quantity.len())
        .max()
        .unwrap_or(0);
    let mut case = "";
    for comparison in comparisons {
        if case != comparison.case {
            case = &comparison.case;
            println!("\n{case}");
            println!(
                "  {:<widest$}  {:>9}  {:>9}  tolerance",
                "quantity", "absolute", "relative"
            );
        }
        let tolerance = match comparison.tolerance {
            Tolerance::Absolute(most) => format!("{most:.0e} absolute"),
            Tolerance::OfNorm { most, .. } => format!("{most:.0e} of the norm"),
        };
        let rounding = comparison.rounding.unwrap_or_default();
        let verdict = match comparison.verdict {
            Verdict::Passed => String::new(),
            Verdict::PassedByRounding => format!("  past it, within 3 times its rounding of {rounding:.1e}"),
            Verdict::Failed => "  FAILED".into(),
        };
        println!(
            "  {:<widest$}  {:>9.1e}  {:>9.1e}  {tolerance}{verdict}",
            comparison.quantity, comparison.absolute, comparison.relative
        );
    }
    println!();
}
