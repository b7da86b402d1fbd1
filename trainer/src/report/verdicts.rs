//! The paper's claims, and how they stand by the runs of the report.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::Report;
use super::format::count;
use super::tables::Table;
use crate::verification::claims::{Judged, Measure, Missing, NotCounted, Paper, Sign, Verdict};

/// The section on claims, if there are any.
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
                (tally(claims)) "."
            }
            @for data in data {
                @let of_data: Vec<&Judged> = claims.iter().filter(|judged| judged.claim.data == data).collect();
                (table(data, &of_data))
                (missing(&of_data))
            }
            (not_counted(&report.not_counted))
            p.note {
                "Reproduced: within the rule’s margin of the paper’s value. Differs: farther from it, in the same \
                 direction. Not reproduced: neither. Not run: only runs of the paper’s network, of all its rounds, on \
                 all cases of the claim’s data set count."
            }
        }
    }
}

/// How many claims have each verdict.
fn tally(claims: &[Judged]) -> String {
    let all = [
        Verdict::Reproduced,
        Verdict::Differs,
        Verdict::NotReproduced,
        Verdict::NotRun,
    ];
    let counts = all.map(|verdict| {
        let count = claims.iter().filter(|judged| judged.verdict == verdict).count();
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
        Verdict::NotRun => ("verdict", "○"),
    };
    html! { span class=(class) { (sign) " " (verdict.name()) } }
}

/// The runs that claims wait for, each once.
fn missing(claims: &[&Judged]) -> Markup {
    let missing: BTreeSet<&Missing> = claims.iter().flat_map(|judged| &judged.missing).collect();
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
            details {
                summary { (count(runs.len(), "run")) " of this report decide no claim" }
                ul.short { @for (why, runs) in reasons { li { (count(runs, "run")) ": " (why) "." } } }
            }
        }
    }
}
