//! The data sets' manifests: what others' tools say of them, and what follows from them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{python, root};
use flapsam::data::manifest::Manifest;

fn manifests() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("data-manifests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

/// MLCommons' own validator, which `tests/run.sh` installs, has nothing to say.
#[test]
fn croissants_validator_accepts_every_manifest() {
    let Some(python) = python() else {
        return;
    };
    let validator = Path::new(&python).with_file_name("mlcroissant");
    for manifest in manifests() {
        let mut command = Command::new(&validator);
        let output = command.args(["validate", "--jsonld"]).arg(&manifest).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(
            output.status.success() && !said.contains("warning") && !said.contains("error"),
            "{}: {said}",
            manifest.display()
        );
    }
}

/// The paper's weights for Fed-KiTS, from our table.
#[test]
fn shares_of_the_training_slices_are_the_papers() {
    let manifest = Manifest::read(&root().join("data-manifests/fed-kits19.json")).unwrap();
    assert_eq!(manifest.cases.len(), 96);
    let shares: Vec<String> = manifest
        .slice_shares()
        .into_iter()
        .map(|(site, share)| format!("{site} {share:.2}"))
        .collect();
    assert_eq!(shares, ["A 0.03", "B 0.18", "C 0.15", "D 0.10", "E 0.05", "F 0.49"]);
}
