mod aggregation;

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use flapsam_kernels::in_turn;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::{Parameters, initialise, to_vec};
use flapsam_model::sam::Sam;
use flapsam_model::segment::{STACK, to_input};
use serde::Serialize;

use crate::commands::params::named_config;
use crate::commands::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::experiment::estimate::noise;
use crate::files::{forget_peak_memory, gibibytes, peak_memory};
use crate::machine;
use crate::training::{AdamW, Learner, Schedule};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to time; all of it without this.
    #[arg(long, value_enum)]
    work: Option<Work>,
    /// Times a server instead that takes in the updates of so many clients, such as 6,100,1000: FLAP-SAM on ViT-B, rank 32.
    #[arg(long, value_delimiter = ',', conflicts_with = "work", value_parser = clap::value_parser!(u32).range(1..))]
    clients: Vec<u32>,
    /// Draws the seconds over the clients, as an SVG file.
    #[arg(long, requires = "clients")]
    plot: Option<PathBuf>,
    /// How often, after one time that does not count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A piece of work on noise, with random weights: two classes, rank 32 (the small network: 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    /// A training step of FLAP-SAM with ViT-B at 224, one stack of five slices.
    VitBStep,
    /// The same on four stacks.
    VitBStep4,
    /// A training step of full fine-tuning with ViT-B at 224, one stack.
    VitBFullStep,
    /// ViT-B at 224 on one slice, without gradients.
    VitBForward,
    /// A training step of FLAP-SAM with the small network at 128, two stacks.
    NanoStep,
    /// A training step of FLAP-SAM with MobileSAM at 128, two stacks.
    MobileSamStep,
}

impl Work {
    fn method(self) -> Method {
        match self {
            Work::VitBFullStep => Method::FullFt,
            _ => Method::FlapSam,
        }
    }

    fn stacks(self) -> usize {
        match self {
            Work::VitBStep | Work::VitBFullStep | Work::VitBForward => 1,
            Work::NanoStep | Work::MobileSamStep => 2,
            Work::VitBStep4 => 4,
        }
    }

    fn network(self) -> Result<(SamConfig, AdapterConfig)> {
        let (name, side, rank) = match self {
            Work::NanoStep => ("nano", 128, 8),
            Work::MobileSamStep => ("mobile_sam", 128, 8),
            _ => ("vit_b", 224, 32),
        };
        let adapter = self.method().adapter(&AdapterConfig::lora(2, rank));
        Ok((named_config(name)?.with_image_size(side), adapter))
    }
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    threads: usize,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    work: Work,
    /// Of all repeats, in their order.
    seconds: Vec<f64>,
    median: f64,
    /// The most memory that the program held during the repeats; where the system says so.
    peak_memory_bytes: Option<u64>,
}

pub fn run(args: Args) -> Result<Outcome> {
    if !args.clients.is_empty() {
        return aggregation::run(&args.clients, args.plot.as_deref(), args.json);
    }
    let device = OpenDevice::open(args.device)?;
    let all = Work::value_variants().iter().copied();
    let works = all.filter(|work| args.work.is_none_or(|wanted| wanted == *work));
    let rows = works.map(|work| measure(work, args.repeats, &device));
    let report = Report {
        rows: rows.collect::<Result<_>>()?,
        device: device.name.clone(),
        threads: rayon::current_num_threads(),
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::Passed)
}

fn measure(work: Work, repeats: u32, device: &OpenDevice) -> Result<Row> {
    let (sam, adapter) = work.network()?;
    let layout = Sam::layout(&sam, Some(&adapter))?;
    let schedule = Schedule {
        base_lr: 1e-4,
        warmup_period: 1,
        max_iterations: 1000,
        lr_exp: 1,
    };
    let mut learner = Learner::new(
        &sam,
        &adapter,
        Parameters::new(&initialise(&layout, 0), &device.device),
        work.method().trained(&layout),
        AdamW::new(0.1),
        schedule,
        &device.device,
    );
    let side = sam.image_size;
    let batch = noise(work.stacks(), side, adapter.num_classes + 1);
    let slice = &batch.slices[..side * side];
    let mut once = || -> Result<f64> {
        let start = Instant::now();
        match work {
            Work::VitBForward => {
                let input = to_input(slice.to_vec(), side, &device.device);
                let network = learner.network()?;
                in_turn(|| to_vec(network.logits(input)));
            }
            _ => {
                learner.step(&batch)?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    };
    once()?;
    let counts = forget_peak_memory();
    let seconds = (0..repeats).map(|_| once()).collect::<Result<Vec<f64>>>()?;
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    Ok(Row {
        work,
        median: sorted[sorted.len() / 2],
        seconds,
        peak_memory_bytes: peak_memory().filter(|_| counts),
    })
}

fn print_report(report: &Report) {
    println!(
        "on {}, {} threads\n{}",
        report.device,
        report.threads,
        machine::describe()
    );
    println!(
        "  {:<18}{:>12}{:>12}{:>14}",
        "work", "median, s", "least, s", "memory, GiB"
    );
    for row in &report.rows {
        let name = row
            .work
            .to_possible_value()
            .map_or(String::new(), |value| value.get_name().to_owned());
        let least = row.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "  {name:<18}{:>12.4}{least:>12.4}{:>14}",
            row.median,
            memory(row.peak_memory_bytes)
        );
    }
    println!("\n  on noise and with random weights, {STACK} slices a stack");
}

/// The most memory, GiB, for a table.
fn memory(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".into(), |bytes| format!("{:.2}", gibibytes(bytes)))
}
