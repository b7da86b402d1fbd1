//! What the suites' files come to: the settings of every experiment, as accepted.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{flapsam, root};
use flapsam::data::manifest::Manifest;
use flapsam::experiment::suite::is_suite;
use flapsam::files::files_below;
use flapsam::verification::suite::{Planned, find};

/// The folders of the project's own suites, and their experiments.
fn suites() -> Vec<(PathBuf, Vec<Planned>)> {
    let files = files_below(&root().join("golden")).unwrap();
    let folders = files
        .iter()
        .filter_map(|file| file.parent())
        .filter(|folder| is_suite(folder));
    let folders: BTreeSet<&Path> = folders.collect();
    let suites: Vec<_> = folders
        .into_iter()
        .map(|folder| (folder.to_owned(), find(&folder.to_string_lossy()).unwrap()))
        .collect();
    assert!(suites.len() >= 6, "{suites:?}");
    suites
}

/// A setting a line, by its whole key. Of files only the names: the places differ with the machine's.
fn settings(planned: &Planned) -> BTreeSet<String> {
    let mut table = String::new();
    let mut settings = BTreeSet::new();
    for line in planned.experiment.resolved.lines() {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let value = match key {
                "data" | "base" => format!("\"{}", value.rsplit('/').next().unwrap()),
                _ => value.to_owned(),
            };
            settings.insert(format!("{table}{key} = {value}"));
        }
    }
    settings
}

/// What a suite comes to, beside its file: settings that all experiments share, then those of each. What decides
/// figures does not move unseen, whichever file it stands in.
#[test]
fn suites_come_to_what_was_accepted() {
    for (folder, planned) in suites() {
        let all: Vec<BTreeSet<String>> = planned.iter().map(settings).collect();
        let shared = all[1..].iter().fold(all[0].clone(), |shared, one| &shared & one);
        let lines = |settings: BTreeSet<String>, between: &str| Vec::from_iter(settings).join(between);
        let mut text = lines(shared.clone(), "\n") + "\n";
        for (planned, own) in planned.iter().zip(&all) {
            let name = planned.name.strip_prefix(&format!("{}/", planned.suite)).unwrap();
            text += &format!("\n{name}: {}", lines(own - &shared, "; "));
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&folder);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!("suite", text));
    }
}

/// Wherever results on synthetic data appear, the title says so.
#[test]
fn titles_call_synthetic_data_synthetic() {
    let mut synthetic = 0;
    for planned in suites().into_iter().flat_map(|(_, planned)| planned) {
        let manifest = planned.experiment.manifest(Path::new("data"));
        // That of labels-to-ct is made with the data, and is not here.
        let made = !manifest.is_file() || {
            let about = Manifest::read(&manifest).unwrap().about;
            about.description.to_lowercase().contains("synthetic")
        };
        let title = &planned.experiment.title;
        assert_eq!(title.contains("synthetic)"), made, "{title}");
        synthetic += usize::from(made);
    }
    assert!(synthetic >= 51, "{synthetic}");
}

/// No golden figures without an experiment that they are of.
#[test]
fn figures_are_of_an_experiment() {
    for (folder, planned) in suites() {
        let known: BTreeSet<PathBuf> = planned.iter().map(|planned| planned.experiment.path.clone()).collect();
        for entry in fs::read_dir(&folder).unwrap() {
            let below = entry.unwrap().path();
            if !below.is_dir() || is_suite(&below) {
                continue;
            }
            for file in files_below(&below).unwrap() {
                let name = file.to_string_lossy().into_owned();
                let Some(name) = name.strip_suffix(".snap") else {
                    continue;
                };
                let name = name.strip_suffix(".trace").unwrap_or(name);
                assert!(known.contains(Path::new(&format!("{name}.toml"))), "{}", file.display());
            }
        }
    }
}

/// `golden/` need not be typed, and a misspelt experiment is told the nearest.
#[test]
fn experiments_are_named_by_their_suite() {
    let refused = |experiment: &str| {
        let mut command = flapsam();
        let ended = command.current_dir(root()).args(["run", experiment]).assert().code(2);
        String::from_utf8(ended.get_output().stderr.clone()).unwrap()
    };
    for experiment in [
        "phantom/quick/methods/flap_sm",
        "golden/phantom/quick/methods/flap_sm.toml",
    ] {
        let said = refused(experiment);
        assert!(
            said.contains("golden/phantom/quick: ") && said.contains("'methods/flap_sam'"),
            "{said}"
        );
    }
    assert!(refused("phantom/quick").contains("--suite golden/phantom/quick"));
    assert!(refused("experiments/methods/flap_sam.toml").contains("below the suite's folder"));
}
