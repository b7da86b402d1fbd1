//! `flapsam verify`: the quick suite holds, and a changed golden figure or data byte makes it fail.
//!
//! A changed line of the aggregation fails by the parity and by `round_1.global_norm`; the unit tests of
//! `federation` hold those lines one by one.

mod common;
mod micro;

use std::fs;
use std::path::Path;

use common::{flapsam, root};
use flapsam::experiment::{Provenance, Record};
use flapsam::verification::golden::{compare, figures, read_snapshot, to_text};
use micro::{data, experiment};
use tempfile::TempDir;

fn figures_of(run: &Path) -> flapsam::verification::golden::Figures {
    let read = |name: &str| fs::read(run.join(name)).unwrap();
    let record: Record = serde_json::from_slice(&read("metrics.json")).unwrap();
    let provenance: Provenance = serde_json::from_slice(&read("provenance.json")).unwrap();
    figures(&record, &provenance)
}

fn record(run: &Path) -> Record {
    serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap()
}

/// The whole quick suite, as a newcomer runs it. A figure that moved past its tolerance leaves a `.snap.new` beside
/// the golden one, for `cargo insta review`.
#[test]
fn the_quick_suite_holds() {
    let out = TempDir::new().unwrap();
    let mut command = flapsam();
    command
        .current_dir(root())
        .arg("verify")
        .arg("--data")
        .arg(data())
        .arg("--out")
        .arg(out.path());
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    for name in ["alone", "flap_sam", "full_ft"] {
        let run = out.path().join(name);
        let got = figures_of(&run);
        let snapshot = root().join(format!("golden/quick/{name}.snap"));
        let golden = if snapshot.exists() {
            read_snapshot(&snapshot).unwrap()
        } else {
            Default::default()
        };
        let holds = compare(&golden, &got).iter().all(|row| row.passed);
        let text = if holds { to_text(&golden) } else { to_text(&got) };
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../golden/quick");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text));
    }
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    // Learning is real: better than the untrained adapter, and than the mean client alone.
    let (flap_sam, alone) = (record(&out.path().join("flap_sam")), record(&out.path().join("alone")));
    let kidney = flap_sam.dice[0];
    assert!(kidney > flap_sam.untrained_dice[0] + 0.3, "kidney Dice {kidney}");
    assert!(kidney > alone.dice[0], "{kidney}, alone {}", alone.dice[0]);
}

/// A suite of one micro experiment with its own figures as golden ones.
fn micro_suite(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let config = experiment(folder, |text| text);
    let run = micro::run(&config, &folder.join("runs"), "2");
    let text = format!("---\nsource: test\n---\n{}", to_text(&figures_of(&run)));
    let snapshot = folder.join("micro.snap");
    fs::write(&snapshot, text).unwrap();
    (config, snapshot)
}

fn verify(suite: &Path, data: &Path) -> (i32, String) {
    let mut command = flapsam();
    command
        .current_dir(root())
        .arg("verify")
        .arg("--suite")
        .arg(suite)
        .arg("--data")
        .arg(data);
    let output = command.arg("--out").arg(suite.join("verify")).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_changed_golden_figure_fails() {
    let folder = TempDir::new().unwrap();
    let (_, snapshot) = micro_suite(folder.path());
    let (code, text) = verify(folder.path(), data());
    assert_eq!(code, 0, "{text}");

    let golden = fs::read_to_string(&snapshot).unwrap();
    let changed = |name: &str, edit: &dyn Fn(&str) -> String| {
        let line = golden.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        fs::write(&snapshot, golden.replace(line, &edit(line))).unwrap();
        let (code, text) = verify(folder.path(), data());
        assert_eq!(code, 1, "{name}: {text}");
        assert!(text.contains("FAILED"), "{text}");
    };
    changed("bytes_up", &|line| line.replace(" = ", " = 1"));
    changed("round_1.global_norm", &|line| line.replace(" = ", " = 1"));
    fs::write(
        &snapshot,
        golden
            .lines()
            .skip(5)
            .fold(String::from("---\n---\n"), |all, line| all + line + "\n"),
    )
    .unwrap();
    assert_eq!(
        verify(folder.path(), data()).0,
        1,
        "a figure without a golden one does not hold"
    );
}

/// The golden figures tell aggregations apart: what another line of the server's code would make of the clients' pairs
/// does not pass for what the reference makes of them.
#[test]
fn another_aggregation_fails() {
    let folder = TempDir::new().unwrap();
    let (config, _) = micro_suite(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    let changed = text.replace("rank = 4", "rank = 4\naggregation = \"mean_of_factors\"");
    assert_ne!(text, changed);
    fs::write(&config, changed).unwrap();
    let (code, text) = verify(folder.path(), data());
    assert_eq!(code, 1, "{text}");
    let line = text.lines().find(|line| line.contains("round_1.lora_error")).unwrap();
    assert!(line.contains("FAILED"), "{text}");
}

#[test]
fn a_changed_data_byte_fails() {
    let folder = TempDir::new().unwrap();
    micro_suite(folder.path());
    let copy = folder.path().join("data");
    copy_folder(data(), &copy);
    let file = copy.join("phantom/case_00050/imaging.nii.gz");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, text) = verify(folder.path(), &copy);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("case_00050/imaging.nii.gz is changed"), "{text}");
}

#[test]
fn the_phantom_is_made_to_the_byte() {
    // `verify` compares every file with the manifest; here the manifest itself is made again.
    let folder = TempDir::new().unwrap();
    let mut command = flapsam();
    command
        .arg("phantom")
        .arg("--data")
        .arg(folder.path())
        .arg("--manifest")
        .arg(folder.path())
        .assert()
        .success();
    for name in ["phantom.csv", "phantom.json"] {
        let made = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            made,
            fs::read_to_string(root().join("data-manifests").join(name)).unwrap()
        );
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
