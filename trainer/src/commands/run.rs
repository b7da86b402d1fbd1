use std::path::PathBuf;

use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::experiment::{Experiment, Record, Setting, run as run_experiment};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment file.
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
    /// Print the records as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let experiment = Experiment::read(&args.config)?;
    let device = OpenDevice::open(args.device.unwrap_or(experiment.device))?;
    let mut records = Vec::new();
    for &seed in &experiment.seeds {
        let out = args.out.join(format!("{}-{seed}", experiment.name()));
        let record = run_experiment(&experiment, seed, &args.data, &device, &out, true)?;
        if !args.json {
            println!(
                "{}, seed {seed}, on {}: {}",
                experiment.title,
                device.name,
                out.display()
            );
            print_record(&record, experiment.setting);
        }
        records.push(record);
    }
    if args.json {
        print_json(&records)?;
    }
    Ok(Outcome::Passed)
}

fn print_record(record: &Record, setting: Setting) {
    println!("{}", record.data_description);
    let row = |name: &str, dice: &[f64]| {
        let values: Vec<String> = dice.iter().map(|dice| format!("{dice:>10.4}")).collect();
        println!("{name:<28}{}", values.join(""));
    };
    let classes: Vec<String> = record.classes[1..].iter().map(|class| format!("{class:>10}")).collect();
    println!("{:<28}{}", "Dice", classes.join(""));
    row("untrained adapter", &record.untrained_dice);
    for (site, dice) in &record.alone {
        row(&format!("client {site} alone, all cases"), dice);
    }
    for (site, dice) in &record.dice_by_site {
        row(&format!("test cases of {site}"), dice);
    }
    let last = match setting {
        Setting::Federated | Setting::Pooled => "all test cases",
        Setting::Alone => "mean client alone",
    };
    row(last, &record.dice);
    if let Some(first) = record.rounds.first().filter(|_| setting == Setting::Federated) {
        println!(
            "{} parameters trained; {} bytes up and {} down a round",
            record.trained_parameters, first.traffic.up, first.traffic.down
        );
    }
}
