//! The paper's claims, and apart from them ours, and how they stand by the runs of the report.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::Report;
use super::format::count;
use super::tables::Table;
use crate::verification::claims::ours::OursJudged;
use crate::verification::claims::{Judged, Measure, Missing, NotCounted, Paper, Sign, Verdict};

/// The sections on claims, if there are any.
pub fn verdicts(report: &Report) -> Markup {
    let claims = &report.claims;
    if claims.is_empty() {
        return html! {};
    }
    let mut data: Vec<&str> = Vec::new();
    for judged in claims {
        if !data.contains(&&*judged.claim.data) {
            data.push(&judged.claim.data);
        }
    }
    html! {
        section {
            h2 { "The paper’s claims" }
            p {
                "Judged by rule, from numbers of parameters and from the runs above: "
                (tally(claims.iter().map(|judged| judged.verdict))) "."
            }
            @for data in data {
                @let of_data: Vec<&Judged> = claims.iter().filter(|judged| judged.claim.data == data).collect();
                (table(data, &of_data))
                (missing(of_data.iter().flat_map(|judged| &judged.missing)))
            }
            p.note {
                "Reproduced: within the rule’s margin of the paper’s value. Differs: farther from it, in the same \
                 direction. Not reproduced: neither. Not run: only runs of the paper’s network, of all its rounds, on \
                 all cases of the claim’s data set count."
            }
        }
        (ours(&report.ours))
        (not_counted(&report.not_counted))
    }
}

/// The claims of ours, in a section and a table of their own.
fn ours(claims: &[OursJudged]) -> Markup {
    let Some(first) = claims.first() else {
        return html! {};
    };
    let points = |value: f64| format!("{value:+.2}").replace('-', "\u{2212}");
    let row = |judged: &OursJudged| {
        let (claim, notes) = (&judged.claim, judged.notes());
        let name = html! {
            (claim.id) span.more { (claim.statement) }
            @if !notes.is_empty() { span.more { (notes.join("; ")) "." } }
        };
        let (difference, interval) = judged.evidence.as_ref().map_or(("–".into(), "–".into()), |evidence| {
            let interval = evidence.interval;
            (
                format!("{} points", points(evidence.difference)),
                format!("{} to {}", points(interval.low), points(interval.high)),
            )
        });
        let cells = [claim.rule.describe(), difference, interval].map(|text| html! { (text) });
        (name, cells.into_iter().chain([verdict(judged.verdict)]).collect())
    };
    let columns = ["Rule", "Difference", "95 % interval"].map(|name| (name.to_owned(), true));
    let table = Table {
        caption: html! {
            strong { "On " (first.data) ", with " (first.model) ". " }
            "Differences of Dice, in percent points."
        },
        what: "Claim",
        columns: columns.into_iter().chain([("Verdict".into(), false)]).collect(),
        rows: claims.iter().map(row).collect(),
    };
    html! {
        section {
            h2 { "Claims of ours" }
            p {
                "What the paper claims, asked again on other data and another network, by a rule of our own that counts \
                 chance. No verdict here says anything of the paper’s own figures: "
                (tally(claims.iter().map(|judged| judged.verdict))) "."
            }
            div.claims { (table.html()) }
            (missing(claims.iter().flat_map(|judged| &judged.missing)))
            p.note {
                "The interval is of a hierarchical bootstrap over seeds, sites and patients; of few sites it is too \
                 narrow. Above 0: reproduced where the whole interval is, not reproduced where it lies below. Within a \
                 margin: reproduced where the whole interval is, not reproduced where it lies outside. Undecided: \
                 anything else, or too few seeds."
            }
        }
    }
}

/// How many claims have each verdict.
fn tally(verdicts: impl Iterator<Item = Verdict> + Clone) -> String {
    let all = [
        Verdict::Reproduced,
        Verdict::Differs,
        Verdict::NotReproduced,
        Verdict::Undecided,
        Verdict::NotRun,
    ];
    let counts = all.map(|verdict| {
        let count = verdicts.clone().filter(|of_claim| *of_claim == verdict).count();
        (count, format!("{} {count}", verdict.name()).replace(' ', "\u{a0}"))
    });
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts.map(|(_, words)| words).collect::<Vec<_>>().join(", ")
}

fn table(data: &str, claims: &[&Judged]) -> Markup {
    let counted = matches!(
        claims[0].claim.measure,
        Measure::ParameterRatio { .. } | Measure::Gibibits { .. }
    );
    let row = |judged: &&Judged| {
        let claim = &judged.claim;
        let measure = claim.measure;
        let paper = match claim.paper {
            // As it was printed.
            Paper::Value(paper) => with_unit(measure, paper.to_string()),
            Paper::Sign(Sign::Above) => "above 0".into(),
        };
        let ours = |ours: f64| with_unit(measure, format!("{ours:.2}"));
        let ours = judged.ours.map_or("–".into(), ours);
        let name = html! { (claim.id) span.more { (claim.statement) } };
        let cells = vec![html! { (paper) }, html! { (ours) }, html! { (verdict(judged.verdict)) }];
        (name, cells)
    };
    let table = Table {
        caption: html! {
            @if counted { strong { "By numbers of parameters. " } "The paper’s network, counted; no run is needed." }
            @else { strong { "On " (data) ". " } "Differences of Dice, in percent points." }
        },
        what: "Claim",
        columns: vec![("Paper".into(), true), ("Ours".into(), true), ("Verdict".into(), false)],
        rows: claims.iter().map(row).collect(),
    };
    html! { div.claims { (table.html()) } }
}

/// A measure's value with its unit.
fn with_unit(measure: Measure, value: String) -> String {
    let unit = match measure {
        Measure::ParameterRatio { .. } => "times",
        Measure::Gibibits { .. } => "Gibit",
        Measure::DiceDifference { .. } | Measure::GainOverAlone { .. } => "points",
    };
    format!("{} {unit}", value.replace('-', "\u{2212}"))
}

fn verdict(verdict: Verdict) -> Markup {
    let (class, sign) = match verdict {
        Verdict::Reproduced => ("verdict holds", "✓"),
        Verdict::Differs => ("verdict differs", "≈"),
        Verdict::NotReproduced => ("verdict fails", "✗"),
        Verdict::Undecided => ("verdict", "?"),
        Verdict::NotRun => ("verdict", "○"),
    };
    html! { span class=(class) { (sign) " " (verdict.name()) } }
}

/// The runs that claims wait for, each once.
fn missing<'a>(missing: impl Iterator<Item = &'a Missing>) -> Markup {
    let missing: BTreeSet<&Missing> = missing.collect();
    html! {
        @if !missing.is_empty() {
            details {
                summary { "What is missing: " (count(missing.len(), "run")) }
                ul.short { @for missing in missing { li { (missing.runs) ": " code { (missing.remedy) } } } }
            }
        }
    }
}

/// Why runs decide no claim.
fn not_counted(runs: &[NotCounted]) -> Markup {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs {
        *reasons.entry(&run.why).or_default() += 1;
    }
    html! {
        @if !reasons.is_empty() {
            section {
                details {
                    summary { (count(runs.len(), "run")) " of this report decide no claim" }
                    ul.short { @for (why, runs) in reasons { li { (count(runs, "run")) ": " (why) "." } } }
                }
            }
        }
    }
}
