use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::figures::print_rows;
use super::{Outcome, claims, estimate, phantom, print_json};
use crate::data::cases::lock::ready;
use crate::data::files::check::{Checked, State, check};
use crate::data::files::folder::Folder;
use crate::data::manifest::Manifest;
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record, Start, run as run_experiment};
use crate::files::{read_json, write};
use crate::verification::claims::Claims;
use crate::verification::golden::{Figure, Row, compare, figures_of_seeds, read_snapshot, to_text};
use crate::verification::parity;
use crate::verification::statistics::{OverSeeds, Paired, case_differences, over_seeds, paired};
use crate::verification::suite::{self, Planned};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to run: quick, full (everything on the phantom), paper (the real data sets), or a folder of experiment files
    /// beside their golden figures.
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
    /// Keep finished runs of the same settings, data and program, and go on with one that was cut off.
    #[arg(long)]
    resume: bool,
    /// Say what the suite would take in time and memory, and stop. The paper's suite says so before it starts.
    #[arg(long)]
    estimate: bool,
    /// Run every part of the suite on about a hundredth of it, and compare nothing.
    #[arg(long, conflicts_with = "estimate")]
    dry_run: bool,
    /// Judge the paper's claims instead, by numbers of parameters and by the runs that there are.
    #[arg(long)]
    claims: bool,
    /// The claims.
    #[arg(long, default_value = "golden/claims.toml")]
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

/// A data set that is not there.
#[derive(Debug, Serialize)]
struct LeftOut {
    data: String,
    /// How many of the suite's experiments are on it.
    experiments: usize,
}

#[derive(Debug, Serialize)]
struct Section {
    name: String,
    rows: Vec<Row>,
}

/// An experiment's Dice over its seeds, and how far it lies from the suite's FLAP-SAM.
#[derive(Debug, Serialize)]
struct Summary {
    name: String,
    /// Dice of all test cases, by class.
    dice: Vec<OverSeeds>,
    /// Bytes that one run's clients sent.
    bytes_up: u64,
    /// Case by case in the first seed, by class: this experiment less FLAP-SAM.
    less_flap_sam: Vec<Paired>,
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
    let mut estimates = None;
    if args.estimate || args.suite == PAPER && !args.dry_run {
        let rows = estimate::rows(&planned, &args.data, &device)?;
        if !args.json {
            estimate::print_rows(&rows, &device);
        }
        estimates = Some(rows);
    }
    if args.estimate {
        if args.json {
            print_json(&estimates)?;
        }
        return Ok(Outcome::Passed);
    }
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
            records.push((planned.name.clone(), runs));
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
    Ok(match report.passed {
        true => Outcome::Passed,
        false => Outcome::CheckFailed,
    })
}

const PAPER: &str = "paper";

fn passed(sections: &[Section]) -> bool {
    sections.iter().flat_map(|section| &section.rows).all(|row| row.passed)
}

/// The experiments whose data sets are there, and the data sets that are not.
fn with_data(planned: Vec<Planned>, data: &Path) -> Result<(Vec<Planned>, Vec<LeftOut>)> {
    let mut there = Vec::new();
    let mut left_out: Vec<LeftOut> = Vec::new();
    for planned in planned {
        let manifest = Manifest::read(&planned.experiment.manifest(data))?;
        let name = manifest.about.name;
        if data.join(&name).exists() {
            there.push(planned);
        } else if let Some(known) = left_out.iter_mut().find(|known| known.data == name) {
            known.experiments += 1;
        } else {
            let experiments = 1;
            left_out.push(LeftOut {
                data: name,
                experiments,
            });
        }
    }
    for LeftOut {
        data: name,
        experiments,
    } in &left_out
    {
        let path = data.join(name);
        eprintln!(
            "flapsam: {experiments} experiments are left out: there is no {}; 'flapsam data list' says how to get {name}",
            path.display()
        );
    }
    match there.is_empty() {
        true => Err(Error::Message(format!(
            "no data set of the suite is in {}; fetch one, for example with 'flapsam data fetch fed-kits19'",
            data.display()
        ))),
        false => Ok((there, left_out)),
    }
}

/// Runs every experiment small: it must come to an end, whatever its figures.
fn rehearse(planned: &[Planned], left_out: &[LeftOut], args: &Args, device: &OpenDevice) -> Result<Outcome> {
    let mut failed = Vec::new();
    for planned in planned {
        let experiment = &planned.experiment;
        let manifest = ready(&experiment.manifest(&args.data), &args.data)?;
        let small = experiment.rehearsal(&manifest)?;
        let out = args.out.join("dry-run").join(&planned.name);
        let start = Instant::now();
        let end = run_experiment(&small, small.seeds[0], &args.data, device, &out, Start::Anew);
        let seconds = start.elapsed().as_secs_f64();
        let why = end.err().map(|why| why.to_string());
        if !args.json {
            let verdict = why.as_ref().map_or("ok".to_owned(), |why| format!("FAILED: {why}"));
            println!("  {:<48}{seconds:>8.1} s  {verdict}", planned.name);
        }
        failed.extend(why.map(|why| (planned.name.clone(), why)));
    }
    match args.json {
        true => {
            let (device, experiments) = (&device.name, planned.len());
            print_json(&json!({"device": device, "experiments": experiments, "failed": failed, "left_out": left_out}))?;
        }
        false => println!(
            "\n{} of {} experiments ran through on {}{}",
            planned.len() - failed.len(),
            planned.len(),
            device.name,
            without(left_out)
        ),
    }
    Ok(match failed.is_empty() {
        true => Outcome::Passed,
        false => Outcome::CheckFailed,
    })
}

/// Experiments beside the suite's FLAP-SAM, where it has one.
fn summaries(records: &[(String, Vec<Record>)]) -> Vec<Summary> {
    let flap_sam = |name: &str| {
        let suite = name.split('/').next();
        let of_suite = |(other, _): &&(String, Vec<Record>)| {
            other.split('/').next() == suite && other.ends_with("/flap_sam") && !other.contains("/alone/")
        };
        let found = records.iter().find(of_suite).filter(|(other, _)| other != name);
        found.and_then(|(_, runs)| runs.first())
    };
    let summary = |(name, runs): &(String, Vec<Record>)| {
        let all = runs.first().map_or(String::new(), |run| {
            run.dice_rows().pop().map_or(String::new(), |(row, _)| row)
        });
        let differences = flap_sam(name).and_then(|flap_sam| case_differences(flap_sam, runs.first()?));
        let of_all = |paired: &Paired| paired.site.is_none();
        Summary {
            name: name.clone(),
            dice: over_seeds(runs).into_iter().filter(|row| row.row == all).collect(),
            bytes_up: runs
                .first()
                .map_or(0, |run| run.rounds.iter().map(|round| round.traffic.up).sum()),
            less_flap_sam: differences.map_or_else(Vec::new, |differences| {
                paired(&differences).into_iter().filter(of_all).collect()
            }),
        }
    };
    records.iter().map(summary).collect()
}

/// Makes the phantom if it is asked for and not there.
fn make_phantom(planned: &[Planned], data: &Path) -> Result<()> {
    for planned in planned {
        let manifest = ready(&planned.experiment.manifest(data), data)?;
        if manifest.about.name == "phantom" && !data.join("phantom").exists() {
            phantom::make(data)?;
        }
    }
    Ok(())
}

/// Every data set's files against its manifest.
fn data_section(planned: &[Planned], data: &Path) -> Result<Section> {
    let mut manifests: Vec<PathBuf> = Vec::new();
    for planned in planned {
        let manifest = planned.experiment.manifest(data);
        if !manifests.contains(&manifest) {
            manifests.push(manifest);
        }
    }
    let mut rows = Vec::new();
    for path in manifests {
        let manifest = ready(&path, data)?;
        let checked = check(&manifest, &Folder::new(data.join(&manifest.about.name)));
        let wrong: Vec<&Checked> = checked.iter().filter(|file| file.state != State::Right).collect();
        for file in &wrong {
            let why = file.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let (state, path) = (file.state.name(), file.path.display());
            eprintln!("flapsam: {path} is {state}{why}; delete the folder and make or fetch the data again");
        }
        let files = checked.len();
        rows.extend(compare(
            &[(
                format!("{} files right", manifest.about.name),
                Figure::Exact(files.to_string()),
            )]
            .into(),
            &[(
                format!("{} files right", manifest.about.name),
                Figure::Exact((files - wrong.len()).to_string()),
            )]
            .into(),
        ));
    }
    Ok(Section {
        name: "data".into(),
        rows,
    })
}

/// The reference's outputs.
fn parity_section(folder: &Path, device: &OpenDevice) -> Result<Section> {
    let comparisons = parity::compare(folder, &device.device)?;
    let failed = comparisons
        .iter()
        .filter(|comparison| comparison.verdict == parity::Verdict::Failed)
        .count();
    let name = format!("of {} quantities, unlike the reference", comparisons.len());
    Ok(Section {
        name: "parity".into(),
        rows: compare(
            &[(name.clone(), Figure::Exact("0".into()))].into(),
            &[(name, Figure::Exact(failed.to_string()))].into(),
        ),
    })
}

/// The paper's claims that numbers of parameters decide, with the snapshot beside them.
fn communication_section(claims: &Path) -> Result<Section> {
    let golden = read_snapshot(&claims.with_extension("snap"))?;
    Ok(Section {
        name: "communication".into(),
        rows: compare(&golden, &Claims::read(claims)?.figures()?),
    })
}

/// Runs an experiment, once for each seed, and compares its figures with the snapshot beside it.
fn experiment_section(planned: &Planned, args: &Args, device: &OpenDevice) -> Result<(Section, Vec<Record>)> {
    let experiment = &planned.experiment;
    let start = match args.resume {
        true => Start::Keep,
        false => Start::Anew,
    };
    let out = args.out.join(&planned.name);
    let mut runs = Vec::new();
    for &seed in &experiment.seeds {
        let out = PathBuf::from(format!("{}-{seed}", out.display()));
        let record = run_experiment(experiment, seed, &args.data, device, &out, start)?;
        let provenance: Provenance = read_json(&out.join("provenance.json"))?;
        runs.push((record, provenance));
    }
    let got = figures_of_seeds(&runs);
    // Not by `with_extension`, which would cut a name with a dot in it.
    let beside = PathBuf::from(format!("{}.figures", out.display()));
    write(&beside, to_text(&got).as_bytes())?;
    let snapshot = experiment.path.with_extension("snap");
    let rows = match snapshot.exists() {
        true => compare(&read_snapshot(&snapshot)?, &got),
        // One line says it: there is nothing to hold the figures against.
        false => {
            let count = |count: usize| Figure::Exact(count.to_string());
            compare(
                &[("golden figures".to_owned(), count(got.len()))].into(),
                &[("golden figures".to_owned(), count(0))].into(),
            )
        }
    };
    let section = Section {
        name: planned.name.clone(),
        rows,
    };
    Ok((section, runs.into_iter().map(|(record, _)| record).collect()))
}

fn print_report(report: &Report) {
    for section in &report.sections {
        println!("\n{}", section.name);
        print_rows(&section.rows, ["golden", "got"]);
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
            "\nnot verified on {}: {failed} figures do not hold{without}",
            report.device
        ),
    }
}

/// What a verdict does not cover.
fn without(left_out: &[LeftOut]) -> String {
    let sets = left_out
        .iter()
        .map(|left_out| format!("; without {} (not there)", left_out.data));
    sets.collect()
}

fn print_summaries(summaries: &[Summary]) {
    let Some(first) = summaries.first() else { return };
    println!("\nDice of all test cases; behind it the experiment less FLAP-SAM case by case, with its 95 % interval");
    let classes = first.dice.iter().map(|row| format!("{:<46}", row.class));
    println!(
        "  {:<36}{:>14}  {}",
        "experiment",
        "bytes up",
        classes.collect::<String>()
    );
    for summary in summaries {
        let cell = |row: &OverSeeds| {
            let deviation = row.standard_deviation.map_or(String::new(), |sd| format!(" ± {sd:.3}"));
            let less = summary.less_flap_sam.iter().find(|paired| paired.class == row.class);
            let less = less.map_or(String::new(), |paired| {
                let (low, high) = (paired.interval.low, paired.interval.high);
                format!("  {:+.3} ({low:+.3} to {high:+.3})", paired.difference)
            });
            format!("{:<46}", format!("{:.3}{deviation}{less}", row.mean))
        };
        let cells: String = summary.dice.iter().map(cell).collect();
        println!("  {:<36}{:>14}  {}", summary.name, summary.bytes_up, cells.trim_end());
    }
}
