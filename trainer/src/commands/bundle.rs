use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use super::{Outcome, print_json};
use crate::bundle::check::{Bundle, Bundled, Check, check_signature};
use crate::bundle::{self, Options};
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Start, TRACE, run as run_experiment};
use crate::files::{files_below, read, refuse_input, write};
use crate::report::find_runs;
use crate::verification::trace::first_difference;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    verify: Option<Command>,
    /// Runs' folders, or folders of several.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where the bundle goes.
    #[arg(long, short, default_value = "bundle.zip")]
    out: PathBuf,
    /// Who made the runs.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Put the predicted masks in, too; without it only their checksums.
    #[arg(long)]
    with_masks: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hold a bundle against its own checksums, records and traces, offline; and make its runs once more.
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// The bundle.
    bundle: PathBuf,
    /// Also check the signature beside it (BUNDLE.minisig) with this public key of minisign.
    #[arg(long, value_name = "KEY")]
    public_key: Option<PathBuf>,
    /// Also make every run once more, on the CPU, and compare its trace: every step, message, adapter and mask.
    #[arg(long, requires_all = ["base", "manifest"])]
    rerun: bool,
    /// The base checkpoint, for a rerun.
    #[arg(long)]
    base: Option<PathBuf>,
    /// The data set's manifest, for a rerun.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Folder of data sets, for a rerun.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
    passed: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    match args.verify {
        Some(Command::Verify(verify)) => check(&verify),
        None => make(&args),
    }
}

fn make(args: &Args) -> Result<Outcome> {
    let mut runs = Vec::new();
    for folder in &args.runs {
        let files = files_below(folder)?;
        refuse_input(&args.out, &files.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let (found, left_out) = find_runs(folder)?;
        if let Some(out) = left_out.first() {
            let why = format!("{}: {}; pass the folders of whole runs", out.name, out.why);
            return Err(Error::invalid(folder, why));
        }
        runs.extend(found);
    }
    for place in 1..runs.len() {
        if let Some(twin) = runs[..place].iter().find(|other| other.name == runs[place].name) {
            let why = format!(
                "another run is called '{}', too; pass the folder that holds both",
                twin.name
            );
            return Err(Error::invalid(&runs[place].path, why));
        }
    }
    let options = Options {
        agent: args.agent.as_deref(),
        with_masks: args.with_masks,
    };
    write(&args.out, &bundle::write(&runs, &options)?)?;
    runs.iter().for_each(|run| println!("{}", run.name));
    println!("{}", args.out.display());
    Ok(Outcome::Passed)
}

fn check(args: &Verify) -> Result<Outcome> {
    let bytes = read(&args.bundle)?;
    let signature = args.public_key.as_ref();
    let signature = signature
        .map(|key| check_signature(&args.bundle, &bytes, key))
        .transpose()?;
    let bundle = Bundle::open(&args.bundle, &bytes)?;
    let mut checks: Vec<Check> = signature.into_iter().chain(bundle.check()).collect();
    let is_sound = checks.iter().all(|check| check.flaws.is_empty());
    if let (true, true, Some(base), Some(manifest)) = (args.rerun, is_sound, &args.base, &args.manifest) {
        for run in bundle.runs()? {
            checks.push(rerun(&run, base, manifest, &args.data)?);
        }
    }
    let passed = checks.iter().all(|check| check.flaws.is_empty());
    let report = Report { checks, passed };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::of(passed))
}

/// Makes a run once more, in a folder that is gone afterwards.
fn rerun(run: &Bundled, base: &Path, manifest: &Path, data: &Path) -> Result<Check> {
    let folder = TempDir::new().map_err(|why| Error::Message(format!("a temporary folder: {why}")))?;
    let settings = String::from_utf8_lossy(run.settings).into_owned();
    let mut experiment = Experiment::parse(&folder.path().join("config.toml"), settings, "")?;
    let absolute = |path: &Path| path.canonicalize().map_err(Error::file("read", path));
    (experiment.base, experiment.data) = (absolute(base)?, absolute(manifest)?);
    let out = folder.path().join("run");
    run_experiment(
        &experiment,
        run.provenance.seed,
        data,
        &OpenDevice::cpu(),
        &out,
        Start::Replace,
    )?;
    let trace = read(&out.join(TRACE))?;
    let [first, second] = [run.trace, &trace].map(String::from_utf8_lossy);
    let parting = first_difference(&first, &second, ["the bundle", "the rerun"]);
    Ok(Check {
        what: format!("{}, made once more", run.name),
        flaws: parting.into_iter().collect(),
    })
}

fn print_report(report: &Report) {
    for check in &report.checks {
        match check.flaws.is_empty() {
            true => println!("ok      {}", check.what),
            false => println!("FAILED  {}", check.what),
        }
        check.flaws.iter().for_each(|flaw| println!("        {flaw}"));
    }
    match report.passed {
        true => println!("\nthe bundle holds what it says"),
        false => println!("\nthe bundle does not hold what it says"),
    }
}
