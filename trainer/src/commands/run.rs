use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::experiment::sweep::{Point, sweep};
use crate::experiment::{Experiment, Record, Setting, Start, run as run_experiment};
use crate::files::{csv_table, write};
use crate::verification::statistics::{OverSeeds, over_seeds};
use crate::verification::suite::placed;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment: its file, or a suite's folder and the experiment's name, such as golden/phantom/methods/flap_sam
    /// ('golden/' may be left out). With a table [sweep] of lists, every experiment that they make together is run.
    #[arg(value_name = "EXPERIMENT")]
    config: PathBuf,
    /// Where the run folders go; one for each seed.
    #[arg(long, default_value = "runs")]
    out: PathBuf,
    /// Folder of data sets.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Where to compute, if not where the experiment file says.
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// Move what is in the runs' folders aside and start over, instead of going on with it or refusing it.
    #[arg(long)]
    replace: bool,
    /// Print the records, and Dice over the seeds, as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let address = placed(&args.config);
    match sweep(&address)? {
        Some(points) => run_sweep(&args, &points),
        None => run_one(&args, &Experiment::read(&address)?),
    }
}

fn run_one(args: &Args, experiment: &Experiment) -> Result<Outcome> {
    let records = run_seeds(args, experiment, &args.out.join(experiment.name()))?;
    let over_seeds = over_seeds(&records);
    if args.json {
        print_json(&json!({"runs": records, "over_seeds": over_seeds}))?;
    } else if records.len() > 1 {
        print_over_seeds(&over_seeds);
    }
    Ok(Outcome::Passed)
}

/// Runs an experiment with each of its seeds, into folders that begin with `out`.
fn run_seeds(args: &Args, experiment: &Experiment, out: &Path) -> Result<Vec<Record>> {
    let device = OpenDevice::open(args.device.unwrap_or(experiment.device))?;
    let start = match args.replace {
        true => Start::Replace,
        false => Start::GoOn,
    };
    let mut records = Vec::new();
    for &seed in &experiment.seeds {
        let out = PathBuf::from(format!("{}-{seed}", out.display()));
        let record = run_experiment(experiment, seed, &args.data, &device, &out, start)?;
        if !args.json {
            println!(
                "{}, seed {seed}, on {}: {}",
                experiment.title,
                device.name,
                out.display()
            );
            print_record(&record);
        }
        records.push(record);
    }
    Ok(records)
}

/// Dice of an experiment of a sweep, over its seeds and all test cases.
#[derive(Debug, Serialize)]
struct Swept {
    values: Vec<(String, String)>,
    seeds: usize,
    dice: Vec<OverSeeds>,
}

/// Runs every experiment of a sweep, those that are there already left as they are, and shows them in one table.
fn run_sweep(args: &Args, points: &[Point]) -> Result<Outcome> {
    let mut table = Vec::new();
    let folder = args.out.join(points[0].experiment.name());
    for point in points {
        let records = run_seeds(args, &point.experiment, &folder.join(&point.name))?;
        let all = records[0].dice_rows().pop().map(|(row, _)| row).unwrap_or_default();
        let mut dice = over_seeds(&records);
        dice.retain(|row| row.row == all);
        table.push(Swept {
            values: point.values.clone(),
            seeds: records.len(),
            dice,
        });
    }
    write(&folder.join("sweep.csv"), &csv_table(rows_of(&table))?)?;
    match args.json {
        true => print_json(&table)?,
        false => print_sweep(&table),
    }
    Ok(Outcome::Passed)
}

/// A row for each class of each experiment, behind the names of the columns.
fn rows_of(table: &[Swept]) -> Vec<Vec<String>> {
    let keys = table[0].values.iter().map(|(key, _)| key.clone());
    let columns = ["class", "seeds", "dice_mean", "dice_sd"].map(str::to_owned);
    let mut rows = vec![keys.chain(columns).collect()];
    for swept in table {
        for row in &swept.dice {
            let sd = row.standard_deviation.map_or(String::new(), |sd| sd.to_string());
            let values = swept.values.iter().map(|(_, value)| value.clone());
            let figures = [row.class.clone(), swept.seeds.to_string(), row.mean.to_string(), sd];
            rows.push(values.chain(figures).collect());
        }
    }
    rows
}

fn print_sweep(table: &[Swept]) {
    println!("\nDice on all test cases: mean over the seeds, and their standard deviation");
    for swept in table {
        let values: Vec<String> = swept
            .values
            .iter()
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        let figure = |row: &OverSeeds| {
            let sd = row.standard_deviation.map_or(String::new(), |sd| format!(" ± {sd:.4}"));
            format!("{} {:.4}{sd}", row.class, row.mean)
        };
        let figures: Vec<String> = swept.dice.iter().map(figure).collect();
        println!("  {:<48}{}", values.join(", "), figures.join(", "));
    }
}

fn print_record(record: &Record) {
    println!("{}", record.data_description);
    let row = |name: &str, dice: &[f64]| {
        let values: Vec<String> = dice.iter().map(|dice| format!("{dice:>10.4}")).collect();
        println!("{name:<28}{}", values.join(""));
    };
    let classes: Vec<String> = record.classes[1..].iter().map(|class| format!("{class:>10}")).collect();
    println!("{:<28}{}", "Dice", classes.join(""));
    row("untrained adapter", &record.untrained_dice);
    for (name, dice) in record.dice_rows() {
        row(&name, dice);
    }
    row(
        &format!("surface, within {} mm", record.surface_tolerance_mm),
        &record.surface_dice,
    );
    print_hausdorff(record);
    if let Some(first) = record.rounds.first().filter(|_| record.setting == Setting::Federated) {
        println!(
            "{} parameters trained; {} bytes up and {} down a round",
            record.trained_parameters, first.traffic.up, first.traffic.down
        );
    }
}

fn print_hausdorff(record: &Record) {
    if record.cases.is_empty() {
        return;
    }
    let mut distances = String::new();
    let mut cases = Vec::new();
    let by_class = record.hausdorff_95_mm.iter().zip(&record.hausdorff_95_cases);
    for (class, (distance, count)) in record.classes[1..].iter().zip(by_class) {
        let distance = distance.map_or_else(|| "none".to_owned(), |distance| format!("{distance:.2}"));
        distances += &format!("{distance:>10}");
        cases.push(format!("{count} for {class}"));
    }
    println!("{:<28}{distances}", "95 % Hausdorff distance, mm");
    println!(
        "Distances are of the test cases with the class in both mask and labels: {}, of {}",
        cases.join(", "),
        record.cases.len()
    );
}

fn print_over_seeds(rows: &[OverSeeds]) {
    println!("\nDice over the seeds: mean and standard deviation");
    for row in rows {
        let deviation = row
            .standard_deviation
            .map_or(String::new(), |deviation| format!("{deviation:>10.4}"));
        println!("{:<28}{:<16}{:>10.4}{deviation}", row.row, row.class, row.mean);
    }
}
