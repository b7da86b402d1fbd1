//! An experiment of one's own.

mod common;
mod micro;

use std::fs;

use assert_cmd::Command;
use common::{flapsam, root};
use micro::data;
use serde_json::Value;
use tempfile::TempDir;

fn new(folder: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = flapsam();
    command.current_dir(root()).arg("new").arg(folder).args(arguments);
    command
}

/// The file is run as it is written, but for what makes it quick here.
#[test]
fn what_is_written_can_be_run() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("study");
    let output = new(&folder, &["--json"]).assert().success();
    let said: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let file = folder.join("experiment.toml");
    assert_eq!(said["experiment"].as_str(), file.to_str());
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("synthetic") || text.contains("phantom"), "{text}");
    let quick = text
        .replace("image_size = 128", "image_size = 32\ncases_per_site = [1, 1]")
        .replace("rounds = 3", "rounds = 1");
    assert_ne!(quick, text);
    fs::write(&file, quick).unwrap();
    let mut run = flapsam();
    run.arg("run").arg(&file).arg("--data").arg(data());
    run.arg("--out").arg(place.path().join("runs")).assert().success();
    assert!(place.path().join("runs/experiment-1/metrics.json").is_file());
    // What is there is never written over.
    let refused = new(&folder, &[]).assert().code(2);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("it is there already"));
}

#[test]
fn other_data_and_another_base_are_taken_or_refused() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("mr");
    new(&folder, &["--data", "data-manifests/hippocampus.json"])
        .assert()
        .success();
    let text = fs::read_to_string(folder.join("experiment.toml")).unwrap();
    assert!(
        text.contains("clip_percentile = 99.0\n") && text.contains("hippocampus.json"),
        "{text}"
    );
    for (arguments, why) in [
        (["--data", "nowhere.json"], "nowhere.json"),
        (["--base", "nowhere.pth"], "pass --base"),
    ] {
        let other = place.path().join("other");
        let refused = new(&other, &arguments).assert().code(2);
        let said = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(said.contains(why) && !other.exists(), "{said}");
    }
}
