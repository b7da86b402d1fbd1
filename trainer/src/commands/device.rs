use flapsam_model::self_test::{OTHER_PIXELS, SelfTest, TOLERANCE};
use serde::Serialize;

use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compute a small known network, and hold its answer against the CPU's: exit 1 where the device computes wrongly.
    Check {
        /// The device.
        #[arg(long, value_enum, default_value = "auto")]
        device: DeviceChoice,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    #[serde(flatten)]
    found: SelfTest,
    tolerance: f64,
    other_pixels_allowed: f64,
}

pub fn run(args: &Args) -> Result<Outcome> {
    let Command::Check { device, json } = args.command;
    let device = OpenDevice::open(device)?;
    let found = pollster::block_on(SelfTest::run(&device.device))?;
    let report = Report {
        device: device.name,
        found,
        tolerance: TOLERANCE,
        other_pixels_allowed: OTHER_PIXELS,
    };
    match json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::of(found.passed))
}

fn print_report(report: &Report) {
    println!("{}: {}", report.device, report.found.describe());
    let allowed = format!("at most {TOLERANCE:.0e} of the norm is allowed");
    match report.found.passed {
        true => println!("it computes what it should ({allowed})"),
        false => println!("it computes wrongly ({allowed}); use --device cpu, and install a newer graphics driver"),
    }
}
