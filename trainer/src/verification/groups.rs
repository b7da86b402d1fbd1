//! Two groups of runs, such as the seeds of two experiments, compared seed by seed and case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::statistics::{Paired, hierarchical_interval, mean};
use crate::experiment::{CaseScores, Record};

/// Two groups of runs, paired by seed and case.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    /// Names of the foreground classes.
    classes: Vec<String>,
    /// How many seeds both groups have.
    seeds: usize,
    /// The cases that all paired runs have.
    cases: Vec<PairedCase>,
    /// What has no partner.
    pub left_out: LeftOut,
}

/// A case in all paired runs.
#[derive(Debug, Clone, PartialEq)]
struct PairedCase {
    site: String,
    patient: String,
    /// Seed by seed, Dice by class of the first group's run and of the second one's.
    dice: Vec<[Vec<f64>; 2]>,
}

/// How much was paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Seeds that both groups have.
    pub seeds: usize,
    /// Sites of the cases.
    pub sites: usize,
    /// Patients.
    pub patients: usize,
    /// Cases that all runs have.
    pub cases: usize,
}

/// What one side alone has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Seeds of the first group only.
    pub seeds_of_first: Vec<u64>,
    /// Seeds of the second group only.
    pub seeds_of_second: Vec<u64>,
    /// Cases that not all paired runs have, with their sites.
    pub cases: Vec<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.seeds, "seed"),
            (self.sites, "site"),
            (self.patients, "patient"),
            (self.cases, "case"),
        ];
        let parts = parts.map(|(number, what)| format!("{number} {what}{}", if number == 1 { "" } else { "s" }));
        write!(out, "{}", parts.join(", "))
    }
}

impl LeftOut {
    /// What was left out, in sentences; the groups have these names.
    pub fn in_words(&self, [first, second]: [&str; 2]) -> Vec<String> {
        let seeds = [(&self.seeds_of_first, first), (&self.seeds_of_second, second)];
        let seeds = seeds
            .into_iter()
            .filter(|(seeds, _)| !seeds.is_empty())
            .map(|(seeds, only)| {
                let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
                format!("left out: seeds that only {only} has: {}", seeds.join(", "))
            });
        let cases = (!self.cases.is_empty()).then(|| {
            format!(
                "left out: cases that not all of these runs have: {}",
                self.cases.join(", ")
            )
        });
        seeds.chain(cases).collect()
    }
}

impl Groups {
    /// Pairs the runs of two experiments.
    ///
    /// # Errors
    /// Two runs of a group have one seed, the runs are on different data or of different classes, a case's Dice are not
    /// of these classes, or the groups have no seed or no case in common. The message says which.
    pub fn pair(first: &[&Record], second: &[&Record]) -> Result<Self, String> {
        if let Some(one) = first.first() {
            first
                .iter()
                .chain(second)
                .try_for_each(|other| comparable(one, other))?;
        }
        let (first, second) = (by_seed(first)?, by_seed(second)?);
        let only =
            |own: &BySeed, other: &BySeed| own.keys().filter(|seed| !other.contains_key(seed)).copied().collect();
        let (seeds_of_first, seeds_of_second) = (only(&first, &second), only(&second, &first));
        let paired: Vec<[&Record; 2]> = first
            .iter()
            .filter_map(|(seed, run)| Some([*run, *second.get(seed)?]))
            .collect();
        let Some([any, _]) = paired.first() else {
            let seeds = |group: &BySeed| group.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
            return Err(format!(
                "no seed is in both groups: the first has {}, the second {}; run one with the other's seeds",
                seeds(&first),
                seeds(&second)
            ));
        };
        let runs: Vec<[ByCase; 2]> = paired.iter().map(|pair| pair.map(by_case)).collect();
        let names: BTreeSet<_> = runs.iter().flatten().flat_map(BTreeMap::keys).copied().collect();
        let (mut cases, mut left_out) = (Vec::new(), Vec::new());
        for (site, case) in names {
            let scores = runs.iter().map(|[first, second]| {
                let key = (site, case);
                Some([*first.get(&key)?, *second.get(&key)?])
            });
            match scores.collect::<Option<Vec<[&CaseScores; 2]>>>() {
                None => left_out.push(format!("{case} of {site}")),
                Some(scores) => cases.push(PairedCase::new(&scores)),
            }
        }
        if cases.is_empty() {
            return Err("no test case is in all runs; compare runs that were judged on the same cases".into());
        }
        Ok(Self {
            classes: any.classes.iter().skip(1).cloned().collect(),
            seeds: paired.len(),
            cases,
            left_out: LeftOut {
                seeds_of_first,
                seeds_of_second,
                cases: left_out,
            },
        })
    }

    /// How much was paired.
    pub fn counts(&self) -> Counts {
        let sites = self.nested(None);
        Counts {
            seeds: self.seeds,
            sites: sites.len(),
            patients: sites.values().map(BTreeMap::len).sum(),
            cases: self.cases.len(),
        }
    }

    /// Dice by class, of all cases and then of each site's; second less first, with the hierarchical bootstrap's
    /// interval.
    pub fn by_class(&self) -> Vec<Paired> {
        let sites: BTreeSet<&str> = self.cases.iter().map(|case| case.site.as_str()).collect();
        let sites = std::iter::once(None).chain(sites.into_iter().map(Some));
        let rows = sites.flat_map(|site| self.classes.iter().enumerate().map(move |class| (site, class)));
        rows.filter_map(|(site, (place, class))| self.compared(site, class, |dice| dice[place]))
            .collect()
    }

    /// The same of all cases, by their mean over the classes.
    pub fn over_classes(&self) -> Option<Paired> {
        self.compared(None, "mean", |dice| mean(dice).unwrap_or_default())
    }

    /// A site's cases, or all of them, by site and patient.
    fn nested(&self, site: Option<&str>) -> BTreeMap<&str, BTreeMap<&str, Vec<&PairedCase>>> {
        let mut nested: BTreeMap<&str, BTreeMap<&str, Vec<&PairedCase>>> = BTreeMap::new();
        for case in self
            .cases
            .iter()
            .filter(|case| site.is_none_or(|site| case.site == site))
        {
            let patients = nested.entry(&case.site).or_default();
            patients.entry(&case.patient).or_default().push(case);
        }
        nested
    }

    fn compared(&self, site: Option<&str>, class: &str, value: impl Fn(&[f64]) -> f64) -> Option<Paired> {
        let nested = self.nested(site);
        let differences = |case: &&PairedCase| {
            let seeds = case.dice.iter();
            seeds.map(|[first, second]| value(second) - value(first)).collect()
        };
        let differences: Vec<Vec<Vec<Vec<f64>>>> = nested
            .values()
            .map(|patients| {
                patients
                    .values()
                    .map(|cases| cases.iter().map(differences).collect())
                    .collect()
            })
            .collect();
        let cases: Vec<&PairedCase> = nested.values().flat_map(BTreeMap::values).flatten().copied().collect();
        let of_group = |group: usize| {
            let cells = cases.iter().flat_map(|case| &case.dice);
            mean(&cells.map(|pair| value(&pair[group])).collect::<Vec<f64>>())
        };
        let all: Vec<f64> = differences.iter().flatten().flatten().flatten().copied().collect();
        Some(Paired {
            site: site.map(str::to_owned),
            class: class.to_owned(),
            cases: cases.len(),
            first: of_group(0)?,
            second: of_group(1)?,
            difference: mean(&all)?,
            interval: hierarchical_interval(&differences)?,
        })
    }
}

impl PairedCase {
    fn new(scores: &[[&CaseScores; 2]]) -> Self {
        let any = scores[0][0];
        // An older program's record may not say whose it is.
        let said = scores.iter().flatten().find(|scores| scores.patient.is_some());
        Self {
            site: any.site.clone(),
            patient: said.copied().unwrap_or(any).patient().to_owned(),
            dice: scores.iter().map(|pair| pair.map(|case| case.dice.clone())).collect(),
        }
    }
}

/// Runs by their seeds.
type BySeed<'a> = BTreeMap<u64, &'a Record>;
/// Scores by site and case.
type ByCase<'a> = BTreeMap<(&'a str, &'a str), &'a CaseScores>;

fn by_seed<'a>(runs: &[&'a Record]) -> Result<BySeed<'a>, String> {
    let mut by_seed = BTreeMap::new();
    for run in runs {
        if by_seed.insert(run.seed, *run).is_some() {
            return Err(format!(
                "two runs of one group have the seed {}; pass each seed of an experiment once",
                run.seed
            ));
        }
    }
    Ok(by_seed)
}

fn by_case(run: &Record) -> ByCase<'_> {
    let cases = run.cases.iter();
    cases
        .map(|case| ((case.site.as_str(), case.case.as_str()), case))
        .collect()
}

/// Whether Dice of a run mean the same as another's.
fn comparable(one: &Record, other: &Record) -> Result<(), String> {
    if one.data != other.data {
        return Err(format!(
            "the runs are on different data, {} and {}; compare runs on the same",
            one.data, other.data
        ));
    }
    if one.classes != other.classes {
        let (one, other) = (one.classes.join(", "), other.classes.join(", "));
        return Err(format!(
            "the runs are of different classes, {one} and {other}; compare runs of the same"
        ));
    }
    match other
        .cases
        .iter()
        .find(|case| case.dice.len() + 1 != other.classes.len())
    {
        Some(case) => Err(format!(
            "the run of seed {} has {} values of Dice for case {} and {} classes, background included; make it once more",
            other.seed,
            case.dice.len(),
            case.case,
            other.classes.len()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A run whose cases are (site, case, patient) with Dice of one class.
    fn run(seed: u64, cases: &[(&str, &str, Option<&str>, f64)]) -> Record {
        let of_case = |(site, case, patient, dice): &(&str, &str, Option<&str>, f64)| {
            let mut scores = json!({"site": site, "case": case, "dice": [dice]});
            if let Some(patient) = patient {
                scores["patient"] = json!(patient);
            }
            scores
        };
        let cases: Vec<Value> = cases.iter().map(of_case).collect();
        let record = json!({
            "title": "drawn", "method": "flap_sam", "setting": "federated", "data": "drawn", "seed": seed,
            "partial": false, "classes": ["background", "organ"], "data_description": "", "trained_parameters": 1,
            "weights": {}, "untrained_dice": [0.0], "rounds": [], "cases": cases, "dice": [0.0], "dice_by_site": {},
            "alone": {}, "adapter_sha256": []
        });
        serde_json::from_value(record).unwrap()
    }

    fn pair(first: &[Record], second: &[Record]) -> Result<Groups, String> {
        let [first, second] = [first, second].map(|runs| runs.iter().collect::<Vec<&Record>>());
        Groups::pair(&first, &second)
    }

    #[test]
    fn runs_are_paired_by_seed_and_case_and_the_rest_is_named() {
        let cases = |left: f64, right: f64, other: f64| {
            [
                ("A", "p1-left", Some("p1"), left),
                ("A", "p1-right", Some("p1"), right),
                ("B", "q", None, other),
            ]
        };
        let mut more = cases(0.5, 0.6, 0.7).to_vec();
        more.push(("B", "r", None, 0.9));
        let first = [run(1, &cases(0.1, 0.2, 0.3)), run(2, &more), run(7, &more)];
        // An older record does not say whose a case is.
        let older = cases(0.6, 0.6, 0.6).map(|(site, case, _, dice)| (site, case, None, dice));
        let second = [run(3, &more), run(2, &older), run(1, &cases(0.2, 0.4, 0.6))];
        let groups = pair(&first, &second).unwrap();
        let counts = groups.counts();
        assert_eq!(counts.to_string(), "2 seeds, 2 sites, 2 patients, 3 cases");
        let left_out = LeftOut {
            seeds_of_first: vec![7],
            seeds_of_second: vec![3],
            cases: vec!["r of B".into()],
        };
        assert_eq!(groups.left_out, left_out);
        let sentences = left_out.in_words(["A", "B"]);
        assert!(
            sentences[0].contains("only A has: 7") && sentences[1].contains("only B has: 3"),
            "{sentences:?}"
        );

        let rows = groups.by_class();
        let names: Vec<_> = rows.iter().map(|row| (row.site.as_deref(), row.cases)).collect();
        assert_eq!(names, [(None, 3), (Some("A"), 2), (Some("B"), 1)]);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got}, not {want}");
        near(rows[0].first, (0.1 + 0.2 + 0.3 + 0.5 + 0.6 + 0.7) / 6.0);
        near(rows[0].second, (0.2 + 0.4 + 0.6 + 3.0 * 0.6) / 6.0);
        near(rows[0].difference, rows[0].second - rows[0].first);
        near(rows[1].difference, (0.1 + 0.2 + 0.1 + 0.0) / 4.0);
        near(rows[2].difference, (0.3 - 0.1) / 2.0);
        // Of one patient at B, its two trainings.
        near(rows[2].interval.low, -0.1);
        near(rows[2].interval.high, 0.3);
        // Of one class, the mean over classes is that class's.
        assert_eq!(groups.over_classes().unwrap().interval, rows[0].interval);
    }

    #[test]
    fn what_cannot_be_paired_is_refused_with_the_reason() {
        let cases = [("A", "p", None, 0.5)];
        let refused = |first: &[Record], second: &[Record], words: &str| {
            let why = pair(first, second).unwrap_err();
            assert!(why.contains(words), "{why}");
        };
        let one = || run(1, &cases);
        let other = |change: fn(&mut Record)| {
            let mut other = one();
            change(&mut other);
            [other]
        };
        refused(&[], &[], "no seed is in both");
        refused(&[one()], &[run(2, &cases)], "the first has 1, the second 2");
        refused(&[one(), one()], &[one()], "have the seed 1");
        refused(&[one()], &[run(1, &[("B", "p", None, 0.5)])], "no test case");
        refused(&[one()], &other(|run| run.data = "other".into()), "drawn and other");
        refused(
            &[one()],
            &other(|run| run.classes[1] = "other".into()),
            "background, organ",
        );
        refused(
            &[one()],
            &other(|run| run.cases[0].dice.clear()),
            "0 values of Dice for case p",
        );
        refused(
            &other(|run| run.cases[0].dice.push(1.0)),
            &[one()],
            "2 values of Dice for case p",
        );
    }
}
