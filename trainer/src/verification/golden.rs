//! Golden figures: what a run printed when it was accepted, as insta snapshots.
//!
//! A snapshot's content has one figure a line: `name = value`, with `within tolerance` behind a figure that rounding
//! may move. `cargo insta review` accepts a change; nothing in this program ever does.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record};
use crate::files::read;
use crate::verification::statistics::{mean, standard_deviation};

// Training carries a difference of rounding, as between processors of two kinds, into the Dice. To see how far, the quick
// suite's flap_sam was run, on the first base, with a base learning rate larger by one part in ten million (again on the
// present base for the LoRA error only); the figures moved as said below,
// and each tolerance with such a figure is two to four times that. Between the two x86-64 processors that were tried, one
// with AVX-512 and an emulated one without, nothing moved: their runs were equal to the byte.

/// Mean Dice over all test cases: moved by 0.0042.
const DICE_TOLERANCE: f64 = 0.015;
/// Mean Dice over one site's few test cases: moved by up to 0.0235. For one client's model it was not measured.
const PART_TOLERANCE: f64 = 0.05;
/// Dice before any training, where only the forward pass rounds: a bound, not measured.
const UNTRAINED_TOLERANCE: f64 = 0.001;
/// Loss and norm of the first round: moved by 0.0001.
const FIRST_ROUND_TOLERANCE: f64 = 0.0004;
/// How far the first round's LoRA pairs are from the exact mean: moved by 0.0000033.
const LORA_ERROR_TOLERANCE: f64 = 0.00001;

/// Half of the last digit that a snapshot shows.
const HALF_DIGIT: f64 = 5e-7;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// A count or a checksum: equal or not.
    Exact(String),
    /// A measurement.
    Measured {
        /// Its value.
        value: f64,
        /// How far it may lie from the golden one.
        within: f64,
    },
}

/// Figures by name.
pub type Figures = BTreeMap<String, Figure>;

/// The figures of a run.
pub fn figures(record: &Record, provenance: &Provenance) -> Figures {
    let mut figures = Figures::new();
    let exact = |text: &dyn std::fmt::Display| Figure::Exact(text.to_string());
    figures.insert("base_sha256".into(), exact(&provenance.base_sha256));
    figures.insert("data_sha256".into(), exact(&provenance.data_sha256));
    figures.insert("trained_parameters".into(), exact(&record.trained_parameters));
    let up: u64 = record.rounds.iter().map(|round| round.traffic.up).sum();
    let down: u64 = record.rounds.iter().map(|round| round.traffic.down).sum();
    figures.insert("bytes_up".into(), exact(&up));
    figures.insert("bytes_down".into(), exact(&down));
    let measured = |value: f64, within: f64| Figure::Measured { value, within };
    for (site, weight) in &record.weights {
        figures.insert(format!("weight.{site}"), measured(*weight, 1e-6));
    }
    let foreground = &record.classes[1.min(record.classes.len())..];
    let mut dice = |name: &str, values: &[f64], within: f64| {
        for (class, value) in foreground.iter().zip(values) {
            figures.insert(format!("{name}.{class}"), measured(*value, within));
        }
    };
    dice("dice", &record.dice, DICE_TOLERANCE);
    dice("untrained_dice", &record.untrained_dice, UNTRAINED_TOLERANCE);
    for (site, values) in &record.dice_by_site {
        dice(&format!("dice.site_{site}"), values, PART_TOLERANCE);
    }
    for (site, values) in &record.alone {
        dice(&format!("dice.client_{site}_alone"), values, PART_TOLERANCE);
    }
    if let Some(first) = record.rounds.first() {
        for (site, loss) in &first.loss {
            figures.insert(format!("round_1.loss.{site}"), measured(*loss, FIRST_ROUND_TOLERANCE));
        }
        if let Some(norm) = first.global_norm {
            figures.insert("round_1.global_norm".into(), measured(norm, FIRST_ROUND_TOLERANCE));
        }
        if let Some(error) = first.lora_error {
            figures.insert("round_1.lora_error".into(), measured(error, LORA_ERROR_TOLERANCE));
        }
    }
    figures
}

/// The figures of runs that differ in their seed: all of the first one's, the others' Dice, and how far the seeds lie
/// apart.
pub fn figures_of_seeds(runs: &[(Record, Provenance)]) -> Figures {
    let mut all = Figures::new();
    let Some(((first, provenance), others)) = runs.split_first() else {
        return all;
    };
    all.extend(figures(first, provenance));
    if others.is_empty() {
        return all;
    }
    let foreground = &first.classes[1.min(first.classes.len())..];
    for (place, class) in foreground.iter().enumerate() {
        let measured = |value: f64| Figure::Measured {
            value,
            within: DICE_TOLERANCE,
        };
        for (record, _) in others {
            let name = format!("seed_{}.dice.{class}", record.seed);
            all.insert(name, measured(record.dice[place]));
        }
        let values: Vec<f64> = runs.iter().map(|(record, _)| record.dice[place]).collect();
        if let (Some(mean), Some(deviation)) = (mean(&values), standard_deviation(&values)) {
            all.insert(format!("seeds.dice.{class}.mean"), measured(mean));
            all.insert(format!("seeds.dice.{class}.sd"), measured(deviation));
        }
    }
    all
}

/// The figures as a snapshot's content.
pub fn to_text(figures: &Figures) -> String {
    let widest = figures.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, figure): (&String, &Figure)| match figure {
        Figure::Exact(text) => format!("{name:<widest$} = {text}\n"),
        Figure::Measured { value, within } => format!("{name:<widest$} = {value:.6} within {within}\n"),
    };
    figures.iter().map(line).collect()
}

/// Reads a snapshot file.
///
/// # Errors
/// It cannot be read, or a line is no figure.
pub fn read_snapshot(path: &Path) -> Result<Figures> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    // insta writes its own notes first, between two lines of dashes.
    let content = text.splitn(3, "---\n").nth(2).unwrap_or(&text);
    let figure = |line: &str| {
        let parsed = line.split_once('=').and_then(|(name, value)| {
            let value = value.trim();
            let figure = match value.split_once(" within ") {
                None => Figure::Exact(value.into()),
                Some((value, within)) => Figure::Measured {
                    value: value.trim().parse().ok()?,
                    within: within.trim().parse().ok()?,
                },
            };
            Some((name.trim().to_owned(), figure))
        });
        parsed.ok_or_else(|| {
            Error::invalid(
                path,
                format!("'{line}' is no figure; restore the snapshot from the repository"),
            )
        })
    };
    content
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(figure)
        .collect()
}

/// One figure beside its golden one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which figure.
    pub figure: String,
    /// The golden one; `None` when there is none.
    pub golden: Option<Figure>,
    /// This run's; `None` when it has none.
    pub got: Option<Figure>,
    /// Got less golden, of measurements.
    pub difference: Option<f64>,
    /// Whether it holds.
    pub passed: bool,
}

impl Row {
    /// Whether the two sides differ at all, as far as a snapshot can show it.
    pub fn moved(&self) -> bool {
        !self.passed || self.difference.is_some_and(|difference| difference.abs() > HALF_DIGIT)
    }
}

/// Compares figure by figure. One that only one side has does not hold. Tolerances are the golden side's.
pub fn compare(golden: &Figures, got: &Figures) -> Vec<Row> {
    let mut names: Vec<&String> = golden.keys().chain(got.keys()).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let (golden, got) = (golden.get(name).cloned(), got.get(name).cloned());
        let (difference, passed) = match (&golden, &got) {
            (Some(Figure::Exact(golden)), Some(Figure::Exact(got))) => (None, golden == got),
            (Some(Figure::Measured { value: golden, within }), Some(Figure::Measured { value: got, .. })) => {
                let difference = got - golden;
                (Some(difference), difference.abs() <= within + HALF_DIGIT)
            }
            _ => (None, false),
        };
        Row {
            figure: name.clone(),
            golden,
            got,
            difference,
            passed,
        }
    };
    names.into_iter().map(row).collect()
}
