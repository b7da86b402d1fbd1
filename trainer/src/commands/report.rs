use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Outcome, claims, print_json};
use crate::error::Result;
use crate::files::{files_below, refuse_input, write};
use crate::report::{Experiment, Report, Source, page, write_crate};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder, or a folder with several: then all below it are covered.
    run: PathBuf,
    /// Where the report goes [default: report.html in that folder].
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Folder of data sets, for pictures of the best and the worst cases.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Folder of manifests, for the same.
    #[arg(long, default_value = "data-manifests")]
    manifests: PathBuf,
    /// The paper's claims and ours, to be judged by these runs [default: golden/claims.toml, where it is there].
    #[arg(long)]
    claims_file: Option<PathBuf>,
    /// Print the facts as JSON.
    #[arg(long)]
    json: bool,
}

/// The claims that come with the program's sources.
const CLAIMS: &str = "golden/claims.toml";

/// What was written, and what it says.
#[derive(Debug, Serialize)]
struct Written<'a> {
    page: PathBuf,
    crates: Vec<PathBuf>,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: Args) -> Result<Outcome> {
    let out = args.out.unwrap_or_else(|| args.run.join("report.html"));
    refuse_what_is_read(&out, &args.run)?;
    let source = Source {
        manifests: args.manifests,
        data: args.data,
    };
    let mut report = Report::gather(&args.run, &source)?;
    let claims = args
        .claims_file
        .or_else(|| Path::new(CLAIMS).is_file().then(|| CLAIMS.into()));
    if let Some(file) = claims {
        let judged = claims::report(&file, Some(&args.run))?;
        (report.claims, report.ours) = (judged.claims, judged.ours);
        report.not_counted = judged.not_counted;
    }
    write(&out, page(&report).as_bytes())?;
    // After the page, which may be one of the files that a crate lists.
    let crates = report.runs().map(write_crate).collect::<Result<Vec<PathBuf>>>()?;
    let written = Written {
        page: out,
        crates,
        report: &report,
    };
    match args.json {
        true => print_json(&written)?,
        false => print_written(&written),
    }
    Ok(Outcome::Passed)
}

/// The page may take an earlier page's place, and that of no other file of a run.
fn refuse_what_is_read(out: &Path, runs: &Path) -> Result<()> {
    let files = files_below(runs)?;
    let is_page = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("html"))
    };
    let read: Vec<&Path> = files
        .iter()
        .filter(|path| !is_page(path))
        .map(PathBuf::as_path)
        .collect();
    refuse_input(out, &read)
}

fn print_written(written: &Written) {
    for comparison in &written.report.comparisons {
        println!("{}: {}", comparison.data, comparison.data_description);
        for experiment in &comparison.experiments {
            println!("{}: {}", experiment.name, figures(experiment));
            if let Some(Err(why)) = &experiment.pictures {
                println!("  no pictures: {why}");
            }
        }
    }
    for run in &written.report.left_out {
        println!("left out: {}: {}", run.name, run.why);
    }
    println!("{}", written.page.display());
    written.crates.iter().for_each(|path| println!("{}", path.display()));
}

fn figures(experiment: &Experiment) -> String {
    let classes = experiment.classes.iter().map(|figures| {
        let sd = figures.dice.sd.map_or(String::new(), |sd| format!(" ± {sd:.4}"));
        format!("{} {:.4}{sd}", figures.class, figures.dice.mean)
    });
    let classes: Vec<String> = classes.collect();
    format!("Dice {}; {} bytes up", classes.join(", "), experiment.bytes_up)
}
