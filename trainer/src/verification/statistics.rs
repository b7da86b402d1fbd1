//! What can be said of runs from few seeds and few cases.

use std::collections::BTreeSet;

use flapsam_model::random::Random;
use serde::Serialize;

use crate::experiment::{CaseScores, Record};

/// How many times the cases are drawn again for an interval.
const RESAMPLES: usize = 10_000;
/// The share of resampled means below an interval, and above it.
const TAIL: f64 = 0.025;

/// The mean of values, such as one figure of several seeds; `None` of none.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Their sample standard deviation, over n - 1; `None` of fewer than two.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// A range of values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// The 95 % percentile bootstrap interval of the mean: the values are drawn 10,000 times with replacement, and the
/// middle 95 % of their means reported. The draws depend on nothing but the number of values. `None` of none.
///
/// Of fewer than twenty values or so it is too narrow; of one it is that value.
pub fn bootstrap_interval(values: &[f64]) -> Option<Interval> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let mut random = Random::new(0, "bootstrap");
    let mut resampled_mean = || (0..count).map(|_| values[random.below(count)]).sum::<f64>() / count as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resampled_mean()).collect();
    means.sort_unstable_by(f64::total_cmp);
    Some(Interval {
        low: quantile(&means, TAIL),
        high: quantile(&means, 1.0 - TAIL),
    })
}

/// The value below which a share of sorted values lies, between two of them by their distance.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Two runs over the same cases, one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paired {
    /// The site of the cases; `None` for all of them.
    pub site: Option<String>,
    /// Name of the class.
    pub class: String,
    /// How many cases.
    pub cases: usize,
    /// Mean Dice of the first run.
    pub first: f64,
    /// Mean Dice of the second one.
    pub second: f64,
    /// Mean of the cases' differences, second less first.
    pub difference: f64,
    /// 95 % bootstrap interval of that mean.
    pub interval: Interval,
}

/// Dice of one class of one case in two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseDifference {
    /// Its site.
    pub site: String,
    /// Its name.
    pub case: String,
    /// Name of the class.
    pub class: String,
    /// Dice of the first run.
    pub first: f64,
    /// Dice of the second one.
    pub second: f64,
    /// Second less first.
    pub difference: f64,
}

/// Dice of every case and foreground class in two runs, in the order of the first one's cases. `None` where they are
/// not over the same cases and classes.
pub fn case_differences(first: &Record, second: &Record) -> Option<Vec<CaseDifference>> {
    let key = |case: &CaseScores| (case.site.clone(), case.case.clone());
    let keys = |record: &Record| record.cases.iter().map(key).collect::<BTreeSet<_>>();
    if first.classes != second.classes || keys(first) != keys(second) {
        return None;
    }
    let mut differences = Vec::new();
    for one in &first.cases {
        let other = second.cases.iter().find(|other| key(other) == key(one))?;
        let classes = first.classes.iter().skip(1);
        for (class, (&first, &second)) in classes.zip(one.dice.iter().zip(&other.dice)) {
            differences.push(CaseDifference {
                site: one.site.clone(),
                case: one.case.clone(),
                class: class.clone(),
                first,
                second,
                difference: second - first,
            });
        }
    }
    Some(differences)
}

/// The means over all cases, then over those of each site, by class.
pub fn paired(differences: &[CaseDifference]) -> Vec<Paired> {
    let sites: BTreeSet<&String> = differences.iter().map(|case| &case.site).collect();
    let mut classes: Vec<&String> = Vec::new();
    for case in differences {
        if !classes.contains(&&case.class) {
            classes.push(&case.class);
        }
    }
    let sites = std::iter::once(None).chain(sites.into_iter().map(Some));
    let groups = sites.flat_map(|site| classes.iter().map(move |class| (site, *class)));
    let of_group = |(site, class): (Option<&String>, &String)| {
        let cases = differences.iter().filter(|case| case.class == *class);
        let cases: Vec<&CaseDifference> = cases
            .filter(|case| site.is_none_or(|site| case.site == *site))
            .collect();
        let of = |value: fn(&CaseDifference) -> f64| cases.iter().map(|case| value(case)).collect::<Vec<f64>>();
        let changes = of(|case| case.difference);
        Some(Paired {
            site: site.cloned(),
            class: class.clone(),
            cases: cases.len(),
            first: mean(&of(|case| case.first))?,
            second: mean(&of(|case| case.second))?,
            difference: mean(&changes)?,
            interval: bootstrap_interval(&changes)?,
        })
    };
    groups.filter_map(of_group).collect()
}

/// Mean Dice of one class over the seeds of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OverSeeds {
    /// Of which cases and models.
    pub row: String,
    /// Name of the class.
    pub class: String,
    /// How many runs.
    pub seeds: usize,
    /// Mean of the runs' Dice.
    pub mean: f64,
    /// Its sample standard deviation over the runs; `None` of a single one.
    pub standard_deviation: Option<f64>,
}

/// Every row of the runs' Dice by class, over runs that differ in their seed.
pub fn over_seeds(records: &[Record]) -> Vec<OverSeeds> {
    let Some(any) = records.first() else {
        return Vec::new();
    };
    let runs: Vec<Vec<(String, &[f64])>> = records.iter().map(Record::dice_rows).collect();
    let classes = || any.classes.iter().skip(1).enumerate();
    let figures = runs[0]
        .iter()
        .flat_map(|(row, _)| classes().map(move |class| (row, class)));
    let of_figure = |(row, (place, class)): (&String, (usize, &String))| {
        let of_run = |rows: &Vec<(String, &[f64])>| rows.iter().find(|(name, _)| name == row)?.1.get(place).copied();
        let values: Vec<f64> = runs.iter().filter_map(of_run).collect();
        Some(OverSeeds {
            row: row.clone(),
            class: class.clone(),
            seeds: values.len(),
            mean: mean(&values)?,
            standard_deviation: standard_deviation(&values),
        })
    };
    figures.filter_map(of_figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(site: &str, class: &str, first: f64, second: f64) -> CaseDifference {
        CaseDifference {
            site: site.into(),
            case: "c".into(),
            class: class.into(),
            first,
            second,
            difference: second - first,
        }
    }

    #[test]
    fn mean_and_standard_deviation_are_of_a_sample() {
        assert_eq!(mean(&[]), None);
        assert_eq!(standard_deviation(&[2.0]), None);
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), Some(5.0));
        assert_eq!(standard_deviation(&values), Some((32.0f64 / 7.0).sqrt()));
    }

    #[test]
    fn quantiles_lie_between_values() {
        let values = [0.0, 1.0, 2.0, 4.0];
        assert_eq!(
            [0.0, 0.5, 5.0 / 6.0, 1.0].map(|share| quantile(&values, share)),
            [0.0, 1.5, 3.0, 4.0]
        );
    }

    #[test]
    fn intervals_repeat_hold_the_mean_and_narrow_with_more_cases() {
        assert_eq!(bootstrap_interval(&[]), None);
        assert_eq!(bootstrap_interval(&[0.25; 3]), Some(Interval { low: 0.25, high: 0.25 }));
        let mut random = Random::new(1, "values");
        let values: Vec<f64> = (0..100).map(|_| random.normal()).collect();
        let (few, many) = (
            bootstrap_interval(&values[..25]).unwrap(),
            bootstrap_interval(&values).unwrap(),
        );
        assert_eq!(bootstrap_interval(&values), Some(many));
        let mean = mean(&values).unwrap();
        assert!(many.low < mean && mean < many.high);
        assert!(many.high - many.low < 0.75 * (few.high - few.low), "{many:?} {few:?}");
    }

    #[test]
    fn pairs_are_by_site_and_class() {
        let cases = [
            case("A", "kidney", 0.5, 0.75),
            case("A", "tumour", 0.0, 0.0),
            case("B", "kidney", 0.5, 0.25),
            case("B", "tumour", 0.0, 1.0),
        ];
        let paired = paired(&cases);
        let keys: Vec<(Option<&str>, &str, f64)> = paired
            .iter()
            .map(|row| (row.site.as_deref(), &row.class[..], row.difference))
            .collect();
        let want = [
            (None, "kidney", 0.0),
            (None, "tumour", 0.5),
            (Some("A"), "kidney", 0.25),
            (Some("A"), "tumour", 0.0),
            (Some("B"), "kidney", -0.25),
            (Some("B"), "tumour", 1.0),
        ];
        assert_eq!(keys, want);
        assert_eq!(paired[0].interval, Interval { low: -0.25, high: 0.25 });
        assert_eq!((paired[1].first, paired[1].second, paired[1].cases), (0.0, 0.5, 2));
    }
}
