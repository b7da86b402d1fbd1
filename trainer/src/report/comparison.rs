//! Runs side by side: what differs only by seed is one experiment, and experiments on the same data are compared.

use flapsam_model::method::Method;
use flapsam_model::sam::Sam;
use serde::Serialize;

use super::pictures::{Picture, Source, pictures};
use super::runs::RunFolder;
use super::sites::{LeftOutSites, SiteBySite};
use super::variant::Departure;
use crate::experiment::{Provenance, Setting};
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
    /// The experiments: methods in the order of the paper's table, variants, those without a site, clients alone.
    pub experiments: Vec<Experiment>,
    /// Every model on every site's test cases.
    pub site_by_site: Vec<SiteBySite>,
    /// What becomes of a site that is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out_sites: Vec<LeftOutSites>,
}

/// What experiments are shown together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A method as the paper has it.
    Method,
    /// A method with something else.
    Variant,
    /// Either without one of the sites.
    LeftOut,
    /// Each client by itself.
    Alone,
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
    /// What it does otherwise than the method by itself.
    pub departures: Vec<Departure>,
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
    /// The tolerance of its surface Dice, mm.
    pub surface_tolerance_mm: f64,
    /// How far the last round's averaged LoRA pairs are from the mean of the clients' products, as a share of its norm;
    /// mean over seeds.
    pub lora_error: Option<f64>,
    /// The epsilon that its clients have spent at most; none without noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Parameters trained.
    pub trained_parameters: usize,
    /// Bytes that the clients sent up in all rounds, mean over seeds.
    pub bytes_up: u64,
    /// Bytes that the server sent down to them in all rounds, mean over seeds.
    pub bytes_down: u64,
    /// How much less that is than full fine-tuning sends; none for clients alone, who send nothing.
    pub fewer: Option<Fewer>,
    /// Dice after each round that was judged, mean over seeds.
    pub curve: Vec<Point>,
    /// Its runs.
    pub runs: Vec<RunFolder>,
    /// Of the comparison's example: the best and the worst cases of its first run, or why there are none.
    #[serde(skip)]
    pub pictures: Option<Result<Vec<Picture>, String>>,
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
    /// Of a method: how much higher it is than of its clients alone, where such a run is there.
    pub gain_over_alone: Option<f64>,
    /// Of a variant: how much higher it is than of the method by itself at the same seeds, where such a run is there.
    pub gain_over_method: Option<f64>,
    /// How well the surfaces agree, where that was measured.
    pub surface: Option<SurfaceFigures>,
}

/// An experiment's surface scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurfaceFigures {
    /// Surface Dice, mean over the test cases.
    pub dice: Spread,
    /// 95 % Hausdorff distance, mm: the mean over the test cases that have one, of all seeds.
    pub hausdorff_95_mm: Option<f64>,
    /// How many those are.
    pub hausdorff_95_cases: usize,
    /// Of how many.
    pub cases: usize,
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
            let experiment = Experiment::of(group);
            match comparisons
                .iter_mut()
                .find(|comparison| comparison.covers(&experiment.runs[0]))
            {
                Some(comparison) => comparison.experiments.push(experiment),
                None => comparisons.push(Self::start(experiment)),
            }
        }
        for comparison in &mut comparisons {
            comparison.relate();
            comparison.site_by_site = SiteBySite::all(&comparison.experiments);
            comparison.left_out_sites = LeftOutSites::all(&comparison.experiments);
            let example = comparison.example();
            let example = &mut comparison.experiments[example];
            example.pictures = Some(pictures(&example.runs, source));
        }
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
            site_by_site: Vec::new(),
            left_out_sites: Vec::new(),
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
            (experiment.group(), method, experiment.departures.clone())
        };
        self.experiments.sort_by_key(place);
        let all = self.experiments.clone();
        for experiment in &mut self.experiments {
            experiment.relate(&all);
        }
    }

    /// The experiments that are shown together.
    pub fn group(&self, group: Group) -> impl Iterator<Item = &Experiment> + Clone {
        let experiments = self.experiments.iter();
        experiments.filter(move |experiment| experiment.group() == group)
    }

    /// Which experiment stands for all where there is room for one only: FLAP-SAM, otherwise the first.
    pub fn example(&self) -> usize {
        let is_flap_sam =
            |experiment: &Experiment| experiment.method == Method::FlapSam && experiment.group() == Group::Method;
        self.experiments.iter().position(is_flap_sam).unwrap_or(0)
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

    /// In the middle of a sentence.
    pub fn words(self) -> &'static str {
        match self {
            DataKind::Synthetic => "synthetic data",
            DataKind::SemiSynthetic => "semi-synthetic data",
            DataKind::Real => "real data",
        }
    }
}

impl Experiment {
    fn of(runs: Vec<RunFolder>) -> Self {
        let record = &runs[0].record;
        let figures = |(place, class): (usize, &String)| ClassFigures {
            class: class.clone(),
            dice: Spread::of(runs.iter().map(|run| run.record.dice[place])),
            untrained: mean(runs.iter().map(|run| run.record.untrained_dice[place])),
            gain_over_alone: None,
            gain_over_method: None,
            surface: surface(&runs, place),
        };
        let departures = Departure::of(&runs[0].settings);
        // What is sent in another way cannot be counted by parameters.
        let plain = record.setting == Setting::Federated && departures.is_empty();
        let fewer = if plain { fewer_parameters(&runs[0]) } else { None };
        Self {
            title: record.title.clone(),
            name: name(record.method, record.setting, &departures),
            method: record.method,
            setting: record.setting,
            departures,
            partial: record.partial,
            test_cases: record.cases.len(),
            seeds: runs.iter().map(|run| run.record.seed).collect(),
            rounds: record.rounds.len(),
            classes: record.classes[1..].iter().enumerate().map(figures).collect(),
            surface_tolerance_mm: record.surface_tolerance_mm,
            lora_error: lora_error(&runs),
            epsilon: runs
                .iter()
                .filter_map(|run| run.record.rounds.last()?.epsilon)
                .reduce(f64::max),
            trained_parameters: record.trained_parameters,
            bytes_up: mean(runs.iter().map(|run| run.bytes_up() as f64)).round() as u64,
            bytes_down: mean(runs.iter().map(|run| run.bytes_down() as f64)).round() as u64,
            fewer,
            curve: curve(&runs),
            pictures: None,
            runs,
        }
    }

    /// Where it is shown.
    pub fn group(&self) -> Group {
        match self.setting {
            Setting::Alone => Group::Alone,
            _ if self.runs[0].settings.leave_out.is_some() => Group::LeftOut,
            _ if self.departures.is_empty() => Group::Method,
            _ => Group::Variant,
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

    /// Mean gain over the method by itself, where such a run is there.
    pub fn mean_gain_over_method(&self) -> Option<f64> {
        let gains: Option<Vec<f64>> = self.classes.iter().map(|figures| figures.gain_over_method).collect();
        gains.map(|gains| mean(gains.into_iter()))
    }

    /// Whether it was judged on the way, so that there is a line to draw.
    pub fn has_curve(&self) -> bool {
        self.curve.len() > 1
    }

    fn relate(&mut self, all: &[Self]) {
        if all.iter().filter(|other| other.name == self.name).count() > 1 {
            self.name = format!("{} ({})", self.name, self.runs[0].name);
        }
        let of_method = |method: Method, group: Group| {
            let wanted = |other: &Self| other.method == method && other.group() == group && other.is_comparable(self);
            only(all, wanted)
        };
        let (over_alone, over_method) = match self.group() {
            Group::Method => (of_method(self.method, Group::Alone).map(|alone| self.less(alone)), None),
            Group::Variant => {
                let method = of_method(self.method, Group::Method);
                (None, method.map(|method| self.less_seed_by_seed(method)))
            }
            Group::LeftOut | Group::Alone => (None, None),
        };
        let full = of_method(Method::FullFt, Group::Method);
        for (class, figures) in self.classes.iter_mut().enumerate() {
            figures.gain_over_alone = over_alone.as_ref().map(|gains| gains[class]);
            figures.gain_over_method = over_method.as_ref().map(|gains| gains[class]);
        }
        if let Some(full) = full.filter(|_| self.bytes_up > 0) {
            self.fewer = Some(Fewer {
                times: full.bytes_up as f64 / self.bytes_up as f64,
                measured: true,
            });
        }
    }

    /// By class: its Dice less another's, means over all seeds.
    fn less(&self, other: &Self) -> Vec<f64> {
        let both = self.classes.iter().zip(&other.classes);
        both.map(|(figures, other)| figures.dice.mean - other.dice.mean)
            .collect()
    }

    /// The same over the seeds that both have, so that what a seed decides is alike in both; over all, if there is
    /// none.
    fn less_seed_by_seed(&self, other: &Self) -> Vec<f64> {
        let pair = |run: &RunFolder| {
            let twin = other.runs.iter().find(|twin| twin.record.seed == run.record.seed)?;
            let both = run.record.dice.iter().zip(&twin.record.dice);
            Some(both.map(|(dice, other)| dice - other).collect::<Vec<f64>>())
        };
        let pairs: Vec<Vec<f64>> = self.runs.iter().filter_map(pair).collect();
        match pairs.is_empty() {
            true => self.less(other),
            false => {
                let of_class = |class: usize| mean(pairs.iter().map(|pair| pair[class]));
                (0..self.classes.len()).map(of_class).collect()
            }
        }
    }

    /// Whether both started from the same base and went through as many rounds of the same cases.
    pub fn is_comparable(&self, other: &Self) -> bool {
        let facts = |experiment: &Self| {
            let run = &experiment.runs[0];
            let base = run.provenance.base_sha256.clone();
            (base, experiment.rounds, experiment.partial, experiment.test_cases)
        };
        facts(self) == facts(other)
    }
}

impl Spread {
    /// Of a value for each seed.
    pub fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
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

/// The arithmetic mean.
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// What an experiment of a method is called.
pub fn name(method: Method, setting: Setting, departures: &[Departure]) -> String {
    let parts = [method_name(method).to_owned()];
    parts
        .into_iter()
        .chain(otherwise(setting, departures))
        .collect::<Vec<String>>()
        .join(", ")
}

/// In what it is not the method by itself, in words.
pub fn otherwise(setting: Setting, departures: &[Departure]) -> impl Iterator<Item = String> {
    let alone = (setting == Setting::Alone).then(|| "alone".to_owned());
    alone.into_iter().chain(departures.iter().map(Departure::describe))
}

/// A method's name.
pub fn method_name(method: Method) -> &'static str {
    match method {
        Method::FullFt => "Full fine-tuning",
        Method::AttentionFt => "Attention",
        Method::DecoderFt => "Decoder",
        Method::PartialDecoderFt => "Decoder heads",
        Method::LoraFt => "LoRA",
        Method::FlapSam => "FLAP-SAM",
        Method::LoraDecoderFt => "LoRA + decoder",
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
        let settings = (record.title.clone(), run.settings.deciding_settings());
        let cases: Vec<String> = record.cases.iter().map(|case| case.case.clone()).collect();
        let measured = !record.surface_dice.is_empty();
        (settings, record.partial, data, provenance, cases, measured)
    };
    facts(one) == facts(other)
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

/// Surface scores of a class, where every seed has them.
fn surface(runs: &[RunFolder], class: usize) -> Option<SurfaceFigures> {
    let dice: Option<Vec<f64>> = runs
        .iter()
        .map(|run| run.record.surface_dice.get(class).copied())
        .collect();
    let cases = runs.iter().flat_map(|run| &run.record.cases);
    let distances = cases.clone().filter_map(|case| *case.hausdorff_95_mm.get(class)?);
    let distances: Vec<f64> = distances.collect();
    Some(SurfaceFigures {
        dice: Spread::of(dice?.into_iter()),
        hausdorff_95_mm: (!distances.is_empty()).then(|| mean(distances.iter().copied())),
        hausdorff_95_cases: distances.len(),
        cases: cases.count(),
    })
}

/// Of the last round, where every seed has it.
fn lora_error(runs: &[RunFolder]) -> Option<f64> {
    let errors: Option<Vec<f64>> = runs.iter().map(|run| run.record.rounds.last()?.lora_error).collect();
    errors.map(|errors| mean(errors.into_iter()))
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
}
