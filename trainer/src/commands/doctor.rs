use std::path::{Path, PathBuf};

use serde::Serialize;

use super::data::Places;
use super::{Outcome, print_json};
use crate::data::files::check::{State, glance};
use crate::device::OpenDevice;
use crate::error::Result;
use crate::files::{free_space, gibibytes, system_bytes};
use crate::machine;
use crate::shipped::{GOLDEN, PAGE, shipped};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    places: Places,
    /// Folder of suites and their golden figures.
    #[arg(long, default_value_os_t = shipped(GOLDEN))]
    golden: PathBuf,
    /// The viewer's page.
    #[arg(long, default_value_os_t = shipped(PAGE))]
    page: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Vec<(&'static str, String)>,
    checks: Vec<Check>,
}

/// Something that works here, or what to do for it.
#[derive(Debug, Serialize)]
struct Check {
    what: String,
    works: bool,
    /// What was found.
    found: String,
    /// What to do, where it does not work.
    remedy: Option<String>,
    /// Whether `verify` cannot do without.
    needed: bool,
}

impl Check {
    fn new(what: impl Into<String>, found: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            what: what.into(),
            works: remedy.is_none(),
            found: found.into(),
            remedy,
            needed: false,
        }
    }

    fn needed(self) -> Self {
        Self { needed: true, ..self }
    }
}

/// What the quick suite's memory has room in, bytes: a run of FLAP-SAM on the phantom held 370 MiB at most.
const QUICK_SUITE: u64 = 1 << 30;
/// What its phantom (38 MB) and its three runs (6 MB each) have room in on the disk, bytes.
const QUICK_SUITE_ON_DISK: u64 = 1 << 28;

/// # Errors
/// Standard output cannot be written.
pub fn run(args: Args) -> Result<Outcome> {
    let mut checks = vec![
        suites(&args.golden),
        memory(),
        disk(&args.places.data),
        exact(),
        graphics(),
        page(&args.page),
    ];
    checks.extend(data_sets(&args.places));
    let report = Report {
        machine: machine::facts(),
        checks,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    let lacking = report.checks.iter().any(|check| check.needed && !check.works);
    Ok(Outcome::of(!lacking))
}

fn print_report(report: &Report) {
    print!("{}", machine::describe());
    println!();
    for check in &report.checks {
        let mark = if check.works { "yes" } else { "no " };
        println!("  {mark}  {:<34}{}", check.what, check.found);
        if let Some(remedy) = &check.remedy {
            println!("       {:<34}{remedy}", "");
        }
    }
}

fn suites(golden: &Path) -> Check {
    let needed = ["phantom/quick/suite.toml", "nano.safetensors"].map(|file| golden.join(file));
    let missing = needed.iter().find(|file| !file.is_file());
    let found = match missing {
        None => format!("suites and their base in {}", golden.display()),
        Some(file) => format!("there is no {}", file.display()),
    };
    let remedy = missing.map(|_| "run it in the project's folder, or pass --golden".to_owned());
    Check::new("verify", found, remedy).needed()
}

fn memory() -> Check {
    let what = "memory for the quick suite";
    match system_bytes("/proc/meminfo", "MemAvailable") {
        None => Check::new(what, "the system does not say how much is free", None),
        Some(free) => {
            let remedy = (free < QUICK_SUITE).then(|| "close other programs, or take a machine with 2 GB".to_owned());
            Check::new(what, format!("{:.1} GiB are free", gibibytes(free)), remedy).needed()
        }
    }
}

fn disk(data: &Path) -> Check {
    let what = "disk for data and runs";
    // The folder may not be there yet.
    let near = data
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("."));
    match free_space(near) {
        None => Check::new(what, "the system does not say how much is free", None),
        Some(free) => {
            let remedy =
                (free < QUICK_SUITE_ON_DISK).then(|| format!("make room in {}, or pass --data", near.display()));
            Check::new(what, format!("{:.1} GiB are free", gibibytes(free)), remedy).needed()
        }
    }
}

/// Products are fused multiply-adds: without them in the processor they are made in software.
fn exact() -> Check {
    let what = "golden figures to the last digit";
    #[cfg(target_arch = "x86_64")]
    {
        let fused = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let found = if fused {
            "AVX2 and FMA"
        } else {
            "no AVX2 and FMA: in software, and many times slower"
        };
        Check::new(what, found, None)
    }
    #[cfg(not(target_arch = "x86_64"))]
    Check::new(what, std::env::consts::ARCH, None)
}

fn graphics() -> Check {
    let what = "--device wgpu";
    match OpenDevice::wgpu() {
        Ok((device, hardware)) => {
            let note = if hardware {
                ""
            } else {
                " (a software adapter: slower than --device cpu)"
            };
            Check::new(what, format!("{}{note}", device.name), None)
        }
        Err(why) => Check::new(what, "no adapter", Some(why.to_string())),
    }
}

fn page(page: &Path) -> Check {
    let built = page.join("index.html").is_file();
    let found = format!(
        "{} {}",
        if built { "the page is in" } else { "there is no page in" },
        page.display()
    );
    let remedy = (!built).then(|| "bash viewer/build.sh builds it".to_owned());
    Check::new("view", found, remedy)
}

/// What of each data set is on this disk, by name and size.
fn data_sets(places: &Places) -> Vec<Check> {
    let check = |name: &String| {
        let what = format!("data set {name}");
        let found = match places.local(name) {
            Ok((manifest, folder)) => glance(&manifest, &folder),
            Err(why) => return Check::new(what, "its manifest cannot be read", Some(why.to_string())),
        };
        let lacks = |state: State| matches!(state, State::Missing | State::Changed);
        let there = found.iter().filter(|file| !lacks(file.state)).count();
        let remedy = (there < found.len()).then(|| match name.as_str() {
            "phantom" => "verify makes it by itself".to_owned(),
            _ => "'flapsam data list' says how to get it, if you want it".to_owned(),
        });
        Check::new(what, format!("{there} of {} files", found.len()), remedy)
    };
    places.names().unwrap_or_default().iter().map(check).collect()
}
