//! Claims of ours: the paper's, asked again on other data and another network, and judged by a rule that counts chance.

use serde::{Deserialize, Serialize};

use super::{Measure, Missing, State, Verdict};
use crate::experiment::Record;
use crate::verification::groups::{Counts, Groups, LeftOut};
use crate::verification::statistics::{Interval, Paired};

/// What a file of claims says of ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ours {
    /// The data set whose runs they are judged by.
    pub data: String,
    /// The network of those runs.
    pub model: String,
    /// How many seeds a verdict takes.
    pub seeds: usize,
    /// The claims.
    #[serde(rename = "claim")]
    pub claims: Vec<OurClaim>,
}

/// One claim of ours and the rule that judges it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OurClaim {
    /// Short and unique, the paper's included.
    pub id: String,
    /// What is claimed.
    pub statement: String,
    /// What is computed: a difference of Dice.
    pub measure: Measure,
    /// What its interval must be for the claim to hold.
    pub rule: Rule,
}

/// What the 95 % interval of a difference, percent points, must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Above zero; below it the claim is not reproduced.
    Above,
    /// Within so many points of zero, either way; wholly outside the claim is not reproduced.
    Similar(f64),
}

impl Rule {
    /// What the rule says of an interval in percent points.
    fn verdict(self, interval: Interval) -> Verdict {
        let Interval { low, high } = interval;
        let (holds, fails) = match self {
            Rule::Above => (low > 0.0, high < 0.0),
            Rule::Similar(margin) => (-margin <= low && high <= margin, high < -margin || margin < low),
        };
        match (holds, fails) {
            (true, _) => Verdict::Reproduced,
            (false, true) => Verdict::NotReproduced,
            (false, false) => Verdict::Undecided,
        }
    }

    /// The rule in words.
    pub fn describe(self) -> String {
        match self {
            Rule::Above => "above 0".into(),
            Rule::Similar(margin) => format!("within {margin} of 0"),
        }
    }

    /// Why an interval decides nothing.
    fn doubt(self) -> String {
        match self {
            Rule::Above => "the interval holds 0".into(),
            Rule::Similar(margin) => format!("the interval crosses {margin} or -{margin}"),
        }
    }
}

/// A claim of ours and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OursJudged {
    /// The claim.
    #[serde(flatten)]
    pub claim: OurClaim,
    /// The data set that it is about.
    pub data: String,
    /// The network.
    pub model: String,
    /// What the runs say; `None` where there are none to compare.
    pub evidence: Option<Evidence>,
    /// How it stands.
    pub verdict: Verdict,
    /// Why nothing is decided, where runs were compared.
    pub why: Option<String>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl OursJudged {
    /// What the verdict rests on, in words.
    pub fn notes(&self) -> Vec<String> {
        let [of, to] = self.claim.measure.sides();
        let evidence = self.evidence.iter().flat_map(|evidence| {
            let left_out = evidence.left_out.in_words([to, of]);
            std::iter::once(evidence.paired.to_string()).chain(left_out)
        });
        evidence.chain(self.why.clone()).collect()
    }
}

/// What two groups of runs say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The difference, percent points.
    pub difference: f64,
    /// Its 95 % interval by the hierarchical bootstrap, percent points.
    pub interval: Interval,
    /// Of how much.
    pub paired: Counts,
    /// What had no partner.
    pub left_out: LeftOut,
    /// On which data, from which base.
    #[serde(flatten)]
    pub state: State,
}

impl Ours {
    /// What makes no sense in it.
    pub(super) fn mistake(&self) -> Option<String> {
        if self.seeds < 2 {
            return Some(format!(
                "[ours] asks for {} seeds; ask for at least 2, which have a spread",
                self.seeds
            ));
        }
        self.claims.iter().find_map(|claim| {
            let id = &claim.id;
            if claim.measure.is_counted() {
                return Some(format!(
                    "claim '{id}': numbers of parameters have no spread; measure a difference of Dice"
                ));
            }
            match claim.rule {
                Rule::Similar(margin) if !(margin > 0.0 && margin.is_finite()) => Some(format!(
                    "claim '{id}': the margin of 'similar' is {margin}; it must be a number of points above 0"
                )),
                _ => None,
            }
        })
    }

    /// A claim judged by runs on one state of the data: of what it holds up, `of`, and of what that is compared with.
    pub(super) fn judged(&self, claim: &OurClaim, of: &[&Record], to: &[&Record], state: State) -> OursJudged {
        let decided = |evidence: Option<Evidence>, verdict: Verdict, why: Option<String>| OursJudged {
            evidence,
            verdict,
            why,
            ..self.not_run(claim, Vec::new())
        };
        let compared = Groups::pair(to, of).and_then(|groups| {
            let mean = groups.over_classes().ok_or("the runs have no Dice of any class")?;
            Ok(Evidence::new(&mean, groups, state))
        });
        let evidence = match compared {
            Ok(evidence) => evidence,
            Err(why) => return decided(None, Verdict::Undecided, Some(format!("undecided: {why}"))),
        };
        let (asked, paired) = (self.seeds, evidence.paired.seeds);
        if paired < asked {
            let why = format!("undecided: the rule asks for {asked} seeds that both have");
            return decided(Some(evidence), Verdict::Undecided, Some(why));
        }
        let verdict = claim.rule.verdict(evidence.interval);
        let why = (verdict == Verdict::Undecided).then(|| format!("undecided: {}", claim.rule.doubt()));
        decided(Some(evidence), verdict, why)
    }

    /// A claim without runs.
    pub(super) fn not_run(&self, claim: &OurClaim, missing: Vec<Missing>) -> OursJudged {
        OursJudged {
            claim: claim.clone(),
            data: self.data.clone(),
            model: self.model.clone(),
            evidence: None,
            verdict: Verdict::NotRun,
            why: None,
            missing,
        }
    }
}

impl Evidence {
    fn new(mean: &Paired, groups: Groups, state: State) -> Self {
        let points = |share: f64| 100.0 * share;
        Self {
            difference: points(mean.difference),
            interval: Interval {
                low: points(mean.interval.low),
                high: points(mean.interval.high),
            },
            paired: groups.counts(),
            left_out: groups.left_out,
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_decides_by_where_it_lies() {
        let verdict = |rule: Rule, low, high| rule.verdict(Interval { low, high });
        use Verdict::{NotReproduced, Reproduced, Undecided};
        let above = [
            (0.1, 0.3, Reproduced),
            (0.0, 0.3, Undecided),
            (-4.0, 0.3, Undecided),
            (-4.0, 0.0, Undecided),
            (-4.0, -0.1, NotReproduced),
        ];
        for (low, high, want) in above {
            assert_eq!(verdict(Rule::Above, low, high), want, "{low} to {high}");
        }
        let similar = [
            (-1.9, 1.9, Reproduced),
            (-2.0, 2.0, Reproduced),
            (0.5, 1.9, Reproduced),
            (0.5, 2.1, Undecided),
            (-2.1, 1.0, Undecided),
            (-3.0, 3.0, Undecided),
            (2.1, 4.0, NotReproduced),
            (-4.0, -2.1, NotReproduced),
        ];
        for (low, high, want) in similar {
            assert_eq!(verdict(Rule::Similar(2.0), low, high), want, "{low} to {high}");
        }
    }
}
