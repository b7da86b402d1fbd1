//! Golden figures: what a run printed when it was accepted, as insta snapshots.
//!
//! A snapshot's content has one figure a line: `name = value`, with `within tolerance` behind a figure that rounding
//! may move. `cargo insta review` accepts a change; nothing in this program ever does.

use std::collections::BTreeMap;
use std::path::Path;

use flapsam_model::method::Method;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record};
use crate::federation::Rounding;
use crate::files::read;
use crate::verification::statistics::{mean, standard_deviation};

/// How far figures of other devices than the CPU may lie from the golden ones, which are the CPU's.
///
/// Training carries a difference of rounding into the Dice. To see how far, the quick suite was run with a base learning
/// rate larger by one part in ten million; each tolerance is two to four times what the figures moved by, which is said
/// beside it.
struct Tolerances {
    dice: f64,
    /// Of the few test cases of one site, or of one client's model.
    part_dice: f64,
    surface_dice: f64,
    hausdorff_mm: f64,
    first_loss: f64,
    first_norm: f64,
    last_loss: f64,
    last_norm: f64,
}

/// Of methods that train a small part of the network: measured with FLAP-SAM, together and alone.
const OF_A_PART: Tolerances = Tolerances {
    dice: 0.03,          // 0.011
    part_dice: 0.11,     // 0.054
    surface_dice: 0.015, // 0.0056
    hausdorff_mm: 8.0,   // 3.0
    first_loss: 0.0004,  // 0.0001
    first_norm: 0.0004,  // 0.0001
    last_loss: 0.03,     // 0.013
    last_norm: 0.2,      // 0.078
};

/// Of full fine-tuning, whose first step moves the whole network. Its tumour figures moved farther: volumes without tumour
/// count 1 or 0, and four of 22 changed sides. They are held as closely as the others, so may fail where others pass.
const OF_THE_WHOLE: Tolerances = Tolerances {
    first_loss: 0.002, // 0.0006
    first_norm: 0.006, // 0.0016
    ..OF_A_PART
};

/// Dice before any training, where only the forward pass rounds: a bound, not measured.
const UNTRAINED_TOLERANCE: f64 = 0.001;
/// How far the first round's LoRA pairs are from the exact mean: moved by 0.000003.
const FIRST_LORA_ERROR_TOLERANCE: f64 = 0.00001;
/// The same of the last round's: moved by 0.00011.
const LAST_LORA_ERROR_TOLERANCE: f64 = 0.0004;

/// What rounding takes from messages, as a share of the figure: a bound, not measured.
const ROUNDING_TOLERANCE: f64 = 0.1;

fn tolerances(method: Method) -> &'static Tolerances {
    match method {
        Method::FullFt => &OF_THE_WHOLE,
        _ => &OF_A_PART,
    }
}

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

/// The seed that a run's figures are of; of several runs, the first one's.
const SEED: &str = "seed";

/// Figures by name.
pub type Figures = BTreeMap<String, Figure>;

/// The figures of a run.
pub fn figures(record: &Record, provenance: &Provenance) -> Figures {
    let mut figures = Figures::new();
    let tolerances = tolerances(record.method);
    let exact = |text: &dyn std::fmt::Display| Figure::Exact(text.to_string());
    figures.insert("base_sha256".into(), exact(&provenance.base_sha256));
    figures.insert("data_sha256".into(), exact(&provenance.data_sha256));
    figures.insert(SEED.into(), exact(&record.seed));
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
    dice("dice", &record.dice, tolerances.dice);
    dice("untrained_dice", &record.untrained_dice, UNTRAINED_TOLERANCE);
    dice("surface_dice", &record.surface_dice, tolerances.surface_dice);
    for (site, values) in &record.dice_by_site {
        dice(&format!("dice.site_{site}"), values, tolerances.part_dice);
    }
    for (site, values) in &record.alone {
        dice(&format!("dice.client_{site}_alone"), values, tolerances.part_dice);
    }
    for (class, distance) in foreground.iter().zip(&record.hausdorff_95_mm) {
        // None where no case has a distance: then the figure is missing, on both sides.
        if let Some(distance) = distance {
            let figure = measured(*distance, tolerances.hausdorff_mm);
            figures.insert(format!("hausdorff_95_mm.{class}"), figure);
        }
    }
    if let Some(first) = record.rounds.first() {
        for (site, loss) in &first.loss {
            figures.insert(format!("round_1.loss.{site}"), measured(*loss, tolerances.first_loss));
        }
        if let Some(norm) = first.global_norm {
            figures.insert("round_1.global_norm".into(), measured(norm, tolerances.first_norm));
        }
        if let Some(error) = first.lora_error {
            figures.insert("round_1.lora_error".into(), measured(error, FIRST_LORA_ERROR_TOLERANCE));
        }
        rounding("round_1", first.rounding, &mut figures);
    }
    if let Some(last) = record.rounds.last().filter(|last| last.round > 1) {
        for (site, loss) in &last.loss {
            figures.insert(format!("last_round.loss.{site}"), measured(*loss, tolerances.last_loss));
        }
        if let Some(norm) = last.global_norm {
            figures.insert("last_round.global_norm".into(), measured(norm, tolerances.last_norm));
        }
        if let Some(error) = last.lora_error {
            let figure = measured(error, LAST_LORA_ERROR_TOLERANCE);
            figures.insert("last_round.lora_error".into(), figure);
        }
        rounding("last_round", last.rounding, &mut figures);
    }
    figures
}

/// What rounding took from a round's messages.
fn rounding(round: &str, rounding: Option<Rounding>, figures: &mut Figures) {
    for (direction, value) in rounding
        .iter()
        .flat_map(|share| [("up", share.up), ("down", share.down)])
    {
        let within = ROUNDING_TOLERANCE * value;
        figures.insert(
            format!("{round}.rounding_{direction}"),
            Figure::Measured { value, within },
        );
    }
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
            within: tolerances(first.method).dice,
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

/// Of golden figures that may be of several seeds, leaves those of one; and of a run with that seed, where the golden ones
/// are first of another, those that there are golden ones for.
pub fn keep_seed(seed: u64, golden: &mut Figures, run: &mut Figures) {
    let prefix = format!("seed_{seed}.");
    let of_several = |name: &str| name.starts_with("seed_") || name.starts_with("seeds.");
    let is_first = golden
        .get(SEED)
        .is_none_or(|first| *first == Figure::Exact(seed.to_string()));
    if is_first {
        golden.retain(|name, _| !of_several(name));
        return;
    }
    // Of seeds after the first there are Dice, and what no seed changes.
    let figure = |(name, figure): (&String, &Figure)| {
        let own = name.strip_prefix(&prefix).map(str::to_owned);
        let counted = matches!(figure, Figure::Exact(_)) && name != SEED && !of_several(name);
        let name = own.or_else(|| counted.then(|| name.clone()))?;
        Some((name, figure.clone()))
    };
    *golden = golden.iter().filter_map(figure).collect();
    run.retain(|name, _| golden.contains_key(name));
}

/// A measurement as snapshots show it.
fn shown(value: f64) -> String {
    format!("{value:.6}")
}

/// The figures as a snapshot's content.
pub fn to_text(figures: &Figures) -> String {
    let widest = figures.keys().map(String::len).max().unwrap_or(0);
    let line = |(name, figure): (&String, &Figure)| match figure {
        Figure::Exact(text) => format!("{name:<widest$} = {text}\n"),
        Figure::Measured { value, within } => format!("{name:<widest$} = {} within {within}\n", shown(*value)),
    };
    figures.iter().map(line).collect()
}

/// What a snapshot file holds, without insta's own notes.
///
/// # Errors
/// It cannot be read.
pub fn snapshot_content(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    // They come first, between two lines of dashes.
    Ok(text.splitn(3, "---\n").nth(2).unwrap_or(&text).to_owned())
}

/// Reads a snapshot file of figures.
///
/// # Errors
/// It cannot be read, or a line is no figure.
pub fn read_snapshot(path: &Path) -> Result<Figures> {
    let content = snapshot_content(path)?;
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

/// How closely measurements must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closeness {
    /// To the last digit that a snapshot shows: both sides are the CPU's, whose bits are the same everywhere.
    Exact,
    /// Within the golden side's tolerances.
    Tolerant,
}

/// Compares figure by figure. One that only one side has does not hold.
pub fn compare(golden: &Figures, got: &Figures, closeness: Closeness) -> Vec<Row> {
    let mut names: Vec<&String> = golden.keys().chain(got.keys()).collect();
    names.sort();
    names.dedup();
    let row = |name: &String| {
        let (golden, got) = (golden.get(name).cloned(), got.get(name).cloned());
        let (difference, passed) = match (&golden, &got) {
            (Some(Figure::Exact(golden)), Some(Figure::Exact(got))) => (None, golden == got),
            (Some(Figure::Measured { value: golden, within }), Some(Figure::Measured { value: got, .. })) => {
                let difference = got - golden;
                let passed = match closeness {
                    Closeness::Exact => shown(*golden) == shown(*got),
                    Closeness::Tolerant => difference.abs() <= within + HALF_DIGIT,
                };
                (Some(difference), passed)
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
