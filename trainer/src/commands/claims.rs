use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::{Outcome, print_json};
use crate::error::Result;
use crate::verification::claims::ours::OursJudged;
use crate::verification::claims::{Claims, Judged, Missing, NotCounted, Paper, Runs, Sign};

/// Where runs are looked for if the command line does not say.
const RUNS: &str = "runs";

/// Claims and their verdicts.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each claim of the paper's.
    pub claims: Vec<Judged>,
    /// One for each claim of ours.
    pub ours: Vec<OursJudged>,
    /// The runs that no claim is judged by.
    pub not_counted: Vec<NotCounted>,
}

/// Judges the claims in a file by the runs below a folder, and prints the verdicts. A claim that is not reproduced is a
/// finding, not a failure.
pub fn run(file: &Path, runs: Option<&Path>, json: bool) -> Result<Outcome> {
    let report = report(file, runs)?;
    match json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::Passed)
}

/// Judges the claims in a file by the runs below a folder.
pub fn report(file: &Path, runs: Option<&Path>) -> Result<Report> {
    let claims = Claims::read(file)?;
    let runs = match runs {
        Some(folder) => Runs::find(folder, &claims)?,
        None if Path::new(RUNS).is_dir() => Runs::find(Path::new(RUNS), &claims)?,
        None => Runs::default(),
    };
    Ok(Report {
        claims: claims.judge(&runs)?,
        ours: claims.judge_ours(&runs)?,
        not_counted: runs.not_counted,
    })
}

/// The verdicts as tables, one for each data set and one of ours, then what is missing.
pub fn print_report(report: &Report) {
    let mut data: Vec<&str> = Vec::new();
    for judged in &report.claims {
        if !data.contains(&&*judged.claim.data) {
            data.push(&judged.claim.data);
        }
    }
    for data in data {
        print_table(data, report.claims.iter().filter(|judged| judged.claim.data == data));
    }
    print_ours(&report.ours);
    let papers = report.claims.iter().flat_map(|judged| &judged.missing);
    let ours = report.ours.iter().flat_map(|judged| &judged.missing);
    let missing: BTreeSet<&Missing> = papers.chain(ours).collect();
    if !missing.is_empty() {
        println!("\nmissing");
    }
    for missing in missing {
        println!("  {}:\n    {}", missing.runs, missing.remedy);
    }
    if !report.not_counted.is_empty() {
        println!("\nnot counted");
    }
    let mut by_reason: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for run in &report.not_counted {
        by_reason.entry(&run.why).or_default().push(&run.folder);
    }
    for (why, folders) in by_reason {
        match folders[..] {
            [folder] => println!("  {}: {why}", folder.display()),
            _ => println!("  {} runs, such as {}: {why}", folders.len(), folders[0].display()),
        }
    }
}

fn print_table<'a>(data: &str, rows: impl Iterator<Item = &'a Judged>) {
    println!("\n{data}");
    println!(
        "  {:<24} {:<40}{:>8}{:>8}  verdict",
        "claim", "measure", "paper", "ours"
    );
    for judged in rows {
        let claim = &judged.claim;
        let paper = match claim.paper {
            Paper::Value(value) => format!("{value:.2}"),
            Paper::Sign(Sign::Above) => "above 0".into(),
        };
        let ours = judged.ours.map_or_else(String::new, |ours| format!("{ours:.2}"));
        println!(
            "  {:<24} {:<40}{paper:>8}{ours:>8}  {}",
            claim.id,
            claim.measure.describe(),
            judged.verdict.name()
        );
    }
}

/// The claims of ours, and below them what each verdict rests on.
fn print_ours(ours: &[OursJudged]) {
    let Some(first) = ours.first() else { return };
    println!(
        "\nclaims of ours, on {} with {}: none of the paper's",
        first.data, first.model
    );
    println!(
        "  {:<16} {:<34}{:>8}  {:<18} verdict",
        "claim", "measure", "points", "95 % interval"
    );
    for judged in ours {
        let claim = &judged.claim;
        let (difference, interval) = judged.evidence.as_ref().map_or_else(Default::default, |evidence| {
            let interval = evidence.interval;
            (
                format!("{:+.2}", evidence.difference),
                format!("{:+.2} to {:+.2}", interval.low, interval.high),
            )
        });
        println!(
            "  {:<16} {:<34}{difference:>8}  {interval:<18} {}",
            claim.id,
            claim.measure.describe(),
            judged.verdict.name()
        );
    }
    for judged in ours {
        for note in judged.notes() {
            println!("  {}: {note}", judged.claim.id);
        }
    }
}
