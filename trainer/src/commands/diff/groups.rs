//! Two groups of runs: the seeds of two experiments.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::print_paired;
use crate::commands::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance, Record, run_folders};
use crate::files::read_json;
use crate::verification::convergence::{Convergence, Pace, Verdict};
use crate::verification::groups::{Counts, Groups, LeftOut};
use crate::verification::statistics::Paired;

/// The runs of one experiment.
#[derive(Debug, Serialize)]
struct Group {
    title: String,
    runs: Vec<PathBuf>,
    #[serde(skip)]
    records: Vec<Record>,
    #[serde(skip)]
    provenance: Provenance,
    /// What was passed and is no run.
    no_runs: Vec<NoRun>,
}

#[derive(Debug, Serialize)]
struct NoRun {
    path: PathBuf,
    why: String,
}

#[derive(Debug, Serialize)]
struct Report {
    first: Group,
    second: Group,
    paired: Counts,
    left_out: LeftOut,
    /// Whether both groups are on one state of the data, and from one base.
    same_data: bool,
    same_base: bool,
    /// By class: all cases, then each site's.
    dice: Vec<Paired>,
    /// How soon a Dice is reached, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    convergence: Option<Convergence>,
}

/// Compares Dice of two groups of runs, paired by seed and case. A difference is a finding, not a failure; faster
/// convergence, where it is asked about, is one.
pub(super) fn run(first: &[PathBuf], second: &[PathBuf], reach: Option<f64>, json: bool) -> Result<Outcome> {
    let (first, second) = (Group::read(first, "A")?, Group::read(second, "B")?);
    let [of_first, of_second] = [&first, &second].map(|group| group.records.iter().collect::<Vec<&Record>>());
    let groups = Groups::pair(&of_first, &of_second).map_err(Error::Message)?;
    let convergence = reach.map(|target| Convergence::compare(&of_first, &of_second, target));
    let convergence = convergence.transpose().map_err(Error::Message)?;
    let (one, other) = (&first.provenance, &second.provenance);
    let report = Report {
        paired: groups.counts(),
        dice: groups.by_class(),
        left_out: groups.left_out,
        convergence,
        same_data: one.data_sha256 == other.data_sha256,
        same_base: one.base_sha256 == other.base_sha256,
        first,
        second,
    };
    match json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    let as_the_reference = |found: &Convergence| found.verdict == Verdict::AsTheReference;
    Ok(Outcome::of(report.convergence.as_ref().is_none_or(as_the_reference)))
}

impl Group {
    /// Reads the runs in folders, or below them.
    ///
    /// # Errors
    /// A path is not there, none is a run, or they are not the seeds of one experiment on one state of data and base.
    fn read(paths: &[PathBuf], name: &str) -> Result<Self> {
        let (mut folders, mut no_runs) = (BTreeSet::new(), Vec::new());
        let mut leave_out = |path: &Path, why: String| {
            let path = path.to_owned();
            no_runs.push(NoRun { path, why });
        };
        for path in paths {
            // A pattern of the shell's matches the files beside runs, too.
            match path.is_file() {
                true => leave_out(path, "it is a file, no run's folder".into()),
                false => match run_folders(path)? {
                    found if found.is_empty() => leave_out(path, "there is no run in it (no metrics.json)".into()),
                    found => folders.extend(found),
                },
            }
        }
        let mut runs = Vec::new();
        for folder in folders {
            match Member::read(&folder) {
                Ok(member) => runs.push(member),
                Err(why) => leave_out(&folder, why.to_string()),
            }
        }
        let Some((first, others)) = runs.split_first() else {
            let why = no_runs.first().map_or(String::new(), |no_run| {
                format!(" ({}: {})", no_run.path.display(), no_run.why)
            });
            return Err(Error::Message(format!(
                "{name} has no run{why}; pass folders that 'flapsam run' made, or a folder of them"
            )));
        };
        others.iter().try_for_each(|other| first.belongs_with(other, name))?;
        let mut seeds = BTreeMap::new();
        for run in &runs {
            if let Some(twin) = seeds.insert(run.record.seed, &run.folder) {
                return Err(Error::Message(format!(
                    "{name} has the seed {} twice, in {} and {}; pass one of them",
                    run.record.seed,
                    twin.display(),
                    run.folder.display()
                )));
            }
        }
        Ok(Self {
            title: first.record.title.clone(),
            provenance: first.provenance.clone(),
            runs: runs.iter().map(|run| run.folder.clone()).collect(),
            records: runs.into_iter().map(|run| run.record).collect(),
            no_runs,
        })
    }
}

/// A run of a group.
#[derive(Debug)]
struct Member {
    folder: PathBuf,
    record: Record,
    provenance: Provenance,
    settings: Experiment,
}

impl Member {
    fn read(folder: &Path) -> Result<Self> {
        Ok(Self {
            record: read_json(&folder.join("metrics.json"))?,
            provenance: read_json(&folder.join("provenance.json"))?,
            settings: Experiment::read(&folder.join("config.toml"))?,
            folder: folder.to_owned(),
        })
    }

    /// Refuses what is not another seed of the same.
    fn belongs_with(&self, other: &Self, group: &str) -> Result<()> {
        let mut differ = self.settings.differences(&other.settings);
        let pairs = [
            ("data", &self.provenance.data_sha256, &other.provenance.data_sha256),
            ("base", &self.provenance.base_sha256, &other.provenance.base_sha256),
        ];
        differ.extend(
            pairs
                .iter()
                .filter(|(_, one, other)| one != other)
                .map(|(key, ..)| (*key).to_owned()),
        );
        match differ.is_empty() {
            true => Ok(()),
            false => Err(Error::Message(format!(
                "{group} holds more than the seeds of one experiment: {} and {} differ in {}; pass the runs of one",
                self.folder.display(),
                other.folder.display(),
                differ.join(", ")
            ))),
        }
    }
}

fn print_report(report: &Report) {
    for (name, group) in [("A", &report.first), ("B", &report.second)] {
        let (runs, plural) = (group.runs.len(), if group.runs.len() == 1 { "" } else { "s" });
        println!(
            "{name} is {runs} run{plural} of '{}', such as {}",
            group.title,
            group.runs[0].display()
        );
    }
    println!("\npaired by seed and case: {}", report.paired);
    for (number, what) in [(report.paired.seeds, "seed"), (report.paired.sites, "site")] {
        if number == 1 {
            println!("one {what}: the intervals know nothing of how {what}s differ");
        }
    }
    let no_runs = report.first.no_runs.iter().chain(&report.second.no_runs);
    for no_run in no_runs {
        println!("left out: {}: {}", no_run.path.display(), no_run.why);
    }
    for sentence in report.left_out.in_words(["A", "B"]) {
        println!("{sentence}");
    }
    if !report.same_data {
        println!("A and B are on different states of the data");
    }
    if !report.same_base {
        println!("A and B start from different bases");
    }
    println!("\nDice, B less A, with the 95 % interval of a bootstrap over seeds, sites and patients");
    print_paired(&report.dice);
    if let Some(convergence) = &report.convergence {
        print_convergence(convergence);
    }
}

fn print_convergence(found: &Convergence) {
    println!(
        "\nrounds until a mean Dice of {}, by MLPerf's rule for reference convergence points",
        found.target
    );
    for (name, Pace { rounds, mean }) in [("A", &found.reference), ("B", &found.compared)] {
        let rounds = rounds
            .iter()
            .map(|rounds| rounds.map_or("never".into(), |rounds| rounds.to_string()));
        let rounds: Vec<String> = rounds.collect();
        let mean = match mean.is_finite() {
            true => format!("; {mean:.1} on average"),
            false => String::new(),
        };
        println!("{name}: {}{mean}", rounds.join(", "));
    }
    let chance = found.chance.map_or(String::new(), |chance| {
        format!(" (chance of it among equals: {chance:.3})")
    });
    let verdict = match found.verdict {
        Verdict::AsTheReference => "B is not faster than A",
        Verdict::Faster => "FAILED: B is faster than A",
        Verdict::NotReached => "FAILED: B does not get there",
    };
    println!("{verdict}{chance}");
    if !found.has_enough_references() {
        println!("the rule asks for twice as many runs of A as of B");
    }
}
