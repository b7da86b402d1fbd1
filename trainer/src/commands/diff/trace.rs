//! Where two runs part, and what they were made of that is not alike.

use std::path::Path;

use serde::Serialize;

use crate::commands::{Outcome, print_json};
use crate::error::Result;
use crate::experiment::{Experiment, Provenance, TRACE, Timing};
use crate::files::{read, read_json};
use crate::verification::trace::first_difference;

#[derive(Debug, Serialize)]
struct Report {
    /// The first moment at which they differ; none if they are the same to the byte.
    parting: Option<String>,
    /// What decides figures, or may, and differs.
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    what: String,
    first: String,
    second: String,
}

/// What a run says of itself.
struct Side {
    settings: Experiment,
    provenance: Provenance,
    timing: Option<Timing>,
    trace: String,
}

/// Names the first moment at which two runs part: client, round and step.
pub(super) fn run(first: &Path, second: &Path, json: bool) -> Result<Outcome> {
    let (one, other) = (Side::read(first)?, Side::read(second)?);
    let report = Report {
        parting: first_difference(&one.trace, &other.trace, ["A", "B"]),
        differences: one.differences(&other),
    };
    match json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::of(report.parting.is_none()))
}

impl Side {
    fn read(folder: &Path) -> Result<Self> {
        let timing = folder.join("timing.json");
        Ok(Self {
            settings: Experiment::read(&folder.join("config.toml"))?,
            provenance: read_json(&folder.join("provenance.json"))?,
            timing: timing.is_file().then(|| read_json(&timing)).transpose()?,
            trace: String::from_utf8_lossy(&read(&folder.join(TRACE))?).into_owned(),
        })
    }

    fn differences(&self, other: &Self) -> Vec<Difference> {
        let settings = self.settings.differing_values(&other.settings);
        let settings = settings
            .into_iter()
            .map(|(key, first, second)| (format!("setting {key}"), first, second));
        let facts = self.facts().into_iter().zip(other.facts());
        let facts = facts.map(|((what, first), (_, second))| (what.to_owned(), first, second));
        settings
            .chain(facts)
            .filter(|(_, first, second)| first != second)
            .map(|(what, first, second)| Difference { what, first, second })
            .collect()
    }

    /// Where the run comes from and, as far as it says so, the machine that it was made on.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let provenance = &self.provenance;
        let origin = [
            ("seed", provenance.seed.to_string()),
            ("data", provenance.data_sha256.clone()),
            ("base", provenance.base_sha256.clone()),
            ("device", provenance.device.clone()),
            ("program", provenance.program.clone()),
            ("commit", provenance.commit.clone().unwrap_or_else(unknown)),
        ];
        let timing = self.timing.as_ref();
        let known = |name: &str| timing.and_then(|timing| timing.machine.get(name).cloned());
        let machine = ["processor", "instruction sets", "caches", "threads", "system"];
        let machine = machine.map(|name| (name, known(name).unwrap_or_else(unknown)));
        origin.into_iter().chain(machine).collect()
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn print_report(report: &Report) {
    match &report.parting {
        None => println!("the same at every moment, to the byte"),
        Some(parting) => println!("they part here: {parting}"),
    }
    match report.differences.is_empty() {
        true => println!("\nsettings, data, base, device, program and machine are alike"),
        false => println!("\nWhat is not alike"),
    }
    for difference in &report.differences {
        println!("  {:<24}A {}", difference.what, difference.first);
        println!("  {:<24}B {}", "", difference.second);
    }
}
