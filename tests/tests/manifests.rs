//! The data sets' manifests: what others' tools say of them, and what follows from them.

mod common;
mod mini;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{flapsam, python, root};
use mini::{SLICES_LAST, manifest, pair, put};

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
    // One that users make of their own data, too.
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    for site in ["A", "B"] {
        let (image, labels) = pair(1, [4, 4, 4], SLICES_LAST, 1);
        put(&own.join(site).join("x.nii.gz"), &image);
        put(&own.join(site).join("x_mask.nii.gz"), &labels);
    }
    let mut import = flapsam();
    import
        .args(["data", "import", "--classes", "organ", "--manifests"])
        .arg(folder.path())
        .arg(&own);
    import.assert().success();
    for manifest in manifests().into_iter().chain([folder.path().join("own.json")]) {
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
    let manifest = manifest("fed-kits19");
    assert_eq!(manifest.cases.len(), 96);
    let shares: Vec<String> = manifest
        .slice_shares()
        .into_iter()
        .map(|(site, share)| format!("{site} {share:.2}"))
        .collect();
    assert_eq!(shares, ["A 0.03", "B 0.18", "C 0.15", "D 0.10", "E 0.05", "F 0.49"]);
}

/// Those of Fed-IXI: every case counts as many slices.
#[test]
fn shares_of_ixi_are_the_papers() {
    let shares = manifest("fed-ixi").slice_shares();
    let shares: Vec<String> = shares
        .into_iter()
        .map(|(site, share)| format!("{site} {share:.2}"))
        .collect();
    assert_eq!(shares, ["Guys 0.55", "HH 0.32", "IOP 0.13"]);
}
