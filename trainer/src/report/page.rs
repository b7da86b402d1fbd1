//! The page: one HTML file without scripts or anything from elsewhere. maud escapes every text that it is given.

use flapsam_model::method::Method;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::details::details;
use super::figures::{bytes_figure, rounds_figure};
use super::format::{count, dice, joined, times};
use super::plots::{PAGE_STYLE, STYLE, bytes};
use super::site_tables::{left_out_sites, site_by_site};
use super::tables::{alone, methods, surfaces, variants};
use super::verdicts::verdicts;
use super::{Comparison, DataKind, Experiment, Group, LeftOut, Report};
use crate::experiment::Setting;

/// So many experiments are each said in a sentence; of more, only the two that the paper is about.
const IN_SENTENCES: usize = 4;

/// The report as an HTML file's content.
pub fn page(report: &Report) -> String {
    let title = title(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "flapsam " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                style { (PreEscaped(PAGE_STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.kicker { "flapsam report" }
                    h1 { (title) }
                    @for comparison in &report.comparisons {
                        p.data {
                            strong.badge { (kind(comparison.kind)) }
                            " " strong { (comparison.data) } ": " (comparison.data_description)
                        }
                    }
                }
                main {
                    @for comparison in &report.comparisons { (results(comparison, report.comparisons.len() > 1)) }
                    (left_out(&report.left_out))
                    (verdicts(report))
                    (details(report))
                }
                footer {
                    p {
                        "Made by flapsam " (env!("CARGO_PKG_VERSION"))
                        " from what the runs left behind; the same run folders give this page again, to the byte. \
                         1 kB is 1,000 bytes."
                    }
                }
            }
        }
    };
    let mut text = page.into_string();
    text.push('\n');
    text
}

/// What the page does not show.
fn left_out(runs: &[LeftOut]) -> Markup {
    html! {
        @if !runs.is_empty() {
            section {
                h2 { "Left out" }
                p { (count(runs.len(), "run")) " of the folder cannot be shown:" }
                ul { @for run in runs { li { strong { (run.name) } ": " (run.why) } } }
            }
        }
    }
}

fn title(report: &Report) -> String {
    let experiments: usize = report
        .comparisons
        .iter()
        .map(|comparison| comparison.experiments.len())
        .sum();
    match report.comparisons.as_slice() {
        [only] if experiments == 1 => only.experiments[0].title.clone(),
        [only] => format!("{experiments} experiments on {}", only.data),
        several => format!("{experiments} experiments on {} data sets", several.len()),
    }
}

fn kind(kind: DataKind) -> &'static str {
    match kind {
        DataKind::Synthetic => "Synthetic data",
        DataKind::SemiSynthetic => "Semi-synthetic data",
        DataKind::Real => "Real data, as far as their manifest says",
    }
}

/// The experiments on one data set beside each other.
fn results(comparison: &Comparison, several: bool) -> Markup {
    html! {
        section {
            h2 { "Results" @if several { " on " (comparison.data) } }
            ul.short { @for experiment in in_sentences(comparison) { li { (in_short(experiment)) } } }
            (caveats(comparison))
            (methods(comparison))
            @for figure in [bytes_figure(comparison), rounds_figure(comparison)].iter().flatten() { (figure.html()) }
            (variants(comparison))
            (alone(comparison))
            (site_by_site(comparison))
            (left_out_sites(comparison))
            (surfaces(comparison))
        }
    }
}

/// The experiments that are said in sentences.
fn in_sentences(comparison: &Comparison) -> Vec<&Experiment> {
    let experiments = &comparison.experiments;
    if experiments.len() <= IN_SENTENCES {
        return experiments.iter().collect();
    }
    let paper = [Method::FlapSam, Method::FullFt].into_iter();
    paper
        .flat_map(|method| {
            comparison
                .group(Group::Method)
                .filter(move |experiment| experiment.method == method)
        })
        .collect()
}

/// An experiment in one sentence.
fn in_short(experiment: &Experiment) -> Markup {
    let classes: Vec<String> = experiment
        .classes
        .iter()
        .map(|figures| format!("{} {}", figures.class, dice(figures.dice.mean)))
        .collect();
    html! {
        strong { (experiment.name) } ": "
        @if experiment.classes.len() > 1 {
            "mean foreground Dice " strong { (dice(experiment.mean_dice())) } " (" (classes.join(", ")) ")"
        } @else { "Dice " strong { (classes.join(", ")) } }
        " over " (count(experiment.test_cases, "test case")) ", " (dice(experiment.mean_untrained())) " before training"
        @match experiment.setting {
            Setting::Alone => "; the mean of clients that train by themselves and send nothing.",
            Setting::Pooled => "; trained on all sites’ data in one place.",
            Setting::Federated => {
                @if let Some(gain) = experiment.mean_gain() {
                    "; " (dice(gain.abs())) @if gain < 0.0 { " below" } @else { " above" }
                    " the same method’s clients alone"
                }
                "; " (bytes(experiment.bytes_up as f64)) " sent up"
                @if let Some(fewer) = experiment.fewer.filter(|fewer| fewer.times != 1.0) {
                    ", " (times(fewer.times)) " times fewer than full fine-tuning"
                    @if !fewer.measured { " would send" }
                }
                "."
            }
        }
    }
}

/// What keeps the figures from meaning more than they do.
fn caveats(comparison: &Comparison) -> Markup {
    let experiments = &comparison.experiments;
    let single = |experiment: &Experiment| experiment.seeds.len() == 1;
    let partial = |experiment: &Experiment| experiment.partial;
    html! {
        p.caveat {
            @match comparison.kind {
                DataKind::Synthetic => {
                    "The data are synthetic: the figures say how the methods behave on them, and nothing of patients. "
                }
                DataKind::SemiSynthetic => {
                    "The data are semi-synthetic: the figures say how the methods behave on them, and nothing of real \
                     scans. "
                }
                DataKind::Real => {}
            }
            @if experiments.iter().all(single) {
                "One seed" @if experiments.len() > 1 { " each" }
                ": how far the figures spread between seeds is not known. "
            } @else if experiments.iter().any(single) {
                "One seed only of " (those(experiments, single)) ": how far such figures spread is not known. "
            }
            @if experiments.iter().any(partial) {
                "Only a part of the cases was used by " (those(experiments, partial))
                ": its figures cannot be compared with those on all cases."
            }
        }
    }
}

/// Some experiments by their names, or by the others' names if those are fewer.
fn those(experiments: &[Experiment], which: impl Fn(&Experiment) -> bool) -> String {
    let (some, others): (Vec<&Experiment>, Vec<&Experiment>) =
        experiments.iter().partition(|experiment| which(experiment));
    let names =
        |of: Vec<&Experiment>| joined(&of.iter().map(|experiment| experiment.name.as_str()).collect::<Vec<_>>());
    match others.len() {
        0 if experiments.len() > IN_SENTENCES => "all".into(),
        _ if some.len() <= IN_SENTENCES => names(some),
        count if count <= IN_SENTENCES => format!("all but {}", names(others)),
        _ => format!("{} of {} experiments", some.len(), experiments.len()),
    }
}
