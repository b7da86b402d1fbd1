//! Runs side by side: what differs only by seed is one experiment, and experiments on the same data are compared.

use flapsam_model::method::Method;
use flapsam_model::sam::Sam;
use serde::Serialize;

use super::pictures::{Picture, Source, pictures};
use super::runs::RunFolder;
use crate::experiment::{Provenance, Record, Setting};
use crate::federation::RoundRecord;

/// Experiments on the same data.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Name of the data set.
    pub data: String,
    /// What it is, in its manifest's words.
    pub data_description: String,
    /// Whether it is synthetic.
    pub kind: DataKind,
    /// sha256 of its table of checksums.
    pub data_sha256: String,
    /// Its foreground classes.
    pub classes: Vec<String>,
    /// The experiments, in the order of the paper's table, clients alone last.
    pub experiments: Vec<Experiment>,
}

/// Where data come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// Made by a program.
    Synthetic,
    /// Made by a program on real anatomy.
    SemiSynthetic,
    /// Not called synthetic.
    Real,
}

/// Runs that differ only by seed.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// What it shows, in its own words.
    pub title: String,
    /// A short name; no two experiments of a comparison have the same.
    pub name: String,
    /// What was trained and sent.
    pub method: Method,
    /// With whom a client trained.
    pub setting: Setting,
    /// Only a part of the cases was used.
    pub partial: bool,
    /// Test cases.
    pub test_cases: usize,
    /// The seeds of its runs.
    pub seeds: Vec<u64>,
    /// Rounds of one local epoch each.
    pub rounds: usize,
    /// Its figures by foreground class.
    pub classes: Vec<ClassFigures>,
    /// Parameters trained.
    pub trained_parameters: usize,
    /// Bytes that the clients sent up in all rounds, mean over seeds.
    pub bytes_up: u64,
    /// How much less that is than full fine-tuning sends; none for clients alone, who send nothing.
    pub fewer: Option<Fewer>,
    /// Dice after each round that was judged, mean over seeds.
    pub curve: Vec<Point>,
    /// Its runs.
    pub runs: Vec<RunFolder>,
    /// The best and the worst cases of its first run, or why there are none.
    #[serde(skip)]
    pub pictures: Result<Vec<Picture>, String>,
}

/// An experiment's Dice of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub class: String,
    /// Mean over the test cases after the last round.
    pub dice: Spread,
    /// The same before training, mean over seeds.
    pub untrained: f64,
    /// How much higher it is than of the same method's clients alone, where such a run is there.
    pub gain_over_alone: Option<f64>,
}

/// A figure over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Its mean.
    pub mean: f64,
    /// Its sample standard deviation; none of a single seed.
    pub sd: Option<f64>,
}

/// How many times fewer bytes a method sends than full fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fewer {
    /// So many times.
    pub times: f64,
    /// Of bytes that travelled; otherwise of parameters, counted, since there is no run to compare with.
    pub measured: bool,
}

/// Dice after a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// From 1.
    pub round: usize,
    /// Bytes sent up so far.
    pub bytes_up: u64,
    /// By foreground class.
    pub dice: Vec<f64>,
}

impl Comparison {
    /// Puts runs side by side.
    pub fn of(runs: Vec<RunFolder>, source: &Source) -> Vec<Self> {
        let mut groups: Vec<Vec<RunFolder>> = Vec::new();
        for run in runs {
            // A repetition with the same seed tells nothing about the spread, so it stands by itself.
            let fits = |group: &&mut Vec<RunFolder>| {
                differ_only_by_seed(&group[0], &run) && group.iter().all(|other| other.record.seed != run.record.seed)
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        let mut comparisons: Vec<Self> = Vec::new();
        for mut group in groups {
            group.sort_by_key(|run| run.record.seed);
            let experiment = Experiment::of(group, source);
            match comparisons
                .iter_mut()
                .find(|comparison| comparison.covers(&experiment.runs[0]))
            {
                Some(comparison) => comparison.experiments.push(experiment),
                None => comparisons.push(Self::start(experiment)),
            }
        }
        comparisons.iter_mut().for_each(Self::relate);
        comparisons
    }

    fn start(experiment: Experiment) -> Self {
        let run = &experiment.runs[0];
        Self {
            data: run.record.data.clone(),
            data_description: run.record.data_description.clone(),
            kind: DataKind::of(&run.record.data_description),
            data_sha256: run.provenance.data_sha256.clone(),
            classes: run.record.classes[1..].to_vec(),
            experiments: vec![experiment],
        }
    }

    fn covers(&self, run: &RunFolder) -> bool {
        self.data == run.record.data
            && self.data_sha256 == run.provenance.data_sha256
            && self.data_description == run.record.data_description
            && self.classes == run.record.classes[1..]
    }

    /// What an experiment's figures are beside the others'.
    fn relate(&mut self) {
        let place = |experiment: &Experiment| {
            let method = Method::ALL.iter().position(|method| *method == experiment.method);
            (experiment.setting == Setting::Alone, method)
        };
        self.experiments.sort_by_key(place);
        let all = self.experiments.clone();
        for experiment in &mut self.experiments {
            experiment.relate(&all);
        }
    }
}

impl DataKind {
    /// What a manifest's description says.
    fn of(description: &str) -> Self {
        let description = description.to_lowercase();
        match description.contains("synthetic") {
            true if description.contains("semi-synthetic") => Self::SemiSynthetic,
            true => Self::Synthetic,
            false => Self::Real,
        }
    }
}

impl Experiment {
    fn of(runs: Vec<RunFolder>, source: &Source) -> Self {
        let record = &runs[0].record;
        let figures = |(place, class): (usize, &String)| ClassFigures {
            class: class.clone(),
            dice: Spread::of(runs.iter().map(|run| run.record.dice[place])),
            untrained: mean(runs.iter().map(|run| run.record.untrained_dice[place])),
            gain_over_alone: None,
        };
        let fewer = match record.setting {
            Setting::Federated => fewer_parameters(&runs[0]),
            Setting::Alone | Setting::Pooled => None,
        };
        Self {
            title: record.title.clone(),
            name: name(record),
            method: record.method,
            setting: record.setting,
            partial: record.partial,
            test_cases: record.cases.len(),
            seeds: runs.iter().map(|run| run.record.seed).collect(),
            rounds: record.rounds.len(),
            classes: record.classes[1..].iter().enumerate().map(figures).collect(),
            trained_parameters: record.trained_parameters,
            bytes_up: mean(runs.iter().map(|run| run.bytes_up() as f64)).round() as u64,
            fewer,
            curve: curve(&runs),
            pictures: pictures(&runs, source),
            runs,
        }
    }

    /// Mean over the foreground classes.
    pub fn mean_dice(&self) -> f64 {
        mean(self.classes.iter().map(|figures| figures.dice.mean))
    }

    /// The same before training.
    pub fn mean_untrained(&self) -> f64 {
        mean(self.classes.iter().map(|figures| figures.untrained))
    }

    /// Mean gain over clients alone, where such a run is there.
    pub fn mean_gain(&self) -> Option<f64> {
        let gains: Option<Vec<f64>> = self.classes.iter().map(|figures| figures.gain_over_alone).collect();
        gains.map(|gains| mean(gains.into_iter()))
    }

    fn relate(&mut self, all: &[Self]) {
        if all.iter().filter(|other| other.name == self.name).count() > 1 {
            self.name = format!("{} ({})", self.name, self.runs[0].name);
        }
        if self.setting == Setting::Alone {
            return;
        }
        let alone = only(all, |other| {
            other.setting == Setting::Alone && other.method == self.method && other.is_comparable(self)
        });
        if let Some(alone) = alone {
            for (figures, alone) in self.classes.iter_mut().zip(&alone.classes) {
                figures.gain_over_alone = Some(figures.dice.mean - alone.dice.mean);
            }
        }
        let full = only(all, |other| {
            other.setting == Setting::Federated && other.method == Method::FullFt && other.is_comparable(self)
        });
        if let Some(full) = full.filter(|_| self.bytes_up > 0) {
            self.fewer = Some(Fewer {
                times: full.bytes_up as f64 / self.bytes_up as f64,
                measured: true,
            });
        }
    }

    /// Whether both started from the same base and went through as many rounds of the same cases.
    fn is_comparable(&self, other: &Self) -> bool {
        let facts = |experiment: &Self| {
            let run = &experiment.runs[0];
            let base = run.provenance.base_sha256.clone();
            (base, experiment.rounds, experiment.partial, experiment.test_cases)
        };
        facts(self) == facts(other)
    }
}

impl Spread {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let (count, mean) = (values.len() as f64, mean(values.clone()));
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        Self {
            mean,
            sd: (count > 1.0).then(|| (squares / (count - 1.0)).sqrt()),
        }
    }
}

/// The one that is wanted; with several, none: nothing says which.
fn only(all: &[Experiment], wanted: impl Fn(&Experiment) -> bool) -> Option<&Experiment> {
    let mut found = all.iter().filter(|experiment| wanted(experiment));
    found.next().filter(|_| found.next().is_none())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn name(record: &Record) -> String {
    let method = match record.method {
        Method::FullFt => "Full fine-tuning",
        Method::AttentionFt => "Attention",
        Method::DecoderFt => "Decoder",
        Method::PartialDecoderFt => "Decoder heads",
        Method::LoraFt => "LoRA",
        Method::FlapSam => "FLAP-SAM",
        Method::LoraDecoderFt => "LoRA + decoder",
    };
    match record.setting {
        Setting::Federated => method.to_owned(),
        Setting::Alone => format!("{method}, alone"),
        Setting::Pooled => format!("{method}, pooled"),
    }
}

fn differ_only_by_seed(one: &RunFolder, other: &RunFolder) -> bool {
    let facts = |run: &RunFolder| {
        let provenance = Provenance {
            seed: 0,
            // It holds the seed.
            fingerprint: String::new(),
            ..run.provenance.clone()
        };
        let record = &run.record;
        let data = (
            record.data.clone(),
            record.data_description.clone(),
            record.classes.clone(),
        );
        let cases: Vec<&String> = record.cases.iter().map(|case| &case.case).collect();
        (
            record.title.clone(),
            record.method,
            record.setting,
            record.partial,
            data,
            provenance,
            cases.len(),
        )
    };
    facts(one) == facts(other) && without_seed(&one.config) == without_seed(&other.config)
}

/// An experiment file without its seeds.
fn without_seed(config: &str) -> Result<toml::Table, &str> {
    let mut table: toml::Table = config.parse().map_err(|_| config)?;
    table.retain(|key, _| key != "seed" && key != "seeds");
    Ok(table)
}

/// By the count of parameters, from what the adapter says of its network.
fn fewer_parameters(run: &RunFolder) -> Option<Fewer> {
    let metadata = run.adapter.as_ref().ok()?;
    let layout = Sam::layout(&metadata.sam, Some(&metadata.adapter)).ok()?;
    let full = Method::FullFt.trained(&layout);
    let full: usize = full.iter().map(|key| layout[key].count()).sum();
    (run.record.trained_parameters > 0).then(|| Fewer {
        times: full as f64 / run.record.trained_parameters as f64,
        measured: false,
    })
}

/// Dice over rounds and bytes, where every seed was judged.
fn curve(runs: &[RunFolder]) -> Vec<Point> {
    let point = |(place, round): (usize, &RoundRecord)| {
        let dice: Option<Vec<&Vec<f64>>> = runs
            .iter()
            .map(|run| run.record.rounds.get(place)?.dice.as_ref())
            .collect();
        let dice = dice?;
        let up = |run: &RunFolder| {
            run.record.rounds[..=place]
                .iter()
                .map(|round| round.traffic.up as f64)
                .sum()
        };
        Some(Point {
            round: round.round,
            bytes_up: mean(runs.iter().map(up)).round() as u64,
            dice: (0..dice[0].len())
                .map(|class| mean(dice.iter().map(|of_run| of_run[class])))
                .collect(),
        })
    };
    runs[0].record.rounds.iter().enumerate().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_data_are_known_by_their_description() {
        let kind = DataKind::of;
        assert_eq!(kind("Synthetic: procedural abdominal CT."), DataKind::Synthetic);
        assert_eq!(
            kind("Semi-synthetic: painted on real label maps."),
            DataKind::SemiSynthetic
        );
        assert_eq!(kind("Fed-KiTS19: abdominal CT."), DataKind::Real);
    }

    #[test]
    fn a_spread_needs_two_values() {
        assert_eq!(Spread::of([0.5].into_iter()), Spread { mean: 0.5, sd: None });
        let two = Spread::of([0.25, 0.75].into_iter());
        assert_eq!(two.mean, 0.5);
        assert!((two.sd.unwrap() - 0.125f64.sqrt()).abs() < 1e-12, "{two:?}");
    }

    #[test]
    fn seeds_in_an_experiment_file_make_no_difference() {
        assert_eq!(
            without_seed("seeds = [1]\nrank = 4"),
            without_seed("rank = 4 # four\nseed = 2")
        );
        assert_ne!(
            without_seed("seeds = [1]\nrank = 4"),
            without_seed("seeds = [1]\nrank = 8")
        );
        assert_eq!(without_seed("no TOML"), Err("no TOML"));
    }
}
