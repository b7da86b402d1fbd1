//! The plots of a comparison and of an experiment.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::format::{dice, joined};
use super::plots::{Axis, Level, Plot, STYLES, Series, bytes, marker};
use super::{Comparison, Experiment, Group, Report};

/// Plots side by side, with what they have in common.
#[derive(Debug)]
pub struct Figure {
    /// What it shows, in words that a file's name may have.
    name: String,
    /// Each with what it is of, a class if of anything in particular.
    plots: Vec<(String, Plot)>,
    /// Style and name of each series, where the plots do not say it themselves.
    legend: Vec<(usize, String)>,
    /// What a reader must know.
    caption: Markup,
}

impl Figure {
    /// As a part of the page.
    pub fn html(&self) -> Markup {
        html! {
            figure {
                div.panels { @for (_, plot) in &self.plots { (plot.svg()) } }
                @if !self.legend.is_empty() { (legend(&self.legend)) }
                figcaption { (self.caption) }
            }
        }
    }

    /// Each plot as an SVG file by itself, with the words of its name. `note` is written below it.
    fn files(&self, note: &str) -> impl Iterator<Item = (String, String)> {
        self.plots.iter().map(move |(of, plot)| {
            let words = [self.name.as_str(), of].join(" ");
            (words.trim_end().to_owned(), plot.file(&self.legend, note))
        })
    }
}

/// The plots of the page as SVG files, each with its name, in the page's order.
pub fn files(report: &Report) -> Vec<(String, String)> {
    let of_comparison = |comparison: &Comparison| {
        let note = format!("{} ({})", comparison.data, comparison.kind.words());
        let losses = comparison.experiments.iter().map(loss_figure);
        let figures = [bytes_figure(comparison), rounds_figure(comparison)];
        let figures: Vec<Figure> = figures.into_iter().chain(losses).flatten().collect();
        figures
            .iter()
            .flat_map(|figure| figure.files(&note))
            .collect::<Vec<_>>()
    };
    let files = report.comparisons.iter().flat_map(of_comparison).enumerate();
    files
        .map(|(place, (words, svg))| (format!("{:02}-{}.svg", place + 1, file_name(&words)), svg))
        .collect()
}

/// Words as a file's name: of a class or an experiment it may be anything.
fn file_name(words: &str) -> String {
    let parts = words
        .split(|sign: char| !sign.is_alphanumeric())
        .filter(|part| !part.is_empty());
    let name: String = parts.collect::<Vec<_>>().join("-").to_lowercase();
    name.chars().take(60).collect()
}

/// Of so many methods the way to each point can be told apart.
const WAYS: usize = 3;

/// Dice over bytes: each method a point, with its way there where that is known and the methods are few.
pub fn bytes_figure(comparison: &Comparison) -> Option<Figure> {
    let shown = OverBytes::of(comparison);
    let sending = shown.sending().count();
    if sending == 0 || (sending + shown.silent.len() == 1 && !shown.ways) {
        return None;
    }
    let all: Vec<f64> = shown
        .sending()
        .flat_map(|(_, experiment)| shown.points(experiment, 0))
        .map(|point| point.0)
        .collect();
    let plots = plots(comparison, |class, name| shown.plot(class, name, &all));
    let caption = html! {
        strong { "Dice over bytes. " }
        "Each large mark is a method after its last round"
        @if shown.sending().any(|(_, experiment)| experiment.seeds.len() > 1) {
            ", mean over seeds; beside it, small, each seed"
        }
        @if shown.ways { "; the line is its way there, round by round" }
        ". Left is cheaper, up is better."
        @if !shown.silent.is_empty() { " Dotted: where nothing is sent." }
        (about_axes(&plots))
        @if plots.iter().any(|(_, plot)| plot.has_below()) { " ↓ lies below the axis." }
        (left_out(comparison, &shown.plotted))
    };
    Some(Figure {
        name: "Dice over bytes".into(),
        plots,
        legend: Vec::new(),
        caption,
    })
}

/// What the plots of Dice over bytes show.
struct OverBytes<'a> {
    plotted: Vec<&'a Experiment>,
    /// Where nothing is sent.
    silent: Vec<&'a Experiment>,
    /// Whether the way to each point is shown.
    ways: bool,
}

impl<'a> OverBytes<'a> {
    fn of(comparison: &'a Comparison) -> Self {
        let mut shown = Self {
            plotted: plotted(comparison),
            silent: silent(comparison),
            ways: false,
        };
        shown.ways = shown.plotted.len() <= WAYS && shown.sending().any(|(_, experiment)| experiment.has_curve());
        shown
    }

    /// What has a place on a logarithmic scale of bytes, each with its style.
    fn sending(&self) -> impl Iterator<Item = (usize, &'a Experiment)> {
        numbered(&self.plotted).filter(|(_, experiment)| experiment.bytes_up > 0)
    }

    /// Where an experiment is after its last round, and before it the way there.
    fn points(&self, experiment: &Experiment, class: usize) -> Vec<(f64, f64)> {
        // Nothing sent has no place on a logarithmic scale.
        let curve = experiment.curve.iter();
        let curve = curve.filter(|point| self.ways && point.bytes_up > 0);
        let mut points: Vec<(f64, f64)> = curve.map(|point| (point.bytes_up as f64, point.dice[class])).collect();
        let last = (experiment.bytes_up as f64, experiment.classes[class].dice.mean);
        if points.last().is_none_or(|point| point.0 < last.0) {
            points.push(last);
        }
        points
    }

    /// The plot of a class; `all` are the bytes of all points.
    fn plot(&self, class: usize, name: &str, all: &[f64]) -> Plot {
        let ends = self.plotted.iter().chain(&self.silent).map(|experiment| {
            let value = dice(experiment.classes[class].dice.mean);
            format!("{} {}, {value}", experiment.name, bytes(experiment.bytes_up as f64))
        });
        let levels = self.silent.iter().map(|experiment| Level {
            label: experiment.name.clone(),
            y: experiment.classes[class].dice.mean,
        });
        let levels: Vec<Level> = levels.collect();
        let marks = self.sending().flat_map(|(_, experiment)| {
            let points = self.points(experiment, class).into_iter();
            points.chain(seeds(experiment, class))
        });
        let heights = marks.map(|point| point.1).chain(levels.iter().map(|level| level.y));
        let heights: Vec<f64> = heights.collect();
        let y = Axis::around_most(&format!("Dice, {name}"), &heights);
        let label = |experiment: &Experiment| match experiment.classes[class].dice.mean {
            below if y.is_below(below) => format!("{}, {} ↓", experiment.name, dice(below)),
            _ => experiment.name.clone(),
        };
        let series = self.sending().map(|(style, experiment)| Series {
            style,
            label: Some(label(experiment)),
            points: self.points(experiment, class),
            scattered: seeds(experiment, class),
        });
        let series: Vec<Series> = series.collect();
        Plot {
            alternative: format!(
                "Dice of {name} over bytes sent up: {}.",
                ends.collect::<Vec<_>>().join("; ")
            ),
            x: Axis::bytes("bytes sent up, all clients, log scale", all),
            series,
            levels,
            y,
        }
    }
}

/// Where an experiment is with each seed, where it has several.
fn seeds(experiment: &Experiment, class: usize) -> Vec<(f64, f64)> {
    let runs = experiment.runs.iter().filter(|_| experiment.runs.len() > 1);
    runs.map(|run| (run.bytes_up() as f64, run.record.dice[class]))
        .collect()
}

/// What the plots show: the methods; where there is none, the variants, those without a site, or clients alone. No more
/// than can be told apart.
fn plotted(comparison: &Comparison) -> Vec<&Experiment> {
    let group = first_group(comparison);
    comparison.group(group).take(STYLES).collect()
}

fn first_group(comparison: &Comparison) -> Group {
    let groups = [Group::Method, Group::Variant, Group::LeftOut];
    let first = groups
        .into_iter()
        .find(|group| comparison.group(*group).next().is_some());
    first.unwrap_or(Group::Alone)
}

fn left_out(comparison: &Comparison, plotted: &[&Experiment]) -> Markup {
    let all = comparison.group(first_group(comparison)).count();
    html! { @if all > plotted.len() { " Only the first " (plotted.len()) " of " (all) " are shown." } }
}

/// The example's method where nothing is sent: each client alone, and all data in one place.
fn silent(comparison: &Comparison) -> Vec<&Experiment> {
    let method = comparison.experiments[comparison.example()].method;
    let silent = comparison.experiments.iter();
    let silent = silent.filter(|experiment| experiment.bytes_up == 0 && experiment.method == method);
    let silent = silent.filter(|experiment| experiment.group() != Group::LeftOut);
    silent.take(2).collect()
}

/// What a reader of the axes must not overlook.
fn about_axes(plots: &[(String, Plot)]) -> Markup {
    html! {
        @match plots.iter().any(|(_, plot)| !plot.y.begins_at_zero()) {
            true if plots.len() > 1 => " The Dice axes of the panels differ, and not all begin at 0.",
            true => " The Dice axis does not begin at 0.",
            false if plots.len() > 1 => " The Dice axes of the panels differ.",
            false => "",
        }
    }
}

/// Dice over rounds, of the experiments that were judged on the way.
pub fn rounds_figure(comparison: &Comparison) -> Option<Figure> {
    let plotted = plotted(comparison);
    let judged = || numbered(&plotted).filter(|(_, experiment)| experiment.has_curve());
    let last = judged().map(|(_, experiment)| experiment.rounds).max();
    let last = last?;
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
            scattered: Vec::new(),
        });
        let series: Vec<Series> = series.collect();
        let heights: Vec<f64> = series
            .iter()
            .flat_map(|series| &series.points)
            .map(|point| point.1)
            .collect();
        Plot {
            alternative: format!("Dice of {name} over rounds. {}.", values.collect::<Vec<_>>().join("; ")),
            x: Axis::counting("round", last),
            y: Axis::around(&format!("Dice, {name}"), &heights),
            series,
            levels: Vec::new(),
        }
    };
    let plots = plots(comparison, plot);
    let silent: Vec<&str> = plotted
        .iter()
        .filter(|experiment| !experiment.has_curve())
        .map(|experiment| experiment.name.as_str())
        .collect();
    let caption = html! {
        strong { "Dice over rounds" } " of the server’s state on all test cases"
        @if judged().any(|(_, experiment)| experiment.seeds.len() > 1) { ", mean over seeds" }
        "."
        (about_axes(&plots))
        @if !silent.is_empty() { " " (joined(&silent)) ": judged after the last round only." }
        (left_out(comparison, &plotted))
    };
    Some(Figure {
        name: "Dice over rounds".into(),
        plots,
        legend: judged()
            .map(|(style, experiment)| (style, experiment.name.clone()))
            .collect(),
        caption,
    })
}

/// The experiments, each with its style.
fn numbered<'a>(plotted: &[&'a Experiment]) -> impl Iterator<Item = (usize, &'a Experiment)> {
    plotted.iter().copied().enumerate()
}

/// One plot for each class.
fn plots(comparison: &Comparison, plot: impl Fn(usize, &str) -> Plot) -> Vec<(String, Plot)> {
    let classes = comparison.classes.iter().enumerate();
    classes.map(|(class, name)| (name.clone(), plot(class, name))).collect()
}

fn legend(entries: &[(usize, String)]) -> Markup {
    html! {
        ul.legend {
            @for (style, name) in entries {
                li {
                    svg viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" {
                        g class={ "series-" (style % STYLES) } {
                            line.line x1="0" x2="30" y1="6" y2="6" {}
                            (marker(*style, 15.0, 6.0, 4.0))
                        }
                    }
                    " " (name)
                }
            }
        }
    }
}

/// Training loss of the first seed, where Dice over rounds is not known.
pub fn loss_figure(experiment: &Experiment) -> Option<Figure> {
    if experiment.has_curve() {
        return None;
    }
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
            scattered: Vec::new(),
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
        return None;
    }
    let plot = Plot {
        alternative,
        x: Axis::counting("round", experiment.rounds),
        y: Axis::from_zero("training loss", highest),
        series,
        levels: Vec::new(),
    };
    let caption = html! {
        strong { "Training loss over rounds" } " by client, seed " (record.seed)
        ". Dice over rounds is not known: the experiment did not ask for it (" code { "dice_every" } ")."
    };
    Some(Figure {
        name: format!("training loss {}", experiment.name),
        plots: vec![(String::new(), plot)],
        legend: sites.iter().map(|site| (*site).clone()).enumerate().collect(),
        caption,
    })
}
