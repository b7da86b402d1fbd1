//! All about each experiment: by client, best and worst cases, provenance.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::comparison::mean;
use super::figures::loss_figure;
use super::format::{dice, duration, millimetres};
use super::plots::bytes;
use super::tables::{Table, numbers};
use super::{Experiment, Picture, Report, RunFolder};
use crate::experiment::{MeanScores, Setting, Timing};

/// Everything that a report says of its experiments one by one: of several each is folded, but for the examples.
pub fn details(report: &Report) -> Markup {
    let several = report.comparisons.len() > 1 || report.comparisons.iter().any(|all| all.experiments.len() > 1);
    let all = || {
        report.comparisons.iter().flat_map(|comparison| {
            let experiments = comparison.experiments.iter();
            experiments.map(move |experiment| (comparison, experiment))
        })
    };
    html! {
        section {
            h2 { @if several { "Each experiment" } @else { "Details" } }
            @for (comparison, experiment) in all() {
                @if several {
                    details.experiment open[experiment.pictures.is_some()] {
                        summary {
                            (experiment.name)
                            @if report.comparisons.len() > 1 { " on " (comparison.data) }
                            span.more { (experiment.title) }
                        }
                        (of_experiment(experiment))
                    }
                } @else { (of_experiment(experiment)) }
            }
        }
    }
}

fn of_experiment(experiment: &Experiment) -> Markup {
    html! {
        (clients(experiment))
        @if let Some(figure) = loss_figure(experiment) { (figure.html()) }
        (left_out(experiment))
        @if let Some(pictures) = &experiment.pictures {
            h3 { "Best and worst cases" }
            @match pictures {
                Ok(pictures) => (gallery(pictures, experiment)),
                Err(why) => p.missing { "No pictures: " (why) "." },
            }
        }
        (provenance(experiment))
    }
}

/// The updates that the server did not use, where there are any.
fn left_out(experiment: &Experiment) -> Markup {
    let of_run = |run: &RunFolder| {
        let (seed, rounds) = (run.record.seed, run.record.rounds.clone());
        rounds.into_iter().flat_map(move |round| {
            let row = move |(client, why): (String, String)| {
                let cells = vec![html! { (round.round) }, html! { (why) }];
                (html! { (client) ", seed " (seed) }, cells)
            };
            round.left_out.into_iter().map(row)
        })
    };
    let rows: Vec<_> = experiment.runs.iter().flat_map(of_run).collect();
    if rows.is_empty() {
        return html! {};
    }
    let table = Table {
        caption: html! { "Updates of clients that the server left out of a round." },
        what: "Client",
        columns: vec![("Round".into(), true), ("Why".into(), false)],
        rows,
    };
    html! {
        h3 { "Left out" }
        (table.html())
    }
}

/// Scores by client and class; of clients alone, also Dice of each client's own model.
fn clients(experiment: &Experiment) -> Markup {
    let first = &experiment.runs[0].record;
    let sites: BTreeSet<&String> = first.weights.keys().chain(first.dice_by_site.keys()).collect();
    let groups = column_groups(experiment);
    let row = |site: &String| {
        let cases = first.cases.iter().filter(|case| case.site == *site).count();
        let no_weight = match first.left_out.as_ref() == Some(site) {
            true => "left out",
            false => "–",
        };
        let weight = first.weights.get(site).map_or(no_weight.into(), |weight| dice(*weight));
        [weight, cases.to_string()]
            .into_iter()
            .chain(scores(experiment, Some(site)))
            .collect::<Vec<String>>()
    };
    let all = [dice(1.0), experiment.test_cases.to_string()].into_iter();
    let untrained = experiment.classes.iter().map(|figures| dice(figures.untrained));
    let before = ["–".into(), experiment.test_cases.to_string()].into_iter();
    let unknown = groups.len().saturating_sub(1) * experiment.classes.len();
    let before = before.chain(untrained).chain(std::iter::repeat_n("–".into(), unknown));
    html! {
        h3 { "By client" }
        div.wide tabindex="0" role="region" aria-label="Scores by client" {
            table.grouped {
                caption {
                    div.held {
                        (whose_scores(experiment))
                        @if experiment.seeds.len() > 1 { ", mean over seeds" }
                        "."
                    }
                }
                (client_columns(experiment, &groups))
                tbody { @for site in sites { (cells(site, row(site))) } }
                tfoot {
                    (cells("All", all.chain(scores(experiment, None))))
                    (cells("Before training", before))
                }
            }
        }
    }
}

/// Whose model that table judges, and on what.
fn whose_scores(experiment: &Experiment) -> &'static str {
    match experiment.setting {
        Setting::Federated if experiment.runs[0].settings.has_personal_models() => {
            "Each client’s own model on its own test cases"
        }
        Setting::Federated => "The federated model on each client’s test cases",
        Setting::Pooled => "The model of all data on each client’s test cases",
        Setting::Alone => "Each client’s test cases, mean over the clients’ models",
    }
}

/// That table's head, with a column of each class in every group.
fn client_columns(experiment: &Experiment, groups: &[String]) -> Markup {
    html! {
        thead {
            tr {
                @for name in ["Client", "Weight", "Test cases"] {
                    th.number[name != "Client"] rowspan="2" scope="col" { (name) }
                }
                @for group in groups {
                    th.over colspan=(experiment.classes.len()) scope="colgroup" { (group) }
                }
            }
            tr {
                @for _ in groups {
                    @for figures in &experiment.classes { th.number scope="col" { (figures.class) } }
                }
            }
        }
    }
}

/// What that table has of each class.
fn column_groups(experiment: &Experiment) -> Vec<String> {
    let own =
        (experiment.setting == Setting::Alone).then(|| "Dice of the client’s own model, all test cases".to_owned());
    let surfaces = [
        format!("Surface Dice, {} mm", experiment.surface_tolerance_mm),
        "HD95, mm".to_owned(),
    ];
    let surfaces = surfaces.into_iter().filter(|_| has_surfaces(experiment));
    ["Dice".to_owned()].into_iter().chain(own).chain(surfaces).collect()
}

fn has_surfaces(experiment: &Experiment) -> bool {
    experiment.classes.iter().any(|figures| figures.surface.is_some())
}

/// The cells of those columns, of a site's test cases or of all; a dash where there is no value.
fn scores(experiment: &Experiment, site: Option<&str>) -> Vec<String> {
    let classes = 0..experiment.classes.len();
    let cases = experiment.runs.iter().flat_map(|run| &run.record.cases);
    let means = MeanScores::of(cases.filter(|case| site.is_none_or(|site| case.site == site)));
    let written = |value: Option<f64>, write: fn(f64) -> String| value.map_or("–".into(), write);
    let of_all = |class: usize| written(means.dice.get(class).copied(), dice);
    let own = |class: usize| match site {
        Some(site) => written(own_model(experiment, site, class), dice),
        None => of_all(class),
    };
    let surface = |class: usize| written(means.surface_dice.get(class).copied(), dice);
    let distance = |class: usize| written(means.hausdorff_95_mm.get(class).copied().flatten(), millimetres);
    let mut cells: Vec<String> = classes.clone().map(of_all).collect();
    if experiment.setting == Setting::Alone {
        cells.extend(classes.clone().map(own));
    }
    if has_surfaces(experiment) {
        cells.extend(classes.clone().map(surface).chain(classes.map(distance)));
    }
    cells
}

/// A client's own model's Dice of a class on all test cases, mean over seeds.
fn own_model(experiment: &Experiment, site: &str, class: usize) -> Option<f64> {
    let of_run = |run: &RunFolder| run.record.alone.get(site)?.get(class).copied();
    let values: Option<Vec<f64>> = experiment.runs.iter().map(of_run).collect();
    values.map(|values| mean(values.into_iter()))
}

/// A table's row of numbers.
fn cells(name: &str, values: impl IntoIterator<Item = String>) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            @for value in values { td.number { (value) } }
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
            "Grey from black to white is the range that the network gets, or the 0.5 to 99.5 percentiles where the \
             scans are not clipped."
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
    let values = dice_by_class(picture, classes);
    let scale = format!("scale({:.6} {:.6})", width / columns as f64, height / rows as f64);
    let kind = if picture.best {
        "Among the best"
    } else {
        "Among the worst"
    };
    html! {
        figure.case {
            svg viewBox={ "0 0 " (format!("{width:.2} {height:.2}")) } role="img"
                aria-label=(in_words(picture, classes, &values)) {
                image width=(format!("{width:.2}")) height=(format!("{height:.2}")) preserveAspectRatio="none"
                    href={ "data:image/png;base64," (STANDARD.encode(&picture.png)) } {}
                @for contour in &picture.contours {
                    @let class = contour_class(contour.class, contour.truth);
                    path class={ "halo " (class) } transform=(scale) d=(contour.path) {}
                    path class=(class) transform=(scale) d=(contour.path) {}
                }
                (sides_and_scale(picture.size))
            }
            figcaption {
                strong { (kind) } ": " (picture.case.case) ", site " (picture.case.site)
                span.more { (values) "; slice " (picture.slice) " of " (picture.slices) ", from the head" }
            }
        }
    }
}

/// The case's Dice, class by class.
fn dice_by_class(picture: &Picture, classes: &[&str]) -> String {
    let figures = classes.iter().zip(&picture.case.dice).enumerate();
    let values = figures.map(|(place, (class, value))| {
        let absent = if picture.absent.contains(&place) {
            " (there is none)"
        } else {
            ""
        };
        format!("{class} {}{absent}", dice(*value))
    });
    values.collect::<Vec<_>>().join(", ")
}

/// What a picture shows, for those who do not see it; `values` are its Dice.
fn in_words(picture: &Picture, classes: &[&str], values: &str) -> String {
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
    format!(
        "Axial slice {} of {} of case {}, site {}, with outlines: true {}, predicted {}. Dice of the whole volume: \
         {values}.",
        picture.slice,
        picture.slices,
        picture.case.case,
        picture.case.site,
        present(true),
        present(false)
    )
}

/// Which side is the patient's right, and a length in mm, over a picture of this height and width.
fn sides_and_scale([height, width]: [f64; 2]) -> Markup {
    let across = |share: f64| format!("{:.2}", width * share);
    let bar = scale_bar(width);
    let (left, right, middle) = (across(0.02), across(0.98), format!("{:.2}", height / 2.0));
    html! {
        g.side font-size=(across(0.055)) {
            text x=(left) y=(middle) dominant-baseline="middle" { "R" }
            text x=(right) y=(middle) text-anchor="end" dominant-baseline="middle" { "L" }
            @let base = format!("{:.2}", height - width * 0.03);
            path.bar d={ "M" (left) " " (base) "h" (bar) } {}
            @let base = format!("{:.2}", height - width * 0.05);
            text x=(left) y=(base) font-size=(across(0.04)) { (bar) " mm" }
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
    let row = |run: &RunFolder| {
        let cells = spent(run).into_iter().map(|cell| html! { (cell) });
        (html! { (run.name) }, cells.collect())
    };
    let table = Table {
        caption: html! { "Time and memory of each run." },
        what: "Run",
        columns: numbers(names.map(str::to_owned)),
        rows: experiment.runs.iter().map(row).collect(),
    };
    table.html()
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
