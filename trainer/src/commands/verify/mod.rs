mod presence;
mod rehearsal;
mod sections;
mod summaries;

use std::path::PathBuf;

use presence::{LeftOut, all_there, make_phantom, with_data, without};
use rehearsal::rehearse;
use sections::{Section, communication_section, data_section, experiment_section, parity_section, passed};
use serde::Serialize;
use summaries::{Summary, print_summaries, summaries};

use super::figures::print_rows;
use super::{Outcome, claims, estimate, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::machine;
use crate::shipped::shipped;
use crate::verification::suite::{self, Planned};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to run: quick, full (everything on the phantom), paper (the real data sets), or the folder of a suite or of
    /// experiment files, beside their golden figures ('golden/' may be left out).
    #[arg(long, default_value = "quick")]
    suite: String,
    /// Folder of data sets; the phantom is made there if it is missing.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Reference outputs to compare with first.
    #[arg(long, default_value = "tests/fixtures/parity")]
    parity: PathBuf,
    /// Where the run folders go.
    #[arg(long, default_value = "runs/verify")]
    out: PathBuf,
    /// Where to compute. The golden figures are the CPU's.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Keep finished runs of the same settings, data and program, and go on with one that was cut off; refuse others.
    /// Without it earlier runs are moved aside (into .replaced beside them) and made anew.
    #[arg(long)]
    resume: bool,
    /// With --resume: move other runs aside instead of refusing them.
    #[arg(long, requires = "resume")]
    replace: bool,
    /// Say what the suite would take in time and memory, and stop. The paper's suite says so before it starts.
    #[arg(long)]
    estimate: bool,
    /// Run every part of the suite on about a hundredth of it, and compare nothing.
    #[arg(long, conflicts_with = "estimate")]
    dry_run: bool,
    /// Judge the paper's claims and ours instead, by numbers of parameters and by the runs that there are.
    #[arg(long)]
    claims: bool,
    /// The claims.
    #[arg(long, default_value_os_t = shipped("golden/claims.toml"))]
    claims_file: PathBuf,
    /// Judge claims by the runs below this folder ("runs" without it).
    #[arg(long, requires = "claims")]
    runs: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    /// Data sets that are not there, so that their experiments were not run.
    left_out: Vec<LeftOut>,
    /// What the suite was expected to take, where that was asked.
    estimates: Option<Vec<estimate::Row>>,
    sections: Vec<Section>,
    /// Of the suite's experiments, in their order.
    experiments: Vec<Summary>,
    claims: Option<claims::Report>,
    passed: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    if args.claims {
        return claims::run(&args.claims_file, args.runs.as_deref(), args.json);
    }
    let mut planned = suite::find(&args.suite)?;
    let device = OpenDevice::open(args.device)?;
    let mut left_out = Vec::new();
    if args.suite == PAPER {
        (planned, left_out) = with_data(planned, &args.data)?;
    }
    if !args.estimate {
        make_phantom(&planned, &args.data)?;
    }
    let estimates = estimates(&planned, &args, &device)?;
    if args.estimate {
        if args.json {
            print_json(&estimates)?;
        }
        return Ok(Outcome::Passed);
    }
    all_there(&planned, &args.data)?;
    if args.dry_run {
        return rehearse(&planned, &left_out, &args, &device);
    }
    let mut sections = vec![
        data_section(&planned, &args.data)?,
        parity_section(&args.parity, &device)?,
        communication_section(&args.claims_file)?,
    ];
    let mut records = Vec::new();
    // Figures of a run on changed data would only say the same again, later.
    if passed(&sections) {
        for planned in &planned {
            let (section, runs) = experiment_section(planned, &args, &device)?;
            sections.push(section);
            records.push((planned, runs));
        }
    }
    let report = Report {
        passed: passed(&sections),
        left_out,
        estimates,
        device: device.name,
        sections,
        experiments: summaries(&records),
        claims: match records.is_empty() {
            true => None,
            false => Some(claims::report(&args.claims_file, Some(&args.out))?),
        },
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::of(report.passed))
}

const PAPER: &str = "paper";

/// What the suite will take, where that is asked, or it is long.
fn estimates(planned: &[Planned], args: &Args, device: &OpenDevice) -> Result<Option<Vec<estimate::Row>>> {
    if !(args.estimate || args.suite == PAPER && !args.dry_run) {
        return Ok(None);
    }
    let rows = estimate::rows(planned, &args.data, device)?;
    if !args.json {
        estimate::print_rows(&rows, device);
    }
    Ok(Some(rows))
}

fn print_report(report: &Report) {
    for section in &report.sections {
        println!("\n{}", section.name);
        print_rows(&section.rows, ["golden", "got"]);
        if let Some(parting) = &section.parting {
            println!("  it parts from the golden run here: {parting}");
        }
    }
    print_summaries(&report.experiments);
    if let Some(claims) = &report.claims {
        claims::print_report(claims);
    }
    let failed = report
        .sections
        .iter()
        .flat_map(|section| &section.rows)
        .filter(|row| !row.passed)
        .count();
    let without = without(&report.left_out);
    match report.passed {
        true => println!("\nverified on {}: every figure holds{without}", report.device),
        false => println!(
            "\nnot verified on {}: {failed} figures do not hold{without}\n\nfor a report of it:\n{}",
            report.device,
            machine::describe().trim_end()
        ),
    }
}
