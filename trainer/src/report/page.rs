//! The page: one HTML file without scripts or anything from elsewhere. maud escapes every text that it is given.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plots::{Axis, Level, Plot, STYLES, Series, bytes, marker};
use super::{ClaimRow, ClassFigures, Comparison, DataKind, Experiment, Picture, Report, RunFolder, Verdict};
use crate::experiment::{Record, Setting, Timing};

const STYLE: &str = include_str!("style.css");
const MINUS: &str = "\u{2212}";

/// The report as an HTML file's content.
pub fn page(report: &Report) -> String {
    let title = title(report);
    let experiments = || report.comparisons.iter().flat_map(|comparison| &comparison.experiments);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "flapsam " (env!("CARGO_PKG_VERSION")) };
                title { (title) }
                style { (PreEscaped(STYLE)) }
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
                    @if !report.claims.is_empty() { (claims(&report.claims)) }
                    @for (place, experiment) in experiments().enumerate() {
                        @let heading = if experiments().count() == 1 { "Details" } else { &experiment.title };
                        (details(experiment, heading, place))
                    }
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
            ul.short { @for experiment in &comparison.experiments { li { (in_short(experiment)) } } }
            (caveats(comparison))
            (table(comparison))
            (bytes_figure(comparison))
            (rounds_figure(comparison))
        }
    }
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
    let single = || experiments.iter().filter(|experiment| experiment.seeds.len() == 1);
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
            @if single().count() == experiments.len() {
                "One seed" @if experiments.len() > 1 { " each" }
                ": how far the figures spread between seeds is not known. "
            } @else if single().count() > 0 {
                "One seed only of " (joined(single())) ": how far such figures spread is not known. "
            }
            @if experiments.iter().any(|experiment| experiment.partial) {
                "Only a part of the cases was used by "
                (joined(experiments.iter().filter(|experiment| experiment.partial)))
                ": its figures cannot be compared with those on all cases."
            }
        }
    }
}

fn joined<'a>(experiments: impl Iterator<Item = &'a Experiment>) -> String {
    let names: Vec<&str> = experiments.map(|experiment| experiment.name.as_str()).collect();
    names.join(" and ")
}

/// The paper's table.
fn table(comparison: &Comparison) -> Markup {
    let any = |wanted: &dyn Fn(&Experiment) -> bool| comparison.experiments.iter().any(wanted);
    let spread = any(&|experiment| experiment.seeds.len() > 1);
    let counted = any(&|experiment| experiment.fewer.is_some_and(|fewer| !fewer.measured));
    let gains = any(&|experiment| experiment.mean_gain().is_some());
    html! {
        // Roles that tables have anyhow: without them, the cards of narrow screens are no table to screen readers.
        table.results role="table" {
            caption {
                "Dice on " (comparison.data) " after the last round, and what each method trains and sends."
            }
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" { "Method" }
                    @for class in &comparison.classes { th.number scope="col" role="columnheader" { "Dice, " (class) } }
                    th.number scope="col" role="columnheader" { "Sent up" }
                    th.number scope="col" role="columnheader" { "Times fewer than full fine-tuning" }
                    th.number scope="col" role="columnheader" { "Parameters trained" }
                }
            }
            tbody role="rowgroup" {
                @for experiment in &comparison.experiments {
                    tr role="row" {
                        th scope="row" role="rowheader" {
                            (experiment.name)
                            span.more {
                                (count(experiment.rounds, "round")) ", "
                                @if experiment.seeds.len() == 1 { "seed " } @else { "seeds " } (seeds(experiment))
                            }
                        }
                        @for figures in &experiment.classes {
                            td.number role="cell" data-label={ "Dice, " (figures.class) } { (class_cell(figures)) }
                        }
                        td.number role="cell" data-label="Sent up" {
                            (bytes(experiment.bytes_up as f64))
                            @if experiment.bytes_up >= 1000 { span.more { (grouped(experiment.bytes_up)) " B" } }
                        }
                        td.number role="cell" data-label="Times fewer than full fine-tuning" {
                            @match experiment.fewer {
                                Some(fewer) => { (times(fewer.times)) @if !fewer.measured { sup { "c" } } },
                                None => "–",
                            }
                        }
                        td.number role="cell" data-label="Parameters trained" {
                            (grouped(experiment.trained_parameters as u64))
                        }
                    }
                }
            }
        }
        p.note {
            "Mean Dice over the test cases, whole volumes; both masks empty count as 1, one of them empty as 0."
            @if spread { " ± is the sample standard deviation over seeds." }
            @if gains { " “vs alone” is the gain over the same method’s clients alone." }
            " Sent up: all clients, all rounds, measured."
            @if counted {
                " " sup { "c" } " By the number of parameters: no comparable run of full fine-tuning is here."
            }
        }
    }
}

fn class_cell(figures: &ClassFigures) -> Markup {
    html! {
        (dice(figures.dice.mean))
        @if let Some(sd) = figures.dice.sd { span.more { "± " (dice(sd)) } }
        @if let Some(gain) = figures.gain_over_alone { span.more { (signed(gain)) " vs alone" } }
    }
}

fn seeds(experiment: &Experiment) -> String {
    let seeds: Vec<String> = experiment.seeds.iter().map(u64::to_string).collect();
    seeds.join(", ")
}

/// Dice over bytes: each method a point, with its way there where that is known.
fn bytes_figure(comparison: &Comparison) -> Markup {
    let federated = || numbered(comparison).filter(|(_, experiment)| experiment.bytes_up > 0);
    let ways = federated().any(|(_, experiment)| !experiment.curve.is_empty());
    if federated().count() == 0 || (comparison.experiments.len() == 1 && !ways) {
        return html! {};
    }
    let points = |experiment: &Experiment, class: usize| {
        // Nothing sent has no place on a logarithmic scale.
        let curve = experiment.curve.iter().filter(|point| point.bytes_up > 0);
        let mut points: Vec<(f64, f64)> = curve.map(|point| (point.bytes_up as f64, point.dice[class])).collect();
        let last = (experiment.bytes_up as f64, experiment.classes[class].dice.mean);
        if points.last().is_none_or(|point| point.0 < last.0) {
            points.push(last);
        }
        points
    };
    let all: Vec<f64> = federated()
        .flat_map(|(_, experiment)| points(experiment, 0))
        .map(|point| point.0)
        .collect();
    let plot = |class: usize, name: &str| {
        let ends = numbered(comparison).map(|(_, experiment)| {
            let value = dice(experiment.classes[class].dice.mean);
            format!("{} {}, {value}", experiment.name, bytes(experiment.bytes_up as f64))
        });
        let series = federated().map(|(style, experiment)| Series {
            style,
            label: Some(experiment.name.clone()),
            points: points(experiment, class),
        });
        let silent = numbered(comparison).filter(|(_, experiment)| experiment.bytes_up == 0);
        let levels = silent.map(|(style, experiment)| Level {
            style,
            label: format!("{} (sends nothing)", experiment.name),
            y: experiment.classes[class].dice.mean,
        });
        Plot {
            alternative: format!(
                "Dice of {name} over bytes sent up: {}.",
                ends.collect::<Vec<_>>().join("; ")
            ),
            x: Axis::bytes("bytes sent up, all clients, log scale", &all),
            y: Axis::from_zero(&format!("Dice, {name}"), highest(comparison, class)),
            series: series.collect(),
            levels: levels.collect(),
        }
    };
    html! {
        figure {
            (panels(comparison, plot))
            figcaption {
                strong { "Dice over bytes. " }
                "Each large mark is a method after its last round"
                @if ways { ", the small ones its way there, round by round" }
                ". Left is cheaper, up is better"
                @if comparison.classes.len() > 1 { "; the Dice axes of the panels differ" }
                "."
            }
        }
    }
}

/// Dice over rounds, of the experiments that were judged on the way.
fn rounds_figure(comparison: &Comparison) -> Markup {
    let judged = || numbered(comparison).filter(|(_, experiment)| !experiment.curve.is_empty());
    let last = judged().map(|(_, experiment)| experiment.rounds).max();
    let Some(last) = last else {
        return html! {};
    };
    let plot = |class: usize, name: &str| {
        let values = judged().map(|(_, experiment)| {
            let curve = experiment.curve.iter();
            let values = curve.map(|point| format!("{} after round {}", dice(point.dice[class]), point.round));
            format!("{}: {}", experiment.name, values.collect::<Vec<_>>().join(", "))
        });
        let series = judged().map(|(style, experiment)| Series {
            style,
            label: None,
            points: experiment
                .curve
                .iter()
                .map(|point| (point.round as f64, point.dice[class]))
                .collect(),
        });
        Plot {
            alternative: format!("Dice of {name} over rounds. {}.", values.collect::<Vec<_>>().join("; ")),
            x: Axis::counting("round", last),
            y: Axis::from_zero(&format!("Dice, {name}"), highest(comparison, class)),
            series: series.collect(),
            levels: Vec::new(),
        }
    };
    html! {
        figure {
            (panels(comparison, plot))
            (legend(judged().map(|(style, experiment)| (style, experiment.name.as_str()))))
            figcaption {
                strong { "Dice over rounds" } " of the server’s state on all test cases"
                @if judged().any(|(_, experiment)| experiment.seeds.len() > 1) { ", mean over seeds" }
                "."
                @if judged().count() < comparison.experiments.len() {
                    " The other experiments were judged after their last round only."
                }
            }
        }
    }
}

/// The experiments, each with its style.
fn numbered(comparison: &Comparison) -> impl Iterator<Item = (usize, &Experiment)> {
    comparison.experiments.iter().enumerate()
}

/// One plot for each class.
fn panels(comparison: &Comparison, plot: impl Fn(usize, &str) -> Plot) -> Markup {
    html! {
        div.panels { @for (class, name) in comparison.classes.iter().enumerate() { (plot(class, name).svg()) } }
    }
}

/// The highest Dice of a class that any figure of the comparison shows.
fn highest(comparison: &Comparison, class: usize) -> f64 {
    let of = |experiment: &Experiment| {
        let curve = experiment.curve.iter().map(|point| point.dice[class]);
        curve.fold(experiment.classes[class].dice.mean, f64::max)
    };
    comparison.experiments.iter().map(of).fold(0.0, f64::max)
}

fn legend<'a>(entries: impl Iterator<Item = (usize, &'a str)>) -> Markup {
    html! {
        ul.legend {
            @for (style, name) in entries {
                li {
                    svg viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" {
                        g class={ "series-" (style % STYLES) } {
                            line.line x1="0" x2="30" y1="6" y2="6" {}
                            (marker(style, 15.0, 6.0, 4.0))
                        }
                    }
                    " " (name)
                }
            }
        }
    }
}

fn claims(rows: &[ClaimRow]) -> Markup {
    html! {
        section {
            h2 { "Claims" }
            table.results role="table" {
                caption { "What the paper claims, beside what these runs show." }
                thead role="rowgroup" {
                    tr role="row" {
                        @for name in ["Claim", "Paper", "Ours", "Verdict"] {
                            th scope="col" role="columnheader" { (name) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            th scope="row" role="rowheader" { (row.id) span.more { (row.statement) } }
                            td role="cell" data-label="Paper" { (row.paper) }
                            td role="cell" data-label="Ours" { (row.ours) }
                            td role="cell" data-label="Verdict" { (verdict(row.verdict)) }
                        }
                    }
                }
            }
        }
    }
}

fn verdict(verdict: Verdict) -> Markup {
    let (class, text) = match verdict {
        Verdict::Holds => ("verdict holds", "✓ holds"),
        Verdict::Fails => ("verdict fails", "✗ does not hold"),
        Verdict::Untested => ("verdict", "○ not tested"),
    };
    html! { span class=(class) { (text) } }
}

/// All about one experiment.
fn details(experiment: &Experiment, heading: &str, place: usize) -> Markup {
    html! {
        section.experiment aria-labelledby={ "experiment-" (place) } {
            h2 id={ "experiment-" (place) } { (heading) }
            (clients(experiment))
            @if experiment.curve.is_empty() { (loss_figure(experiment)) }
            h3 { "Best and worst cases" }
            @match &experiment.pictures {
                Ok(pictures) => (gallery(pictures, experiment)),
                Err(why) => p.missing { "No pictures: " (why) "." },
            }
            (provenance(experiment))
        }
    }
}

/// Dice by client and class; of clients alone, also that of each client's own model.
fn clients(experiment: &Experiment) -> Markup {
    let first = &experiment.runs[0].record;
    let alone = experiment.setting == Setting::Alone;
    let sites: BTreeSet<&String> = first.weights.keys().chain(first.dice_by_site.keys()).collect();
    let places = 0..experiment.classes.len();
    let names = || experiment.classes.iter().map(|figures| figures.class.clone());
    let own_names = names().map(|class| format!("{class}, own model")).filter(|_| alone);
    let head: Vec<String> = ["Weight".into(), "Test cases".into()]
        .into_iter()
        .chain(names())
        .chain(own_names)
        .collect();
    let row = |site: &String| {
        let cases = first.cases.iter().filter(|case| case.site == *site).count();
        let weight = first.weights.get(site).map_or("–".into(), |weight| dice(*weight));
        let on_site = places
            .clone()
            .map(|class| mean_of(experiment, |record| &record.dice_by_site, site, class));
        let own = places
            .clone()
            .map(|class| mean_of(experiment, |record| &record.alone, site, class));
        let cells = [weight, cases.to_string()]
            .into_iter()
            .chain(on_site)
            .chain(own.filter(|_| alone));
        cells.collect::<Vec<String>>()
    };
    let last = || experiment.classes.iter().map(|figures| dice(figures.dice.mean));
    let untrained = experiment.classes.iter().map(|figures| dice(figures.untrained));
    let all = [dice(1.0), experiment.test_cases.to_string()].into_iter();
    let before = ["–".into(), experiment.test_cases.to_string()].into_iter();
    let none = places.clone().map(|_| String::from("–"));
    let foot: [(&str, Vec<String>); 2] = [
        ("All", all.chain(last()).chain(last().filter(|_| alone)).collect()),
        (
            "Before training",
            before.chain(untrained).chain(none.filter(|_| alone)).collect(),
        ),
    ];
    html! {
        h3 { "By client" }
        div.wide tabindex="0" role="region" aria-label="Dice by client" {
            table {
                caption {
                    @match experiment.setting {
                        Setting::Federated => "Dice of the federated model on each client’s test cases",
                        Setting::Pooled => "Dice of the model of all data on each client’s test cases",
                        Setting::Alone => {
                            "Dice on each client’s test cases, mean over the clients’ models, and of each client’s own \
                             model on all test cases"
                        }
                    }
                    @if experiment.seeds.len() > 1 { ", mean over seeds" }
                    "."
                }
                thead { tr { th scope="col" { "Client" } @for name in &head { th.number scope="col" { (name) } } } }
                tbody { @for site in sites { (cells(site, &row(site))) } }
                tfoot { @for (name, values) in &foot { (cells(name, values)) } }
            }
        }
    }
}

/// A table's row of numbers.
fn cells(name: &str, values: &[String]) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            @for value in values { td.number { (value) } }
        }
    }
}

/// A class's Dice of a site, mean over seeds; a dash where there is none.
fn mean_of(
    experiment: &Experiment,
    by_site: impl Fn(&Record) -> &BTreeMap<String, Vec<f64>>,
    site: &str,
    class: usize,
) -> String {
    let of_run = |run: &RunFolder| by_site(&run.record).get(site)?.get(class).copied();
    match experiment.runs.iter().map(of_run).collect::<Option<Vec<f64>>>() {
        Some(values) => dice(values.iter().sum::<f64>() / values.len() as f64),
        None => "–".into(),
    }
}

/// Training loss of the first seed, where Dice over rounds is not known.
fn loss_figure(experiment: &Experiment) -> Markup {
    let record = &experiment.runs[0].record;
    let sites: BTreeSet<&String> = record.rounds.iter().flat_map(|round| round.loss.keys()).collect();
    let points = |site: &String| -> Vec<(f64, f64)> {
        let rounds = record.rounds.iter();
        rounds
            .filter_map(|round| Some((round.round as f64, *round.loss.get(site)?)))
            .collect()
    };
    let series: Vec<Series> = sites
        .iter()
        .enumerate()
        .map(|(style, site)| Series {
            style,
            label: None,
            points: points(site),
        })
        .collect();
    let highest = series
        .iter()
        .flat_map(|series| &series.points)
        .map(|point| point.1)
        .fold(0.0, f64::max);
    let ends = sites.iter().filter_map(|site| {
        let points = points(site);
        let (first, last) = points.first().zip(points.last())?;
        Some(format!("{site} from {:.3} to {:.3}", first.1, last.1))
    });
    let alternative = format!(
        "Training loss over rounds by client: {}.",
        ends.collect::<Vec<_>>().join("; ")
    );
    if series.is_empty() {
        return html! {};
    }
    let plot = Plot {
        alternative,
        x: Axis::counting("round", experiment.rounds),
        y: Axis::from_zero("training loss", highest),
        series,
        levels: Vec::new(),
    };
    html! {
        figure {
            div.panels { (plot.svg()) }
            (legend(sites.iter().enumerate().map(|(style, site)| (style, site.as_str()))))
            figcaption {
                strong { "Training loss over rounds" } " by client, seed " (record.seed)
                ". Dice over rounds is not known: the experiment did not ask for it ("
                code { "dice_every" } ")."
            }
        }
    }
}

fn gallery(pictures: &[Picture], experiment: &Experiment) -> Markup {
    let classes: Vec<&str> = experiment
        .classes
        .iter()
        .map(|figures| figures.class.as_str())
        .collect();
    html! {
        p.note {
            "By mean foreground Dice of the whole volume"
            @if experiment.runs.len() > 1 { ", of seed " @if let Some(picture) = pictures.first() { (picture.seed) } }
            ". Of each case the slice with the largest true area, seen from the feet, \
             so that the patient’s right (R) is on the left; contours follow the voxels’ edges. "
            "Grey from black to white is the range that the network gets, or the 0.5 to 99.5 percentiles where the scans are \
             not clipped."
        }
        ul.legend {
            @for (class, name) in classes.iter().enumerate() {
                @for (truth, word) in [(true, "true"), (false, "predicted")] {
                    li {
                        svg.swatch viewBox="0 0 36 12" width="36" height="12" aria-hidden="true" {
                            rect width="36" height="12" {}
                            path class=(contour_class(class, truth)) d="M3 6h30" {}
                        }
                        " " (name) ", " (word)
                    }
                }
            }
        }
        div.gallery { @for picture in pictures { (case_figure(picture, &classes)) } }
    }
}

fn contour_class(class: usize, truth: bool) -> String {
    format!("contour {}-{}", if truth { "truth" } else { "predicted" }, class % 3)
}

fn case_figure(picture: &Picture, classes: &[&str]) -> Markup {
    let [height, width] = picture.size;
    let [rows, columns] = picture.voxels;
    let figures = classes.iter().zip(&picture.case.dice).enumerate();
    let values = figures.map(|(place, (class, value))| {
        let absent = if picture.absent.contains(&place) {
            " (there is none)"
        } else {
            ""
        };
        format!("{class} {}{absent}", dice(*value))
    });
    let values: Vec<String> = values.collect();
    let values = values.join(", ");
    let scale = format!("scale({:.6} {:.6})", width / columns as f64, height / rows as f64);
    let kind = if picture.best {
        "Among the best"
    } else {
        "Among the worst"
    };
    let present = |truth: bool| {
        let contours = picture.contours.iter().filter(|contour| contour.truth == truth);
        let names: Vec<&str> = contours
            .filter_map(|contour| classes.get(contour.class).copied())
            .collect();
        if names.is_empty() {
            "nothing".into()
        } else {
            names.join(" and ")
        }
    };
    let alternative = format!(
        "Axial slice {} of {} of case {}, site {}, with outlines: true {}, predicted {}. Dice of the whole volume: \
         {values}.",
        picture.slice,
        picture.slices,
        picture.case.case,
        picture.case.site,
        present(true),
        present(false)
    );
    let millimetres = |share: f64| format!("{:.2}", width * share);
    let bar = scale_bar(width);
    let (left, right, middle) = (millimetres(0.02), millimetres(0.98), format!("{:.2}", height / 2.0));
    html! {
        figure.case {
            svg viewBox={ "0 0 " (format!("{width:.2} {height:.2}")) } role="img" aria-label=(alternative) {
                image width=(format!("{width:.2}")) height=(format!("{height:.2}")) preserveAspectRatio="none"
                    href={ "data:image/png;base64," (STANDARD.encode(&picture.png)) } {}
                @for contour in &picture.contours {
                    @let class = contour_class(contour.class, contour.truth);
                    path class={ "halo " (class) } transform=(scale) d=(contour.path) {}
                    path class=(class) transform=(scale) d=(contour.path) {}
                }
                g.side font-size=(millimetres(0.055)) {
                    text x=(left) y=(middle) dominant-baseline="middle" { "R" }
                    text x=(right) y=(middle) text-anchor="end" dominant-baseline="middle" { "L" }
                    @let base = format!("{:.2}", height - width * 0.03);
                    path.bar d={ "M" (left) " " (base) "h" (bar) } {}
                    @let base = format!("{:.2}", height - width * 0.05);
                    text x=(left) y=(base) font-size=(millimetres(0.04)) { (bar) " mm" }
                }
            }
            figcaption {
                strong { (kind) } ": " (picture.case.case) ", site " (picture.case.site)
                span.more { (values) "; slice " (picture.slice) " of " (picture.slices) ", from the head" }
            }
        }
    }
}

/// A round length of a tenth to a quarter of the width, mm.
fn scale_bar(width: f64) -> f64 {
    let lengths = [100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0];
    lengths.into_iter().find(|length| *length <= width / 4.0).unwrap_or(1.0)
}

/// Where the figures come from, and what they took.
fn provenance(experiment: &Experiment) -> Markup {
    let facts = &experiment.runs[0].provenance;
    let mut configs: Vec<&RunFolder> = Vec::new();
    for run in &experiment.runs {
        if configs.iter().all(|other| other.config_sha256 != run.config_sha256) {
            configs.push(run);
        }
    }
    html! {
        h3 { "Provenance" }
        table.facts {
            caption { "What made these figures." }
            tbody {
                tr { th scope="row" { "Program" } td { (facts.program) } }
                tr {
                    th scope="row" { "Commit" }
                    td { @if let Some(commit) = &facts.commit { code { (commit) } } @else { "unknown" } }
                }
                tr { th scope="row" { "Device" } td { (facts.device) } }
                tr { th scope="row" { "Data, sha256 of the table of files" } td { code { (facts.data_sha256) } } }
                tr { th scope="row" { "Base checkpoint, sha256" } td { code { (facts.base_sha256) } } }
                @for run in &experiment.runs {
                    tr {
                        th scope="row" {
                            "Adapter" @if run.record.adapter_sha256.len() > 1 { "s" }
                            " of seed " (run.record.seed) ", sha256"
                        }
                        td { @for sum in &run.record.adapter_sha256 { code { (sum) } " " } }
                    }
                }
            }
        }
        (times_and_memory(experiment))
        p.note { "Clients’ epochs are added up, and run side by side." }
        @for run in configs {
            details {
                summary { "Experiment file of " (run.name) }
                p.note { code { "config.toml" } ", sha256 " code { (run.config_sha256) } }
                pre tabindex="0" { code { (run.config) } }
            }
        }
    }
}

/// What each run took.
fn times_and_memory(experiment: &Experiment) -> Markup {
    let names = [
        "Seed",
        "Whole run",
        "Clients’ epochs",
        "Waiting for data",
        "Memory, highest",
    ];
    html! {
        table.results role="table" {
            caption { "Time and memory of each run." }
            thead role="rowgroup" {
                tr role="row" {
                    th scope="col" role="columnheader" { "Run" }
                    @for name in names { th.number scope="col" role="columnheader" { (name) } }
                }
            }
            tbody role="rowgroup" {
                @for run in &experiment.runs {
                    tr role="row" {
                        th scope="row" role="rowheader" { (run.name) }
                        @for (name, value) in names.iter().zip(spent(run)) {
                            td.number role="cell" data-label=(name) { (value) }
                        }
                    }
                }
            }
        }
    }
}

/// A run's row of that table.
fn spent(run: &RunFolder) -> [String; 5] {
    let of = |value: &dyn Fn(&Timing) -> Option<String>| run.timing.as_ref().and_then(value).unwrap_or("–".into());
    [
        run.record.seed.to_string(),
        of(&|timing| Some(duration(timing.seconds))),
        of(&|timing| Some(duration(timing.training_seconds))),
        of(&|timing| Some(format!("{:.1} %", timing.waiting_share * 100.0))),
        of(&|timing| timing.peak_memory_bytes.map(|peak| bytes(peak as f64))),
    ]
}

/// A duration in the two largest units that it has.
fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// A Dice or another share.
fn dice(value: f64) -> String {
    format!("{value:.3}").replace('-', MINUS)
}

fn signed(value: f64) -> String {
    format!("{value:+.3}").replace('-', MINUS)
}

fn times(value: f64) -> String {
    let decimals = if value < 100.0 { 1 } else { 0 };
    format!("{value:.decimals$}")
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}
