//! MLPerf's rule for reference convergence points: a device or an implementation that reaches a given quality in fewer
//! rounds than the reference, and by more than chance explains, has not trained the same.
//!
//! After MLPerf's training rules and what its checker says of itself (`rcp_checker` in mlcommons/logging): nothing may
//! converge statistically faster than the reference, which is run at least twice as often; the fastest and the slowest run
//! of each are left out, here of five runs or more; and one run that never gets there counts as the slowest. Of our own
//! choosing is the test: Welch's, one-sided, at 5 %.
//!
//! No golden figure hangs on it: its last digits are those of the system's mathematics.

use puruspe::betai;
use serde::Serialize;

use super::statistics::{mean, standard_deviation};
use crate::experiment::Record;

/// The largest chance by which runs are still called faster.
const LEVEL: f64 = 0.05;
/// From how many runs on the fastest and the slowest are left out.
const ENOUGH_TO_TRIM: usize = 5;

/// How soon the runs of two groups reach a mean Dice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Convergence {
    /// The Dice to be reached, mean over the foreground classes.
    pub target: f64,
    /// The reference's runs.
    pub reference: Pace,
    /// The others.
    pub compared: Pace,
    /// How likely means so far apart are if both are equally fast (Welch's t-test, one-sided); `None` where it was not
    /// asked, as the compared are no faster.
    pub chance: Option<f64>,
    /// What that says.
    pub verdict: Verdict,
}

/// The rounds that a group's runs take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pace {
    /// By run; `None` of one that never reaches the target.
    pub rounds: Vec<Option<usize>>,
    /// Mean of those that count.
    pub mean: f64,
}

/// Whether the compared runs converge as the reference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They take as many rounds, or more.
    AsTheReference,
    /// They take fewer, by more than chance explains.
    Faster,
    /// They do not get there.
    NotReached,
}

impl Convergence {
    /// Compares the rounds after which runs were first judged to reach a mean Dice.
    ///
    /// # Errors
    /// A group has fewer than two runs, or more than one run of the reference never gets there.
    pub fn compare(reference: &[&Record], compared: &[&Record], target: f64) -> Result<Self, String> {
        let rounds = |runs: &[&Record]| runs.iter().map(|run| rounds_to(run, target)).collect::<Vec<_>>();
        let (reference, compared) = (rounds(reference), rounds(compared));
        if reference.len() < 2 || compared.len() < 2 {
            return Err("how runs spread takes at least two seeds on either side; make more runs".into());
        }
        let Some(of_reference) = counted(&reference) else {
            return Err(format!(
                "runs of A never reach a mean Dice of {target}, so that it is no mark to compare with; choose a lower one"
            ));
        };
        let pace = |rounds: Vec<Option<usize>>, counted: &[f64]| Pace {
            rounds,
            mean: mean(counted).unwrap_or(f64::NAN),
        };
        let of_compared = counted(&compared);
        let (chance, verdict) = match &of_compared {
            None => (None, Verdict::NotReached),
            Some(of_compared) => match chance_of_being_faster(&of_reference, of_compared) {
                Some(chance) if chance < LEVEL => (Some(chance), Verdict::Faster),
                chance => (chance, Verdict::AsTheReference),
            },
        };
        Ok(Self {
            target,
            reference: pace(reference, &of_reference),
            compared: pace(compared, &of_compared.unwrap_or_default()),
            chance,
            verdict,
        })
    }

    /// Whether the reference has the twice as many runs that MLPerf asks for.
    pub fn has_enough_references(&self) -> bool {
        self.reference.rounds.len() >= 2 * self.compared.rounds.len()
    }
}

/// After how many rounds a run was first judged to have a mean Dice, over the foreground classes.
fn rounds_to(run: &Record, target: f64) -> Option<usize> {
    let last = run.rounds.len();
    let judged = run.rounds.iter().enumerate();
    let judged = judged.filter_map(|(place, round)| Some((place + 1, round.dice.as_ref()?)));
    let mut judged = judged.chain([(last, &run.dice)]);
    judged
        .find(|(_, dice)| mean(dice).is_some_and(|dice| dice >= target))
        .map(|(round, _)| round)
}

/// The rounds that count, without the fastest and the slowest of many; `None` if a run that never gets there would.
fn counted(rounds: &[Option<usize>]) -> Option<Vec<f64>> {
    let mut sorted: Vec<usize> = rounds.iter().map(|rounds| rounds.unwrap_or(usize::MAX)).collect();
    sorted.sort_unstable();
    let kept = match sorted.len() {
        many if many >= ENOUGH_TO_TRIM => &sorted[1..many - 1],
        _ => &sorted[..],
    };
    (!kept.contains(&usize::MAX)).then(|| kept.iter().map(|&rounds| rounds as f64).collect())
}

/// The one-sided chance that the second mean is so far below the first; `None` where it is not below.
fn chance_of_being_faster(reference: &[f64], compared: &[f64]) -> Option<f64> {
    let [of_reference, of_compared] = [reference, compared].map(|values| {
        let spread = standard_deviation(values).unwrap_or(0.0);
        (mean(values).unwrap_or(f64::NAN), spread * spread / values.len() as f64)
    });
    let apart = of_reference.0 - of_compared.0;
    let variance = of_reference.1 + of_compared.1;
    if apart <= 0.0 {
        return None;
    }
    if variance == 0.0 {
        return Some(0.0);
    }
    let term = |variance: f64, count: usize| variance * variance / (count as f64 - 1.0);
    let freedom = variance * variance / (term(of_reference.1, reference.len()) + term(of_compared.1, compared.len()));
    Some(0.5 * betai(freedom / 2.0, 0.5, freedom / (freedom + apart * apart / variance)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17: `stats.ttest_ind([8, 9, 10, 12], [6, 7, 7, 9], equal_var=False, alternative="greater").pvalue`, and the same
    /// of unequal numbers.
    #[test]
    fn chances_are_those_of_scipy() {
        let same = |reference: &[f64], compared: &[f64], want: f64| {
            let got = chance_of_being_faster(reference, compared).unwrap();
            assert!((got - want).abs() < 1e-9, "{got} for {want}");
        };
        same(
            &[8.0, 9.0, 10.0, 12.0],
            &[6.0, 7.0, 7.0, 9.0],
            0.030_108_299_132_880_885,
        );
        same(&[8.0, 9.0, 10.0, 12.0, 9.0], &[9.0, 9.0, 8.0], 0.133_389_394_076_401_05);
        assert_eq!(chance_of_being_faster(&[4.0, 6.0], &[5.0, 5.0]), None);
        assert_eq!(chance_of_being_faster(&[4.0, 4.0], &[3.0, 3.0]), Some(0.0));
    }

    #[test]
    fn the_fastest_and_the_slowest_of_many_do_not_count() {
        let few = [Some(2), Some(8), Some(4)];
        assert_eq!(counted(&few), Some(vec![2.0, 4.0, 8.0]));
        let many = [Some(2), None, Some(4), Some(6), Some(5)];
        assert_eq!(counted(&many), Some(vec![4.0, 5.0, 6.0]));
        assert_eq!(counted(&[Some(2), None]), None);
        assert_eq!(counted(&[Some(2), None, None, Some(6), Some(5)]), None);
    }
}
