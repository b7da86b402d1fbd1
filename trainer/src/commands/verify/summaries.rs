//! A suite's experiments beside its FLAP-SAM.

use serde::Serialize;

use crate::experiment::{Record, Setting};
use crate::verification::statistics::{OverSeeds, Paired, case_differences, over_seeds, paired};
use crate::verification::suite::Planned;

/// The experiment that the others are held against.
const FLAP_SAM: &str = "flap_sam";

/// An experiment's Dice over its seeds, and how far it lies from the suite's FLAP-SAM.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    name: String,
    /// Dice of all test cases, by class.
    dice: Vec<OverSeeds>,
    /// Bytes that one run's clients sent.
    bytes_up: u64,
    /// Case by case in the first seed, by class: this experiment less FLAP-SAM.
    less_flap_sam: Vec<Paired>,
}

/// Experiments beside the suite's FLAP-SAM, where it has one.
pub(super) fn summaries(records: &[(&Planned, Vec<Record>)]) -> Vec<Summary> {
    let flap_sam = |planned: &Planned| {
        let of_suite = |(other, _): &&(&Planned, Vec<Record>)| {
            let experiment = &other.experiment;
            other.suite == planned.suite && experiment.name() == FLAP_SAM && experiment.setting == Setting::Federated
        };
        let found = records
            .iter()
            .find(of_suite)
            .filter(|(other, _)| other.name != planned.name);
        found.and_then(|(_, runs)| runs.first())
    };
    let summary = |(planned, runs): &(&Planned, Vec<Record>)| {
        let all = runs.first().map_or(String::new(), |run| {
            run.dice_rows().pop().map_or(String::new(), |(row, _)| row)
        });
        let differences = flap_sam(planned).and_then(|flap_sam| case_differences(flap_sam, runs.first()?));
        let of_all = |paired: &Paired| paired.site.is_none();
        Summary {
            name: planned.name.clone(),
            dice: over_seeds(runs).into_iter().filter(|row| row.row == all).collect(),
            bytes_up: runs
                .first()
                .map_or(0, |run| run.rounds.iter().map(|round| round.traffic.up).sum()),
            less_flap_sam: differences.map_or_else(Vec::new, |differences| {
                paired(&differences).into_iter().filter(of_all).collect()
            }),
        }
    };
    records.iter().map(summary).collect()
}

/// The summaries as a table.
pub(super) fn print_summaries(summaries: &[Summary]) {
    let Some(first) = summaries.first() else { return };
    println!("\nDice of all test cases; behind it the experiment less FLAP-SAM case by case, with its 95 % interval");
    let classes = first.dice.iter().map(|row| format!("{:<46}", row.class));
    println!(
        "  {:<36}{:>14}  {}",
        "experiment",
        "bytes up",
        classes.collect::<String>()
    );
    for summary in summaries {
        let cell = |row: &OverSeeds| {
            let deviation = row.standard_deviation.map_or(String::new(), |sd| format!(" ± {sd:.3}"));
            let less = summary.less_flap_sam.iter().find(|paired| paired.class == row.class);
            let less = less.map_or(String::new(), |paired| {
                let (low, high) = (paired.interval.low, paired.interval.high);
                format!("  {:+.3} ({low:+.3} to {high:+.3})", paired.difference)
            });
            format!("{:<46}", format!("{:.3}{deviation}{less}", row.mean))
        };
        let cells: String = summary.dice.iter().map(cell).collect();
        println!("  {:<36}{:>14}  {}", summary.name, summary.bytes_up, cells.trim_end());
    }
}
