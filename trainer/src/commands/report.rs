use std::path::PathBuf;

use serde::Serialize;

use super::{Outcome, print_json};
use crate::error::Result;
use crate::files::write;
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
    /// Print the facts as JSON.
    #[arg(long)]
    json: bool,
}

/// What was written, and what it says.
#[derive(Debug, Serialize)]
struct Written<'a> {
    page: PathBuf,
    crates: Vec<PathBuf>,
    #[serde(flatten)]
    report: &'a Report,
}

pub fn run(args: Args) -> Result<Outcome> {
    let source = Source {
        manifests: args.manifests,
        data: args.data,
    };
    let report = Report::gather(&args.run, &source, Vec::new())?;
    let out = args.out.unwrap_or_else(|| args.run.join("report.html"));
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

fn print_written(written: &Written) {
    for comparison in &written.report.comparisons {
        println!("{}: {}", comparison.data, comparison.data_description);
        for experiment in &comparison.experiments {
            println!("{}: {}", experiment.name, figures(experiment));
            if let Err(why) = &experiment.pictures {
                println!("  no pictures: {why}");
            }
        }
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
