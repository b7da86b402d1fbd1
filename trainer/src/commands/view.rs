use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::report::{RunFolder, find_runs};
use crate::shipped::{MANIFESTS, NANO, PAGE, shipped};
use crate::view::{Exhibit, Place, Server};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder.
    run: PathBuf,
    /// Further runs on the same data, whose masks can be looked at beside this one's.
    #[arg(long, value_name = "RUN")]
    beside: Vec<PathBuf>,
    /// Write a folder for any web host instead: the page, the run's files and its test cases.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// The base checkpoint of the run, a safetensors file; in half precision (export --format base-f16) it is half as large
    /// [default: the one that the run's settings name, or golden/nano.safetensors].
    #[arg(long)]
    base: Option<PathBuf>,
    /// Folder of data sets.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Folder of manifests.
    #[arg(long, default_value_os_t = shipped(MANIFESTS))]
    manifests: PathBuf,
    /// The page's own files, which viewer/build.sh makes.
    #[arg(long, default_value_os_t = shipped(PAGE))]
    page: PathBuf,
    /// Port on 127.0.0.1; 0 is any that is free.
    #[arg(long, default_value_t = 8417)]
    port: u16,
    /// Do not open a browser.
    #[arg(long)]
    no_open: bool,
    /// Print the page's address, or what was exported, as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let run = only_run(&args.run)?;
    let place = Place {
        manifests: args.manifests,
        base: args.base.unwrap_or_else(|| base_of(&run, &args.data)),
        data: args.data,
        page: args.page,
    };
    let beside = args.beside.iter().map(|folder| only_run(folder));
    let exhibit = Exhibit::gather(&run, &beside.collect::<Result<Vec<_>>>()?, &place)?;
    if let Some(folder) = &args.export {
        exhibit.export(folder)?;
        let files = exhibit.contents.len();
        match args.json {
            true => print_json(&json!({"folder": folder, "files": files}))?,
            false => println!("{files} files in {}: serve it with any web server", folder.display()),
        }
        return Ok(Outcome::Passed);
    }
    let server = Server::bind(exhibit, args.port)?;
    let url = server.url();
    match args.json {
        true => print_json(&json!({"url": url}))?,
        false => println!("{}: {url} (end with Ctrl-C)", run.name),
    }
    if !args.no_open && !open_browser(&url) {
        eprintln!("No browser could be opened; visit {url}");
    }
    server.serve()?;
    Ok(Outcome::Passed)
}

/// Where the run's base should be; whether it is that one is told by its checksum.
fn base_of(run: &RunFolder, data: &Path) -> PathBuf {
    let named = run.settings.base_checkpoint(data);
    if named.is_file() { named } else { shipped(NANO) }
}

fn only_run(folder: &Path) -> Result<RunFolder> {
    let (mut runs, _) = find_runs(folder)?;
    match (runs.pop(), runs.len()) {
        (Some(run), 0) => Ok(run),
        (last, others) => {
            let example = last.map(|run| run.path.display().to_string()).unwrap_or_default();
            let why = format!("it holds {} runs; pass one of them, such as {example}", others + 1);
            Err(Error::invalid(folder, why))
        }
    }
}

/// Asks the system to open an address. Whether a window appears is its own affair.
fn open_browser(url: &str) -> bool {
    let opener = match std::env::consts::OS {
        "macos" => "open",
        "windows" => "explorer",
        _ => "xdg-open",
    };
    let mut command = Command::new(opener);
    command.arg(url).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().is_ok()
}
