//! Golden figures: what a run printed when it was accepted, as insta snapshots.
//!
//! A snapshot's content has one figure a line: `name = value`, with `within tolerance` behind a figure that rounding
//! may move. `cargo insta review` accepts a change; nothing in this program ever does.

use std::collections::BTreeMap;
use std::path::Path;

use flapsam_model::method::Method;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record, Setting};
use crate::federation::{RoundRecord, Rounding};
use crate::files::read;
use crate::verification::statistics::{mean, standard_deviation};

/// How far figures of other devices than the CPU may lie from the golden ones, which are the CPU's.
///
/// Training carries a difference of rounding into the Dice. To see how far, each experiment of the quick suite was run eight
/// times from a base whose every weight is, by chance, one bit larger, one bit smaller or as it was, which is how far two
/// devices may read it apart (`tests/python/tolerances.py`). The rule: a tolerance is twice the largest of the eight
/// movements, which stand beside it, in two digits rounded up. Where that holds nothing back, nothing can: such a
/// figure says less of the program than of chance.
struct Tolerances {
    dice: f64,
    /// Of the few test cases of one site, or of one client's model.
    part_dice: f64,
    surface_dice: f64,
    hausdorff_mm: f64,
    first_loss: f64,
    first_norm: f64,
    /// How far the first round's LoRA pairs are from the exact mean.
    first_lora_error: f64,
    last_loss: f64,
    last_norm: f64,
    last_lora_error: f64,
}

/// Of clients together that train a small part of the network: measured with FLAP-SAM.
const TOGETHER: Tolerances = Tolerances {
    dice: 0.0046,              // 0.002277
    part_dice: 0.015,          // 0.007154
    surface_dice: 0.013,       // 0.006313
    hausdorff_mm: 4.0,         // 1.982063
    first_loss: 0.000_075,     // 0.000037
    first_norm: 0.0024,        // 0.001167
    first_lora_error: 0.00005, // 0.000024
    last_loss: 0.0079,         // 0.003941
    last_norm: 0.29,           // 0.140204
    last_lora_error: 0.0006,   // 0.000297
};

/// Of clients alone, each with a sixth of the data: measured with FLAP-SAM. There is no average that calms them.
const ALONE: Tolerances = Tolerances {
    dice: 0.062,           // 0.030968
    part_dice: 0.27,       // 0.133079
    surface_dice: 0.055,   // 0.027189
    hausdorff_mm: 22.0,    // 10.634041
    first_loss: 0.000_075, // 0.000037
    last_loss: 0.4,        // 0.198725
    ..TOGETHER
};

/// Of full fine-tuning, whose first step moves the whole network. Volumes without tumour count 1 or 0, and some change
/// sides: its tumour figures hold nothing.
const OF_THE_WHOLE: Tolerances = Tolerances {
    dice: 0.45,         // 0.223550
    part_dice: 1.0,     // 0.500000
    surface_dice: 0.43, // 0.210021
    hausdorff_mm: 41.0, // 20.388254
    first_loss: 0.0035, // 0.001731
    first_norm: 0.013,  // 0.006467
    last_loss: 0.056,   // 0.027927
    last_norm: 0.17,    // 0.083279
    ..TOGETHER
};

/// Dice before any training, where only the forward pass rounds: a bound, not measured.
const UNTRAINED_TOLERANCE: f64 = 0.001;
/// What rounding takes from messages, as a share of the figure: a bound, not measured.
const ROUNDING_TOLERANCE: f64 = 0.1;

fn tolerances(record: &Record) -> &'static Tolerances {
    match (record.method, record.setting) {
        (Method::FullFt, _) => &OF_THE_WHOLE,
        (_, Setting::Alone) => &ALONE,
        (_, Setting::Federated | Setting::Pooled) => &TOGETHER,
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
    let tolerances = tolerances(record);
    let mut figures = counts(record, provenance);
    let weights = record.weights.iter();
    figures.extend(weights.map(|(site, weight)| (format!("weight.{site}"), measured(*weight, 1e-6))));
    scores(record, tolerances, &mut figures);
    if let Some(first) = record.rounds.first() {
        let within = [
            tolerances.first_loss,
            tolerances.first_norm,
            tolerances.first_lora_error,
        ];
        of_round("round_1", first, within, &mut figures);
    }
    if let Some(last) = record.rounds.last().filter(|last| last.round > 1) {
        let within = [tolerances.last_loss, tolerances.last_norm, tolerances.last_lora_error];
        of_round("last_round", last, within, &mut figures);
        if let Some(epsilon) = last.epsilon {
            // A formula of the settings.
            figures.insert("last_round.epsilon".into(), measured(epsilon, 1e-9 * epsilon));
        }
    }
    figures
}

fn measured(value: f64, within: f64) -> Figure {
    Figure::Measured { value, within }
}

/// What a run started from, and what it counted.
fn counts(record: &Record, provenance: &Provenance) -> Figures {
    let up: u64 = record.rounds.iter().map(|round| round.traffic.up).sum();
    let down: u64 = record.rounds.iter().map(|round| round.traffic.down).sum();
    let exact = [
        ("base_sha256", provenance.base_sha256.clone()),
        ("data_sha256", provenance.data_sha256.clone()),
        (SEED, record.seed.to_string()),
        ("trained_parameters", record.trained_parameters.to_string()),
        ("bytes_up", up.to_string()),
        ("bytes_down", down.to_string()),
    ];
    let exact = exact.into_iter();
    exact.map(|(name, text)| (name.into(), Figure::Exact(text))).collect()
}

/// What the masks came to, by class.
fn scores(record: &Record, tolerances: &Tolerances, figures: &mut Figures) {
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
}

/// The figures of a round, with tolerances of its losses, its norm and the error of its average.
fn of_round(name: &str, round: &RoundRecord, within: [f64; 3], figures: &mut Figures) {
    let [of_loss, of_norm, of_lora_error] = within;
    for (site, loss) in &round.loss {
        figures.insert(format!("{name}.loss.{site}"), measured(*loss, of_loss));
    }
    if let Some(norm) = round.global_norm {
        figures.insert(format!("{name}.global_norm"), measured(norm, of_norm));
    }
    if let Some(error) = round.lora_error {
        figures.insert(format!("{name}.lora_error"), measured(error, of_lora_error));
    }
    rounding(name, round.rounding, figures);
}

/// What rounding took from a round's messages.
fn rounding(round: &str, rounding: Option<Rounding>, figures: &mut Figures) {
    for (direction, value) in rounding
        .iter()
        .flat_map(|share| [("up", share.up), ("down", share.down)])
    {
        let within = ROUNDING_TOLERANCE * value;
        figures.insert(format!("{round}.rounding_{direction}"), measured(value, within));
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
            within: tolerances(first).dice,
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
        // A site's name may hold anything.
        let parsed = line.rsplit_once(" = ").and_then(|(name, value)| {
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
