//! The table of results in the formats that papers and spreadsheets take.

use serde::Serialize;

use super::format::{dice, grouped, millimetres, small, times};
use super::{ClassFigures, Comparison, DataKind, Experiment, Report, Spread};
use crate::error::Result;
use crate::experiment::Setting;
use crate::files::csv_table;

/// The table as Markdown: one for each data set.
pub fn markdown(report: &Report) -> String {
    let table = |comparison: &Comparison| {
        let (columns, rows) = cells(comparison);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule: Vec<String> = columns.iter().map(|_| "---".to_owned()).collect();
        let rows: String = rows.iter().map(|row| line(row)).collect();
        format!("{}\n\n{}{}{rows}", caption(comparison), line(&columns), line(&rule))
    };
    joined(report, table)
}

/// The same as LaTeX, for the package booktabs.
pub fn latex(report: &Report) -> String {
    let table = |comparison: &Comparison| {
        let (columns, rows) = cells(comparison);
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
            format!("    {} \\\\\n", cells.join(" & "))
        };
        let rows: String = rows.iter().map(|row| line(row)).collect();
        format!(
            "\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n  \\begin{{tabular}}{{l{}}}\n    \\toprule\n{}    \\midrule\n\
             {rows}    \\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n",
            escaped(&caption(comparison)),
            "r".repeat(columns.len() - 1),
            line(&columns),
        )
    };
    joined(report, table)
}

/// The same for spreadsheets: a row for each class of each experiment, figures with all their digits.
///
/// # Errors
/// A row cannot be encoded.
pub fn csv(report: &Report) -> Result<Vec<u8>> {
    let experiments = report.comparisons.iter().flat_map(|comparison| {
        let experiments = comparison.experiments.iter();
        experiments.map(move |experiment| (comparison, experiment))
    });
    csv_table(experiments.flat_map(|(comparison, experiment)| {
        let classes = experiment.classes.iter();
        classes.map(move |figures| Row::of(comparison, experiment, figures))
    }))
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    data: &'a str,
    data_kind: DataKind,
    experiment: &'a str,
    method: &'static str,
    setting: Setting,
    /// Apart by blanks.
    seeds: String,
    rounds: usize,
    test_cases: usize,
    class: &'a str,
    dice_mean: f64,
    dice_sd: Option<f64>,
    dice_untrained: f64,
    surface_dice_mean: Option<f64>,
    surface_dice_sd: Option<f64>,
    surface_tolerance_mm: f64,
    hausdorff_95_mm: Option<f64>,
    trained_parameters: usize,
    bytes_up: u64,
    bytes_down: u64,
    times_fewer: Option<f64>,
    epsilon: Option<f64>,
}

impl<'a> Row<'a> {
    fn of(comparison: &'a Comparison, experiment: &'a Experiment, figures: &'a ClassFigures) -> Self {
        let seeds: Vec<String> = experiment.seeds.iter().map(u64::to_string).collect();
        let surface = figures.surface.as_ref();
        Self {
            data: &comparison.data,
            data_kind: comparison.kind,
            experiment: &experiment.name,
            method: experiment.method.name(),
            setting: experiment.setting,
            seeds: seeds.join(" "),
            rounds: experiment.rounds,
            test_cases: experiment.test_cases,
            class: &figures.class,
            dice_mean: figures.dice.mean,
            dice_sd: figures.dice.sd,
            dice_untrained: figures.untrained,
            surface_dice_mean: surface.map(|surface| surface.dice.mean),
            surface_dice_sd: surface.and_then(|surface| surface.dice.sd),
            surface_tolerance_mm: experiment.surface_tolerance_mm,
            hausdorff_95_mm: surface.and_then(|surface| surface.hausdorff_95_mm),
            trained_parameters: experiment.trained_parameters,
            bytes_up: experiment.bytes_up,
            bytes_down: experiment.bytes_down,
            times_fewer: experiment.fewer.map(|fewer| fewer.times),
            epsilon: experiment.epsilon,
        }
    }
}

/// What a table says below or above it: where its data come from before all else.
fn caption(comparison: &Comparison) -> String {
    let spread = match comparison
        .experiments
        .iter()
        .any(|experiment| experiment.seeds.len() > 1)
    {
        true => " and its sample standard deviation over seeds",
        false => "",
    };
    format!(
        "Dice on {} ({}) after the last round: mean over the test cases{spread}. Sent: all clients, all rounds.",
        comparison.data,
        comparison.kind.words()
    )
}

/// A table's columns and rows.
fn cells(comparison: &Comparison) -> (Vec<String>, Vec<Vec<String>>) {
    let experiments = &comparison.experiments;
    let has = |what: &dyn Fn(&Experiment) -> bool| experiments.iter().any(what);
    let surfaces = has(&|experiment| experiment.classes.iter().any(|figures| figures.surface.is_some()));
    let private = has(&|experiment| experiment.epsilon.is_some());
    let mut columns: Vec<String> = ["Experiment", "Seeds"].map(str::to_owned).into();
    for class in &comparison.classes {
        columns.push(format!("Dice, {class}"));
        if surfaces {
            columns.extend([format!("Surface Dice, {class}"), format!("HD95 in mm, {class}")]);
        }
    }
    columns.extend(["Parameters trained", "Bytes sent up", "Bytes sent down", "Times fewer"].map(str::to_owned));
    columns.extend(private.then(|| "Epsilon".to_owned()));
    let none = || "–".to_owned();
    let row = |experiment: &Experiment| {
        let mut row = vec![experiment.name.clone(), experiment.seeds.len().to_string()];
        for figures in &experiment.classes {
            row.push(spread(figures.dice));
            if surfaces {
                let surface = figures.surface.as_ref();
                row.push(surface.map_or_else(none, |surface| spread(surface.dice)));
                let distance = surface.and_then(|surface| surface.hausdorff_95_mm);
                row.push(distance.map_or_else(none, millimetres));
            }
        }
        row.push(grouped(experiment.trained_parameters as u64));
        row.push(grouped(experiment.bytes_up));
        row.push(grouped(experiment.bytes_down));
        row.push(experiment.fewer.map_or_else(none, |fewer| times(fewer.times)));
        if private {
            row.push(experiment.epsilon.map_or_else(none, small));
        }
        row
    };
    (columns, experiments.iter().map(row).collect())
}

fn spread(figure: Spread) -> String {
    let mean = dice(figure.mean);
    figure.sd.map_or(mean.clone(), |sd| format!("{mean} ± {}", dice(sd)))
}

fn joined(report: &Report, table: impl Fn(&Comparison) -> String) -> String {
    let tables: Vec<String> = report.comparisons.iter().map(table).collect();
    tables.join("\n")
}

/// A text whose signs mean nothing to LaTeX.
fn escaped(text: &str) -> String {
    let escape = |sign: char| match sign {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{sign}"),
        '\\' => "\\textbackslash{}".into(),
        '~' => "\\textasciitilde{}".into(),
        '^' => "\\textasciicircum{}".into(),
        '±' => "$\\pm$".into(),
        '–' => "--".into(),
        '\u{2212}' => "$-$".into(),
        '<' => "$<$".into(),
        '>' => "$>$".into(),
        _ => sign.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latex_takes_every_sign() {
        assert_eq!(
            escaped("LoRA & 5 % of_a^2 \\ ±"),
            "LoRA \\& 5 \\% of\\_a\\textasciicircum{}2 \\textbackslash{} $\\pm$"
        );
    }
}
