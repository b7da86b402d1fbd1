use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Outcome, claims, print_json};
use crate::error::Result;
use crate::files::{files_below, refuse_input, write, write_json};
use crate::report::{Experiment, Report, Source, figure_files, page, papers, write_crate};
use crate::shipped::{MANIFESTS, shipped};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder, or a folder with several: then all below it are covered.
    run: PathBuf,
    /// What to write: the page, or its table of results by itself.
    #[arg(long, value_enum, default_value = "html")]
    format: Format,
    /// Where it goes [default: report with the format's ending, in that folder].
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Folder of data sets, for pictures of the best and the worst cases.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Folder of manifests, for the same.
    #[arg(long, default_value_os_t = shipped(MANIFESTS))]
    manifests: PathBuf,
    /// The paper's claims and ours, to be judged by these runs [default: golden/claims.toml, where it is there].
    #[arg(long)]
    claims_file: Option<PathBuf>,
    /// Print the facts as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The page, with pictures, plots and verdicts.
    Html,
    /// A table in Markdown.
    Md,
    /// A table in LaTeX, for the package booktabs.
    Latex,
    /// A row for each class of each experiment, figures with all their digits.
    Csv,
    /// All facts of the page.
    Json,
}

impl Format {
    /// The endings of its files; the first is the usual one.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Format::Html => &["html", "htm"],
            Format::Md => &["md"],
            Format::Latex => &["tex"],
            Format::Csv => &["csv"],
            Format::Json => &["json"],
        }
    }
}

/// The claims that come with the program's sources: judged where they lie, and nowhere else unasked.
const CLAIMS: &str = "golden/claims.toml";

/// What was written, and what it says.
#[derive(Debug, Serialize)]
struct Written<'a> {
    page: PathBuf,
    figures: Vec<PathBuf>,
    crates: Vec<PathBuf>,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: Args) -> Result<Outcome> {
    let usual = || args.run.join(format!("report.{}", args.format.endings()[0]));
    let out = args.out.unwrap_or_else(usual);
    refuse_what_is_read(&out, args.format, &args.run)?;
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
    match args.format {
        Format::Html => write(&out, page(&report).as_bytes())?,
        Format::Md => write(&out, papers::markdown(&report).as_bytes())?,
        Format::Latex => write(&out, papers::latex(&report).as_bytes())?,
        Format::Csv => write(&out, &papers::csv(&report)?)?,
        Format::Json => write_json(&out, &report)?,
    }
    let figures = match args.format {
        Format::Html => write_figures(&out, &report)?,
        _ => Vec::new(),
    };
    // After the page and its figures, which may be among the files that a crate lists.
    let crates = match args.format {
        Format::Html => report.runs().map(write_crate).collect::<Result<Vec<PathBuf>>>()?,
        _ => Vec::new(),
    };
    let written = Written {
        page: out,
        figures,
        crates,
        report: &report,
    };
    match args.json {
        true => print_json(&written)?,
        false => print_written(&written),
    }
    Ok(Outcome::Passed)
}

/// Writes the page's plots beside it, each as a file of its own for a paper: in a folder that has the page's name.
fn write_figures(page: &Path, report: &Report) -> Result<Vec<PathBuf>> {
    let stem = page.file_stem().unwrap_or_default().to_string_lossy();
    let folder = page.with_file_name(format!("{stem}-figures"));
    let figures = figure_files(report).into_iter();
    let write_one = |(name, svg): (String, String)| {
        let path = folder.join(name);
        write(&path, svg.as_bytes())?;
        Ok(path)
    };
    figures.map(write_one).collect()
}

/// What a report may take the place of: of an earlier one, and of no other file of a run.
fn refuse_what_is_read(out: &Path, format: Format, runs: &Path) -> Result<()> {
    let files = files_below(runs)?;
    let is_report = |path: &&PathBuf| {
        // Runs have tables and facts of their own under these endings.
        let is_named = matches!(format, Format::Html | Format::Md | Format::Latex)
            || path.file_stem().is_some_and(|stem| stem == "report");
        let ending = path.extension().unwrap_or_default();
        is_named && format.endings().iter().any(|own| ending.eq_ignore_ascii_case(own))
    };
    let read: Vec<&Path> = files
        .iter()
        .filter(|path| !is_report(path))
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
    written.figures.iter().for_each(|path| println!("{}", path.display()));
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
