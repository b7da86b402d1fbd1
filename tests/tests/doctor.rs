//! What works on this machine, completions, and the manual's page.

mod common;

use std::fs;
use std::process::Output;

use common::{flapsam, root};
use serde_json::Value;
use tempfile::TempDir;

fn doctor(arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = flapsam();
    let output = command
        .current_dir(root())
        .args(["doctor", "--json"])
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn check<'a>(report: &'a Value, what: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["what"] == what).unwrap()
}

/// Whatever does not work has a remedy, and only what `verify` needs makes it fail.
#[test]
fn what_works_is_told_with_remedies() {
    let empty = TempDir::new().unwrap();
    let folder = empty.path().to_str().unwrap();
    let (code, report) = doctor(&["--data", folder, "--page", folder]);
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["works"], check["remedy"].is_null(), "{check}");
        assert!(!check["found"].as_str().unwrap().is_empty());
    }
    assert_eq!(
        (code, &check(&report, "verify")["works"]),
        (Some(0), &Value::Bool(true))
    );
    let remedy = |what: &str| check(&report, what)["remedy"].as_str().unwrap().to_owned();
    assert!(remedy("view").contains("viewer/build.sh"));
    assert!(remedy("data set phantom").contains("verify makes it"));
    assert!(remedy("data set hippocampus").contains("flapsam data list"));

    let (code, report) = doctor(&["--golden", folder]);
    assert_eq!(
        (code, &check(&report, "verify")["works"]),
        (Some(1), &Value::Bool(false))
    );
    assert!(
        check(&report, "verify")["remedy"]
            .as_str()
            .unwrap()
            .contains("--golden")
    );
}

/// What is there counts, and a file of another size does not.
#[test]
fn files_of_data_sets_are_counted() {
    let data = TempDir::new().unwrap();
    let found = |folder: &str| {
        let (_, report) = doctor(&["--data", folder]);
        check(&report, "data set phantom")["found"].as_str().unwrap().to_owned()
    };
    let here = data.path().to_str().unwrap();
    assert!(found(here).starts_with("0 of "));
    flapsam().args(["phantom", "--data", here]).assert().success();
    let all = found(here);
    let (there, of) = all.strip_suffix(" files").unwrap().split_once(" of ").unwrap();
    assert_eq!(there, of);
    let one = data.path().join("phantom/case_00050/imaging.nii.gz");
    fs::write(&one, "cut").unwrap();
    assert_eq!(
        found(here),
        format!("{} of {of} files", of.parse::<usize>().unwrap() - 1)
    );
}

fn completions(form: &str) -> Output {
    flapsam().args(["completions", form]).output().unwrap()
}

#[test]
fn shells_and_the_manual_know_the_commands() {
    for form in ["bash", "zsh", "fish", "elvish", "powershell", "man"] {
        let output = completions(form);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.contains("verify") && text.contains("segment"),
            "{form}"
        );
    }
    let refused = completions("tcsh");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bash, elvish"));
}
