mod groups;
mod trace;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::figures::print_rows;
use super::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record};
use crate::files::read_json;
use crate::verification::golden::{Closeness, Figures, Row, compare, figures, keep_seed, read_snapshot};
use crate::verification::statistics::{CaseDifference, Paired, case_differences, paired};

/// How many of the cases that moved most are shown.
const CASES_SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A and B: each a run folder, or golden figures (.snap); the tolerances are A's. With --with, the runs of A alone.
    #[arg(value_name = "RUN", required = true)]
    compared: Vec<PathBuf>,
    /// Compare groups of runs, each the seeds of one experiment: those before, A, with these, B. Run folders, or folders
    /// that hold them.
    #[arg(long, value_name = "RUN", num_args = 1..)]
    with: Vec<PathBuf>,
    /// With --with, MLPerf's rule for reference convergence points as well: whether B reaches this mean Dice in fewer rounds
    /// than A, by more than chance explains, or not at all; then exit 1. For runs of another device or implementation.
    #[arg(long, value_name = "DICE", requires = "with")]
    reach: Option<f64>,
    /// Name the first round, client and step in which two runs part, and what differs in settings, data, program or machine.
    #[arg(long, conflicts_with_all = ["with", "all"])]
    trace: bool,
    /// Show the figures that did not move, too.
    #[arg(long, conflicts_with = "with")]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is compared: figures, and the record that they come from if there is one.
struct Side {
    figures: Figures,
    record: Option<Record>,
}

#[derive(Debug, Serialize)]
struct Report {
    first: PathBuf,
    second: PathBuf,
    rows: Vec<Row>,
    unmoved: usize,
    /// None unless both are runs.
    dice: Option<DiceReport>,
    passed: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum DiceReport {
    OfTheSameCases {
        paired: Vec<Paired>,
        moved_most: Vec<CaseDifference>,
    },
    Unlike {
        why: &'static str,
    },
}

pub fn run(args: Args) -> Result<Outcome> {
    if !args.with.is_empty() {
        return groups::run(&args.compared, &args.with, args.reach, args.json);
    }
    let [a, b] = &args.compared[..] else {
        return Err(Error::Message(format!(
            "diff compares two, A and B, and got {}; for groups of runs write 'flapsam diff A.. --with B..'",
            args.compared.len()
        )));
    };
    if args.trace {
        return trace::run(a, b, args.json);
    }
    let (mut first, mut second) = (read(a)?, read(b)?);
    match (&first.record, &second.record) {
        (None, Some(run)) => keep_seed(run.seed, &mut first.figures, &mut second.figures),
        (Some(run), None) => keep_seed(run.seed, &mut second.figures, &mut first.figures),
        _ => {}
    }
    let mut rows = compare(&first.figures, &second.figures, Closeness::Tolerant);
    let passed = rows.iter().all(|row| row.passed);
    let unmoved = rows.iter().filter(|row| !row.moved()).count();
    rows.retain(|row| args.all || row.moved());
    let report = Report {
        dice: first
            .record
            .zip(second.record)
            .map(|(first, second)| dice(&first, &second)),
        first: a.clone(),
        second: b.clone(),
        rows,
        unmoved,
        passed,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::of(passed))
}

fn read(path: &Path) -> Result<Side> {
    if !path.is_dir() {
        let figures = read_snapshot(path)?;
        return Ok(Side { figures, record: None });
    }
    let record: Record = read_json(&path.join("metrics.json"))?;
    let provenance: Provenance = read_json(&path.join("provenance.json"))?;
    Ok(Side {
        figures: figures(&record, &provenance),
        record: Some(record),
    })
}

fn dice(first: &Record, second: &Record) -> DiceReport {
    let Some(differences) = case_differences(first, second) else {
        let why = "the runs are not over the same cases and classes";
        return DiceReport::Unlike { why };
    };
    let paired = paired(&differences);
    let mut moved_most = differences;
    moved_most.retain(|case| case.difference != 0.0);
    moved_most.sort_by(|one, other| other.difference.abs().total_cmp(&one.difference.abs()));
    moved_most.truncate(CASES_SHOWN);
    DiceReport::OfTheSameCases { paired, moved_most }
}

fn print_report(report: &Report) {
    println!("A is {}, B is {}", report.first.display(), report.second.display());
    if !report.rows.is_empty() {
        println!();
        print_rows(&report.rows, ["A", "B"]);
    }
    println!("\n{} figures did not move", report.unmoved);
    match &report.dice {
        None => {}
        Some(DiceReport::Unlike { why }) => println!("\nDice is not compared case by case: {why}"),
        Some(DiceReport::OfTheSameCases { paired, moved_most }) => print_dice(paired, moved_most),
    }
    let failed = report.rows.iter().filter(|row| !row.passed).count();
    match report.passed {
        true => println!("\nevery figure of B is within A's tolerance"),
        false => println!("\n{failed} figures of B are not within A's tolerance"),
    }
}

fn print_dice(paired: &[Paired], moved_most: &[CaseDifference]) {
    println!("\nDice case by case, B less A, with the 95 % bootstrap interval of its mean");
    print_paired(paired);
    if moved_most.is_empty() {
        println!("no case moved");
        return;
    }
    println!("\nCases that moved most");
    for row in moved_most {
        let case = format!("{} of {}", row.case, row.site);
        println!(
            "  {case:<30}{:<16}{:>8.4}{:>8.4}{:>+12.4}",
            row.class, row.first, row.second, row.difference
        );
    }
}

/// Means by cases and class.
fn print_paired(paired: &[Paired]) {
    println!(
        "  {:<30}{:<16}{:>8}{:>8}{:>12}  interval",
        "cases", "class", "A", "B", "difference"
    );
    for row in paired {
        let cases = match &row.site {
            None => format!("all {}", row.cases),
            Some(site) => format!("{} of {site}", row.cases),
        };
        println!(
            "  {cases:<30}{:<16}{:>8.4}{:>8.4}{:>+12.4}  {:+.4} to {:+.4}",
            row.class, row.first, row.second, row.difference, row.interval.low, row.interval.high
        );
    }
}
