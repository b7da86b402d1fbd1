//! Dice by model and by site of the test cases: who serves whom, and what becomes of a site that is left out.

use std::collections::BTreeMap;

use flapsam_model::method::Method;
use serde::Serialize;

use super::comparison::{Experiment, Group, Spread, mean, name, otherwise};
use super::format::dice;
use super::runs::RunFolder;
use super::variant::Departure;
use crate::experiment::{Record, Setting};

/// Every model of a method on every site's test cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SiteBySite {
    /// What was trained and sent.
    pub method: Method,
    /// Rounds of one local epoch each.
    pub rounds: usize,
    /// The columns.
    pub sites: Vec<TestSite>,
    /// The models: each client's alone, the federation's, that of pooled data, those of variants.
    pub rows: Vec<ModelRow>,
    /// Experiments whose clients have models of their own, and whose records are older than such figures.
    pub missing: Vec<String>,
}

/// A site with test cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestSite {
    /// Its name.
    pub site: String,
    /// How many there are.
    pub cases: usize,
}

/// A model's Dice by site.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// What tells it from the others, such as `federated` or `A, alone`.
    pub model: String,
    /// The experiment that it is of.
    pub experiment: String,
    /// Whose it is, where each client has its own.
    pub client: Option<String>,
    /// By column; none where there is no figure.
    pub dice: Vec<Option<Cell>>,
}

/// A model's Dice on a site's test cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Mean over the foreground classes.
    pub dice: Spread,
    /// By foreground class, mean over seeds.
    pub by_class: Vec<f64>,
    /// No other of its column is higher, as far as it is shown.
    pub best: bool,
}

/// Experiments that differ only in the site that takes no part, and the one in which all do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOutSites {
    /// The name that they have in common.
    pub name: String,
    /// Rounds of one local epoch each.
    pub rounds: usize,
    /// The columns.
    pub sites: Vec<TestSite>,
    /// The experiments.
    pub rows: Vec<LeftOutRow>,
}

/// Dice by site where one took no part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOutRow {
    /// Which; none where all take part.
    pub left_out: Option<String>,
    /// The experiment.
    pub experiment: String,
    /// By column; none where there is no figure.
    pub dice: Vec<Option<Cell>>,
    /// Dice on the site that is left out, less Dice on it where it takes part: mean over the classes and the seeds that both
    /// have.
    pub against_taking_part: Option<f64>,
}

impl SiteBySite {
    /// Those of some experiments: one for each method, base and number of rounds.
    pub(super) fn all(experiments: &[Experiment]) -> Vec<Self> {
        let mut compared: Vec<&Experiment> = experiments
            .iter()
            .filter(|experiment| experiment.group() != Group::LeftOut)
            .collect();
        // Clients alone come first: what is federated has to be better.
        compared.sort_by_key(|experiment| experiment.group() != Group::Alone);
        let groups = grouped(compared, |one, other| {
            one.method == other.method && on_same_cases(one, other)
        });
        let mut all: Vec<Self> = groups.iter().map(|group| Self::of(group)).collect();
        all.sort_by_key(|matrix| matrix.method);
        all
    }

    fn of(experiments: &[&Experiment]) -> Self {
        let sites = test_sites(experiments[0]);
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for experiment in experiments {
            let words = words(experiment);
            let same = experiments.iter().filter(|other| self::words(other) == words).count();
            let words = match same {
                1 => words,
                _ => format!("{words} ({})", experiment.runs[0].name),
            };
            let row = |client: Option<&String>| ModelRow {
                model: client.map_or_else(|| words.clone(), |client| format!("{client}, {words}")),
                experiment: experiment.name.clone(),
                client: client.cloned(),
                dice: cells(&experiment.runs, client, &sites),
            };
            let clients = &experiment.runs[0].record.dice_by_client;
            match (has_models_of_clients(experiment), clients.is_empty()) {
                (false, _) => rows.push(row(None)),
                (true, false) => rows.extend(clients.keys().map(|client| row(Some(client)))),
                (true, true) => missing.push(experiment.name.clone()),
            }
        }
        mark_best(rows.iter_mut().map(|row| &mut row.dice).collect());
        Self {
            method: experiments[0].method,
            rounds: experiments[0].rounds,
            sites,
            rows,
            missing,
        }
    }
}

impl LeftOutSites {
    /// Those of some experiments.
    pub(super) fn all(experiments: &[Experiment]) -> Vec<Self> {
        let (without, complete): (Vec<&Experiment>, Vec<&Experiment>) = experiments
            .iter()
            .partition(|experiment| experiment.group() == Group::LeftOut);
        let mut groups = grouped(without, differ_by_site);
        groups.sort_by_key(|group| (group[0].method, common(group[0])));
        let of_group = |group: &Vec<&Experiment>| {
            let complete = complete.iter().copied().filter(|other| differ_by_site(other, group[0]));
            Self::of(group, &complete.collect::<Vec<_>>())
        };
        groups.iter().map(of_group).collect()
    }

    fn of(without: &[&Experiment], complete: &[&Experiment]) -> Self {
        let first = without[0];
        let sites = test_sites(first);
        let row = |experiment: &&Experiment| {
            let left_out = experiment.runs[0].settings.leave_out.clone();
            let against = match (&left_out, complete) {
                (Some(site), [complete]) => against_taking_part(experiment, complete, site),
                _ => None,
            };
            LeftOutRow {
                left_out,
                experiment: experiment.name.clone(),
                dice: cells(&experiment.runs, None, &sites),
                against_taking_part: against,
            }
        };
        let mut rows: Vec<LeftOutRow> = complete.iter().chain(without).map(row).collect();
        mark_best(rows.iter_mut().map(|row| &mut row.dice).collect());
        Self {
            name: name(first.method, first.setting, &common(first)),
            rounds: first.rounds,
            sites,
            rows,
        }
    }
}

/// What experiments have in common that leave out different sites.
fn common(experiment: &Experiment) -> Vec<Departure> {
    let departures = experiment.departures.iter();
    let common = departures.filter(|departure| !matches!(departure, Departure::Without(_)));
    common.cloned().collect()
}

/// Puts what is alike together, in the order of the first ones.
fn grouped(experiments: Vec<&Experiment>, alike: impl Fn(&Experiment, &Experiment) -> bool) -> Vec<Vec<&Experiment>> {
    let mut groups: Vec<Vec<&Experiment>> = Vec::new();
    for experiment in experiments {
        match groups.iter_mut().find(|group| alike(group[0], experiment)) {
            Some(group) => group.push(experiment),
            None => groups.push(vec![experiment]),
        }
    }
    groups
}

fn on_same_cases(one: &Experiment, other: &Experiment) -> bool {
    one.is_comparable(other) && test_sites(one) == test_sites(other)
}

/// Whether two experiments are the same but for the site that is left out.
fn differ_by_site(one: &Experiment, other: &Experiment) -> bool {
    let differences = one.runs[0].settings.differences(&other.runs[0].settings);
    on_same_cases(one, other) && differences.iter().all(|key| key == "leave_out")
}

fn test_sites(experiment: &Experiment) -> Vec<TestSite> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for case in &experiment.runs[0].record.cases {
        *counts.entry(&case.site).or_default() += 1;
    }
    let site = |(site, cases): (&String, usize)| TestSite {
        site: site.clone(),
        cases,
    };
    counts.into_iter().map(site).collect()
}

fn has_models_of_clients(experiment: &Experiment) -> bool {
    experiment.setting == Setting::Alone || experiment.runs[0].settings.has_personal_models()
}

/// What tells an experiment from others of its method.
fn words(experiment: &Experiment) -> String {
    let words: Vec<String> = otherwise(experiment.setting, &experiment.departures).collect();
    match words.is_empty() {
        true => "federated".into(),
        false => words.join(", "),
    }
}

/// A model's figures; a site's only where every seed has them.
fn cells(runs: &[RunFolder], client: Option<&String>, sites: &[TestSite]) -> Vec<Option<Cell>> {
    let cell = |site: &TestSite| {
        let of_seeds = runs.iter().map(|run| by_class(&run.record, client, &site.site));
        let of_seeds: Vec<&Vec<f64>> = of_seeds.collect::<Option<_>>()?;
        let classes = 0..of_seeds[0].len();
        Some(Cell {
            dice: Spread::of(of_seeds.iter().map(|by_class| mean(by_class.iter().copied()))),
            by_class: classes
                .map(|class| mean(of_seeds.iter().map(|by_class| by_class[class])))
                .collect(),
            best: false,
        })
    };
    sites.iter().map(cell).collect()
}

/// A run's Dice on a site's test cases.
fn by_class<'a>(record: &'a Record, client: Option<&String>, site: &str) -> Option<&'a Vec<f64>> {
    let row = match client {
        Some(client) => record.dice_by_client.get(client)?,
        None => &record.dice_by_site,
    };
    row.get(site).filter(|by_class| !by_class.is_empty())
}

fn against_taking_part(without: &Experiment, complete: &Experiment, site: &str) -> Option<f64> {
    let on_site = |run: &RunFolder| by_class(&run.record, None, site).map(|by_class| mean(by_class.iter().copied()));
    let difference = |run: &RunFolder| {
        let mut twins = complete.runs.iter();
        let twin = twins.find(|twin| twin.record.seed == run.record.seed)?;
        Some(on_site(run)? - on_site(twin)?)
    };
    let differences: Vec<f64> = without.runs.iter().filter_map(difference).collect();
    (!differences.is_empty()).then(|| mean(differences.into_iter()))
}

/// Marks the highest of each column, and what looks the same. Of a single row nothing is best.
fn mark_best(mut rows: Vec<&mut Vec<Option<Cell>>>) {
    let columns = match &rows[..] {
        [first, _, ..] => first.len(),
        _ => 0,
    };
    for column in 0..columns {
        let values = rows.iter().filter_map(|row| row[column].as_ref());
        let Some(highest) = values.map(|cell| cell.dice.mean).reduce(f64::max) else {
            continue;
        };
        for cell in rows.iter_mut().filter_map(|row| row[column].as_mut()) {
            cell.best = dice(cell.dice.mean) == dice(highest);
        }
    }
}
