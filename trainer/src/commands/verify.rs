use std::path::{Path, PathBuf};

use serde::Serialize;

use super::figures::print_rows;
use super::{Outcome, phantom, print_json};
use crate::data::cases::lock::ready;
use crate::data::files::check::{Checked, State, check};
use crate::data::files::folder::Folder;
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance, run as run_experiment};
use crate::files::read_json;
use crate::verification::claims::Claims;
use crate::verification::golden::{Figure, Row, compare, figures, read_snapshot, to_text};
use crate::verification::parity;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a suite: experiment files beside their golden figures.
    #[arg(long, default_value = "golden/quick")]
    suite: PathBuf,
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
    sections: Vec<Section>,
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Section {
    name: String,
    rows: Vec<Row>,
}

pub fn run(args: Args) -> Result<Outcome> {
    if args.claims {
        return super::claims::run(&args.claims_file, args.runs.as_deref(), args.json);
    }
    let experiments = experiments(&args.suite)?;
    let device = OpenDevice::open(args.device)?;
    let mut sections = vec![
        data_section(&experiments, &args.data)?,
        parity_section(&args.parity, &device)?,
        communication_section(&args.claims_file)?,
    ];
    // Figures of a run on changed data would only say the same again, later.
    if passed(&sections) {
        for experiment in &experiments {
            sections.push(experiment_section(experiment, &args, &device)?);
        }
    }
    let report = Report {
        passed: passed(&sections),
        device: device.name,
        sections,
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

fn passed(sections: &[Section]) -> bool {
    sections.iter().flat_map(|section| &section.rows).all(|row| row.passed)
}

/// The suite's experiments in the order of their files' names.
fn experiments(suite: &Path) -> Result<Vec<Experiment>> {
    let entries = std::fs::read_dir(suite).map_err(Error::file("read the folder", suite))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    match files.is_empty() {
        true => Err(Error::invalid(
            suite,
            "it holds no experiment file (.toml); pass a suite's folder, such as golden/quick",
        )),
        false => files.iter().map(|path| Experiment::read(path)).collect(),
    }
}

/// Every data set's files against its manifest. The phantom is made first if it is not there.
fn data_section(experiments: &[Experiment], data: &Path) -> Result<Section> {
    let mut manifests: Vec<PathBuf> = Vec::new();
    for experiment in experiments {
        let manifest = experiment.manifest(data);
        if !manifests.contains(&manifest) {
            manifests.push(manifest);
        }
    }
    let mut rows = Vec::new();
    for path in manifests {
        let manifest = ready(&path, data)?;
        let folder = data.join(&manifest.about.name);
        if manifest.about.name == "phantom" && !folder.exists() {
            phantom::make(data)?;
        }
        let checked = check(&manifest, &Folder::new(folder));
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

/// Runs an experiment and compares its figures with the snapshot beside it.
fn experiment_section(experiment: &Experiment, args: &Args, device: &OpenDevice) -> Result<Section> {
    let golden = experiment.path.with_extension("snap");
    let golden = match golden.exists() {
        true => read_snapshot(&golden)?,
        false => Default::default(),
    };
    let out = args.out.join(experiment.name());
    let record = run_experiment(experiment, experiment.seeds[0], &args.data, device, &out, false)?;
    let provenance: Provenance = read_json(&out.join("provenance.json"))?;
    let got = figures(&record, &provenance);
    crate::files::write(&out.join("figures.txt"), to_text(&got).as_bytes())?;
    Ok(Section {
        rows: compare(&golden, &got),
        name: experiment.name(),
    })
}

fn print_report(report: &Report) {
    for section in &report.sections {
        println!("\n{}", section.name);
        print_rows(&section.rows, ["golden", "got"]);
    }
    let failed = report
        .sections
        .iter()
        .flat_map(|section| &section.rows)
        .filter(|row| !row.passed)
        .count();
    match report.passed {
        true => println!("\nverified on {}: every figure holds", report.device),
        false => println!("\nnot verified on {}: {failed} figures do not hold", report.device),
    }
}
