//! The tables of results.

use maud::{Markup, html};

use super::format::{count, dice, grouped, millimetres, signed, small, times};
use super::plots::bytes;
use super::{ClassFigures, Comparison, Experiment, Group};

/// A table whose rows become cards on narrow screens.
pub struct Table {
    /// What it shows.
    pub caption: Markup,
    /// What each row is.
    pub what: &'static str,
    /// What each further column holds, and whether numbers.
    pub columns: Vec<(String, bool)>,
    /// Each row's name and cells.
    pub rows: Vec<(Markup, Vec<Markup>)>,
}

impl Table {
    /// The table.
    pub fn html(&self) -> Markup {
        let class = |number: bool| number.then_some("number");
        html! {
            // Roles that tables have anyhow: without them, the cards of narrow screens are no table to screen readers.
            table.results role="table" {
                caption { (self.caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        th scope="col" role="columnheader" { (self.what) }
                        @for (name, number) in &self.columns {
                            th class=[class(*number)] scope="col" role="columnheader" { (name) }
                        }
                    }
                }
                tbody role="rowgroup" {
                    @for (name, cells) in &self.rows {
                        tr role="row" {
                            th scope="row" role="rowheader" { (name) }
                            @for ((column, number), cell) in self.columns.iter().zip(cells) {
                                td class=[class(*number)] role="cell" data-label=(column) { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Columns of numbers.
pub fn numbers(names: impl IntoIterator<Item = String>) -> Vec<(String, bool)> {
    names.into_iter().map(|name| (name, true)).collect()
}

fn dice_columns(comparison: &Comparison) -> impl Iterator<Item = String> {
    comparison.classes.iter().map(|class| format!("Dice, {class}"))
}

/// The paper's table.
pub fn methods(comparison: &Comparison) -> Markup {
    let experiments: Vec<&Experiment> = comparison.group(Group::Method).collect();
    if experiments.is_empty() {
        return html! {};
    }
    let gains = experiments.iter().any(|experiment| experiment.mean_gain().is_some());
    let gain = gains.then(|| "Gain over clients alone".to_owned());
    let sent = ["Sent up", "Times fewer", "Parameters trained"].map(str::to_owned);
    let row = |experiment: &&Experiment| {
        let cells = experiment.classes.iter().map(class_cell);
        let gain = gains.then(|| gain_cell(experiment, experiment.mean_gain(), |figures| figures.gain_over_alone));
        let sent = [
            sent_cell(experiment.bytes_up),
            fewer_cell(experiment),
            trained_cell(experiment),
        ];
        (name_cell(experiment), cells.chain(gain).chain(sent).collect())
    };
    let table = Table {
        caption: html! {
            strong { "Methods. " }
            "Dice on " (comparison.data) " after the last round, and what each method trains and sends."
        },
        what: "Method",
        columns: numbers(dice_columns(comparison).chain(gain).chain(sent)),
        rows: experiments.iter().map(row).collect(),
    };
    let counted = experiments
        .iter()
        .any(|experiment| experiment.fewer.is_some_and(|fewer| !fewer.measured));
    html! {
        (table.html())
        p.note {
            (what_dice_is(&experiments))
            @if gains {
                " Gain: Dice less the mean of the same method’s clients alone"
                @if comparison.classes.len() > 1 { ", mean over the classes and by class" }
                "."
            }
            " Sent up: all clients, all rounds, measured. Times fewer: than full fine-tuning."
            @if counted {
                " " sup { "c" } " By the number of parameters: no comparable run of full fine-tuning is here."
            }
        }
    }
}

pub fn what_dice_is(experiments: &[&Experiment]) -> Markup {
    html! {
        "Mean Dice over the test cases, whole volumes; both masks empty count as 1, one of them empty as 0."
        @if experiments.iter().any(|experiment| experiment.seeds.len() > 1) {
            " ± is the sample standard deviation over seeds."
        }
    }
}

/// Variants below the method that they vary.
pub fn variants(comparison: &Comparison) -> Markup {
    let variants: Vec<&Experiment> = comparison.group(Group::Variant).collect();
    if variants.is_empty() {
        return html! {};
    }
    let varied = |method: &&Experiment| variants.iter().any(|variant| variant.method == method.method);
    let methods: Vec<&Experiment> = comparison.group(Group::Method).filter(varied).collect();
    let experiments = beside_their_methods(comparison, &methods, &variants);
    let base = match methods[..] {
        [only] => only.name.clone(),
        _ => "the method".into(),
    };
    let known = Known {
        gains: variants
            .iter()
            .any(|experiment| experiment.mean_gain_over_method().is_some()),
        errors: experiments.iter().any(|experiment| experiment.lora_error.is_some()),
        epsilons: experiments.iter().any(|experiment| experiment.epsilon.is_some()),
    };
    let caption = html! {
        strong {
            "Variants"
            @if let [only] = methods[..] { " of " (only.name) }
            ". "
        }
        "What changes with one setting"
        @if !methods.is_empty() { "; first " (base) " by itself" }
        "."
    };
    html! {
        (variant_table(comparison, &experiments, &base, known, caption).html())
        p.note {
            @if comparison.group(Group::Method).next().is_none() { (what_dice_is(&variants)) " " }
            (about_variants(&base, known))
            @if variants.iter().any(|experiment| experiment.bytes_up == 0) {
                "Pooled data are in one place: nothing is sent."
            }
        }
    }
}

/// Which figures of variants are known, and so have a column.
#[derive(Clone, Copy)]
struct Known {
    gains: bool,
    errors: bool,
    epsilons: bool,
}

/// Methods and variants in the order of their methods, each method before its variants.
fn beside_their_methods<'a>(
    comparison: &Comparison,
    methods: &[&'a Experiment],
    variants: &[&'a Experiment],
) -> Vec<&'a Experiment> {
    let mut experiments = [methods, variants].concat();
    let place = |experiment: &Experiment| {
        comparison
            .experiments
            .iter()
            .position(|other| other.method == experiment.method)
    };
    // The sort keeps the order of equals: the method by itself comes first.
    experiments.sort_by_key(|experiment| place(experiment));
    experiments
}

fn variant_table(
    comparison: &Comparison,
    experiments: &[&Experiment],
    base: &str,
    known: Known,
    caption: Markup,
) -> Table {
    let gain = known.gains.then(|| format!("Against {base}"));
    let sent = ["Sent up", "Sent down", "Parameters trained"].map(str::to_owned);
    let error = known.errors.then(|| "Error of the average".to_owned());
    let epsilon = known.epsilons.then(|| "Epsilon".to_owned());
    let columns = dice_columns(comparison).chain(gain).chain(sent);
    let row = |experiment: &&Experiment| {
        let cells = experiment.classes.iter().map(class_cell);
        let over = experiment.mean_gain_over_method();
        let gain = known
            .gains
            .then(|| gain_cell(experiment, over, |figures| figures.gain_over_method));
        let sent = [
            sent_cell(experiment.bytes_up),
            sent_cell(experiment.bytes_down),
            trained_cell(experiment),
        ];
        let figure = |value: Option<f64>| html! { (value.map_or("–".into(), small)) };
        let error = known.errors.then(|| figure(experiment.lora_error));
        let epsilon = known.epsilons.then(|| figure(experiment.epsilon));
        let cells = cells.chain(gain).chain(sent).chain(error).chain(epsilon);
        (name_cell(experiment), cells.collect())
    };
    Table {
        caption,
        what: "Variant",
        columns: numbers(columns.chain(error).chain(epsilon)),
        rows: experiments.iter().map(row).collect(),
    }
}

/// What a reader must know of the columns that not every table has.
fn about_variants(base: &str, known: Known) -> Markup {
    html! {
        @if known.gains {
            "Against " (base) ": the difference of Dice at the same seed; it says little where it is smaller \
             than the spread over seeds. "
        }
        @if known.errors {
            "Error of the average: how far the last round’s averaged LoRA pairs lie from the mean of the clients’ \
             products, as a share of its norm. "
        }
        @if known.epsilons {
            "Epsilon: how private a client’s data are, at the delta of its settings, against whoever sees all that \
             clients send; the smaller, the more. A simulated run’s noise follows from its seed and protects nobody. "
        }
    }
}

/// Clients by themselves.
pub fn alone(comparison: &Comparison) -> Markup {
    let experiments: Vec<&Experiment> = comparison.group(Group::Alone).collect();
    if experiments.is_empty() {
        return html! {};
    }
    let range = |experiment: &Experiment, class: usize| {
        let records = experiment.runs.iter().map(|run| &run.record);
        let values = records.flat_map(|record| record.alone.values().map(|dice| dice[class]));
        let values: Vec<f64> = values.collect();
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = values.iter().copied().fold(0.0, f64::max);
        (!values.is_empty()).then(|| format!("{} to {}", dice(lowest), dice(highest)))
    };
    let row = |experiment: &&Experiment| {
        let classes = experiment.classes.iter().enumerate();
        let cells = classes.flat_map(|(class, figures)| {
            let range = range(experiment, class).unwrap_or_else(|| "–".into());
            [class_cell(figures), html! { (range) }]
        });
        (name_cell(experiment), cells.collect())
    };
    let classes = comparison.classes.iter();
    let columns = classes.flat_map(|class| [format!("Dice, {class}"), format!("Lowest to highest, {class}")]);
    let table = Table {
        caption: html! {
            strong { "Clients alone. " }
            "Each client trains by itself and sends nothing; Dice of its model on all test cases, mean over the \
             clients, and from the lowest client’s to the highest’s."
        },
        what: "Method",
        columns: numbers(columns),
        rows: experiments.iter().map(row).collect(),
    };
    html! {
        (table.html())
        @if comparison.group(Group::Method).chain(comparison.group(Group::Variant)).next().is_none() {
            p.note { (what_dice_is(&experiments)) }
        }
    }
}

/// Surface Dice and Hausdorff distances, where they were measured.
pub fn surfaces(comparison: &Comparison) -> Markup {
    let measured = |experiment: &&Experiment| experiment.classes.iter().any(|figures| figures.surface.is_some());
    let experiments: Vec<&Experiment> = comparison.experiments.iter().filter(measured).collect();
    let Some(first) = experiments.first() else {
        return html! {};
    };
    let one_tolerance = experiments
        .iter()
        .all(|experiment| experiment.surface_tolerance_mm == first.surface_tolerance_mm);
    let names = ["Surface Dice", "HD95, mm", "Cases with one"];
    html! {
        div.wide tabindex="0" role="region" aria-label="Surface scores" {
            table.grouped {
                caption {
                    // As wide as the screen, even where the table is wider.
                    div.held {
                        strong { "Surface scores. " }
                        "Surface Dice" @if one_tolerance { " within " (first.surface_tolerance_mm) " mm" }
                        ", and the 95 % Hausdorff distance (HD95), after the last round."
                    }
                }
                thead {
                    tr {
                        th rowspan="2" scope="col" { "Experiment" }
                        @for class in &comparison.classes {
                            th.over colspan=(names.len()) scope="colgroup" { (class) }
                        }
                    }
                    tr { @for _ in &comparison.classes { @for name in names { th.number scope="col" { (name) } } } }
                }
                @for group in [Group::Method, Group::Variant, Group::LeftOut, Group::Alone] {
                    @let rows = || experiments.iter().filter(|experiment| experiment.group() == group);
                    @if rows().next().is_some() {
                        tbody {
                            @for experiment in rows() {
                                tr {
                                    th scope="row" {
                                        (experiment.name)
                                        @if !one_tolerance {
                                            span.more { "within " (experiment.surface_tolerance_mm) " mm" }
                                        }
                                    }
                                    @for figures in &experiment.classes { (surface_cells(figures)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        p.note {
            "HD95 is the mean over the test cases that have one: those with the class in both the mask and the labels. \
             A model that misses a structure altogether is not punished by it; so read it beside Dice."
            @if experiments.iter().any(|experiment| experiment.seeds.len() > 1) { " Cases of all seeds are counted." }
        }
    }
}

fn surface_cells(figures: &ClassFigures) -> Markup {
    let none = || "–".to_owned();
    let surface = figures.surface.as_ref();
    let cells = [
        surface.map_or_else(none, |surface| dice(surface.dice.mean)),
        surface
            .and_then(|surface| surface.hausdorff_95_mm)
            .map_or_else(none, millimetres),
        surface.map_or_else(none, |surface| {
            format!("{} of {}", surface.hausdorff_95_cases, surface.cases)
        }),
    ];
    html! { @for cell in cells { td.number { (cell) } } }
}

fn name_cell(experiment: &Experiment) -> Markup {
    let seeds: Vec<String> = experiment.seeds.iter().map(u64::to_string).collect();
    html! {
        (experiment.name)
        span.more {
            (count(experiment.rounds, "round")) ", "
            @if seeds.len() == 1 { "seed " } @else { "seeds " } (seeds.join(", "))
        }
    }
}

fn class_cell(figures: &ClassFigures) -> Markup {
    html! {
        (dice(figures.dice.mean))
        @if let Some(sd) = figures.dice.sd { span.more { "± " (dice(sd)) } }
    }
}

fn gain_cell(experiment: &Experiment, mean: Option<f64>, of: impl Fn(&ClassFigures) -> Option<f64>) -> Markup {
    let by_class = || {
        experiment
            .classes
            .iter()
            .filter_map(|figures| Some((&figures.class, of(figures)?)))
    };
    html! {
        (mean.map_or("–".into(), signed))
        @if by_class().count() > 1 {
            span.more { @for (class, gain) in by_class() { span.by-class { (class) " " (signed(gain)) } " " } }
        }
    }
}

fn sent_cell(sent: u64) -> Markup {
    html! {
        (bytes(sent as f64))
        @if sent >= 1000 { span.more { (grouped(sent)) " B" } }
    }
}

fn fewer_cell(experiment: &Experiment) -> Markup {
    html! {
        @match experiment.fewer {
            Some(fewer) => { (times(fewer.times)) @if !fewer.measured { sup { "c" } } },
            None => "–",
        }
    }
}

fn trained_cell(experiment: &Experiment) -> Markup {
    html! { (grouped(experiment.trained_parameters as u64)) }
}
