//! `flapsam verify`: the quick suite holds, and a changed golden figure or data byte makes it fail.
//!
//! A changed line of the aggregation fails by the parity and by `round_1.global_norm`; the unit tests of
//! `federation` hold those lines one by one.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};

use common::{flapsam, root};
use flapsam::experiment::{Experiment, Provenance, Record};
use flapsam::verification::claims::Claims;
use flapsam::verification::golden::{Figure, figures, read_snapshot, to_text};
use flapsam_model::random::Random;
use micro::{data, experiment};
use serde_json::{Value, json};
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

/// Holds the figures and the trace that `verify` left on the CPU for each experiment of a suite against the snapshots
/// in the suite's folder, to the last digit. What moved leaves a `.snap.new` there, for `cargo insta review`.
fn hold(suite: &str, out: &Path) {
    for planned in flapsam::verification::suite::find(&root().join("golden").join(suite).to_string_lossy()).unwrap() {
        let left = |ending: &str| fs::read_to_string(out.join(format!("{}.{ending}", planned.name))).unwrap();
        let folder = Path::new(&planned.name).parent().unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(Path::new("../../golden").join(folder));
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            let name = planned.experiment.name();
            insta::assert_snapshot!(format!("{name}.trace"), left("trace"));
            insta::assert_snapshot!(name, left("figures"));
        });
    }
}

/// The whole quick suite, as a newcomer runs it.
#[test]
fn the_quick_suite_holds() {
    let out = TempDir::new().unwrap();
    let mut command = flapsam();
    command.current_dir(root()).arg("verify").arg("--data").arg(data());
    let output = command.arg("--out").arg(out.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // What it says of a failure is there even if the figures are not.
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    hold("phantom/quick", out.path());
    assert_eq!(output.status.code(), Some(0));
    // Every claim gets its verdict: counts decide some, and the phantom decides none of Fed-KiTS's.
    assert!(text.contains("reproduced") && text.contains("not run"), "{text}");

    // Learning is real: better than the untrained adapter, and than the mean client alone.
    let of = |name: &str| record(&out.path().join("phantom/quick").join(name));
    let (flap_sam, alone) = (of("methods/flap_sam-1"), of("alone/flap_sam-1"));
    let kidney = flap_sam.dice[0];
    assert!(kidney > flap_sam.untrained_dice[0] + 0.3, "kidney Dice {kidney}");
    assert!(kidney > alone.dice[0], "{kidney}, alone {}", alone.dice[0]);
}

/// A suite that takes too long for every day: `FLAPSAM_SUITE=phantom cargo test .. -- --ignored`, where `FLAPSAM_RUNS`
/// may name a folder that `flapsam verify --suite phantom --out FOLDER` has filled already; then nothing is run.
#[test]
#[ignore = "half an hour"]
fn a_longer_suite_holds() {
    let suite = std::env::var("FLAPSAM_SUITE").unwrap_or_else(|_| "phantom".into());
    if let Some(filled) = std::env::var_os("FLAPSAM_RUNS") {
        return hold(&suite, Path::new(&filled));
    }
    let out = TempDir::new().unwrap();
    let mut command = flapsam();
    command.current_dir(root()).args(["verify", "--suite", &suite]);
    let output = command.arg("--out").arg(out.path()).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    hold(&suite, out.path());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A suite of one micro experiment with its own figures as golden ones: its folder, the experiment's file and the golden
/// figures.
fn micro_suite(folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let suite = folder.join("suite");
    fs::create_dir(&suite).unwrap();
    let config = experiment(&suite, |text| text);
    let run = micro::run(&config, &folder.join("runs"), "2");
    let text = format!("---\nsource: test\n---\n{}", to_text(&figures_of(&run)));
    let snapshot = suite.join("micro.snap");
    fs::write(&snapshot, text).unwrap();
    (suite, config, snapshot)
}

fn verify(suite: &Path, data: &Path) -> (i32, String) {
    verify_with(suite, data, &[])
}

fn verify_with(suite: &Path, data: &Path, options: &[&str]) -> (i32, String) {
    let mut command = flapsam();
    command.current_dir(root()).arg("verify").args(options);
    command.arg("--suite").arg(suite).arg("--data").arg(data);
    command.arg("--out").arg(suite.with_file_name("verify"));
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_changed_golden_figure_fails() {
    let folder = TempDir::new().unwrap();
    let (suite, _, snapshot) = micro_suite(folder.path());
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 0, "{text}");

    let golden = fs::read_to_string(&snapshot).unwrap();
    let changed = |name: &str, edit: &dyn Fn(&str) -> String| {
        let line = golden.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        fs::write(&snapshot, golden.replace(line, &edit(line))).unwrap();
        let (code, text) = verify(&suite, data());
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
        verify(&suite, data()).0,
        1,
        "a figure without a golden one does not hold"
    );
}

/// On the CPU a figure holds to its last digit, and the golden trace says where a run parted.
#[test]
fn on_the_cpu_nothing_may_move() {
    let folder = TempDir::new().unwrap();
    let (suite, config, snapshot) = micro_suite(folder.path());
    let golden = fs::read_to_string(&snapshot).unwrap();
    let line = golden.lines().find(|line| line.contains("round_1.loss.A")).unwrap();
    let value: f64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let moved = line.replace(&format!("{value:.6}"), &format!("{:.6}", value + 1e-6));
    assert_ne!(line, moved);
    fs::write(&snapshot, golden.replace(line, &moved)).unwrap();
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("for a report of it") && text.contains("threads"),
        "{text}"
    );
    fs::write(&snapshot, &golden).unwrap();

    let trace = fs::read_to_string(folder.path().join("verify/suite/micro.trace")).unwrap();
    let beside = config.with_extension("trace.snap");
    fs::write(&beside, format!("---\nsource: test\n---\n{trace}")).unwrap();
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 0, "{text}");
    let step = trace
        .lines()
        .find(|line| line.starts_with("round 2, client F, step 1:"))
        .unwrap();
    fs::write(
        &beside,
        trace.replace(step, "round 2, client F, step 1: 0123456789abcdef"),
    )
    .unwrap();
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 1, "{text}");
    let named = "round 2, client F, differs between its start and step 1";
    assert!(text.contains(named), "{text}");
}

/// The golden figures tell aggregations apart: what another line of the server's code would make of the clients' pairs
/// does not pass for what the reference makes of them.
#[test]
fn another_aggregation_fails() {
    let folder = TempDir::new().unwrap();
    let (suite, config, _) = micro_suite(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    let changed = text.replace("rank = 4", "rank = 4\naggregation = \"mean_of_factors\"");
    assert_ne!(text, changed);
    fs::write(&config, changed).unwrap();
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 1, "{text}");
    let line = text.lines().find(|line| line.contains("round_1.lora_error")).unwrap();
    assert!(line.contains("FAILED"), "{text}");
}

/// Without golden figures nothing is verified, and the line says so.
#[test]
fn an_experiment_without_golden_figures_fails() {
    let folder = TempDir::new().unwrap();
    let (suite, _, snapshot) = micro_suite(folder.path());
    fs::remove_file(snapshot).unwrap();
    let (code, text) = verify(&suite, data());
    assert_eq!(code, 1, "{text}");
    assert!(
        text.lines()
            .any(|line| line.contains("golden figures") && line.contains("FAILED"))
    );
}

/// Two seeds: the second one's Dice, and mean and spread of both, are figures too.
#[test]
fn every_seed_counts() {
    let folder = TempDir::new().unwrap();
    let (suite, config, _) = micro_suite(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("seeds = [1]", "seeds = [1, 2]")).unwrap();
    verify(&suite, data());
    let figures = read_snapshot(&folder.path().join("verify/suite/micro.figures")).unwrap();
    let value = |name: &str| match figures[name] {
        Figure::Measured { value, .. } => value,
        Figure::Exact(_) => panic!("{name} is measured"),
    };
    let dice = [value("dice.kidney"), value("seed_2.dice.kidney")];
    assert_ne!(dice[0], dice[1]);
    assert!((value("seeds.dice.kidney.mean") - (dice[0] + dice[1]) / 2.0).abs() < 1e-6);
    let sd = (dice[0] - dice[1]).abs() / f64::sqrt(2.0);
    assert!((value("seeds.dice.kidney.sd") - sd).abs() < 2e-6);

    // One run is held against what there is of its seed.
    let golden = folder.path().join("verify/suite/micro.figures");
    let unmoved = |seed: usize| {
        let run = folder.path().join(format!("verify/suite/micro-{seed}"));
        let mut command = flapsam();
        command.arg("diff").arg(&golden).arg(run).arg("--json");
        let output = command.assert().success();
        let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        report["unmoved"].as_u64().unwrap()
    };
    let (first, second) = (unmoved(1), unmoved(2));
    assert!(first > 20, "{first}");
    assert_eq!(second, 7, "Dice of two classes, and what no seed changes");
}

/// `--resume` keeps a finished run of the same experiment and refuses another one's; whatever is replaced is moved aside.
#[test]
fn resume_keeps_what_is_the_same() {
    let folder = TempDir::new().unwrap();
    let (suite, config, _) = micro_suite(folder.path());
    let metrics = folder.path().join("verify/suite/micro-1/metrics.json");
    let made = || fs::metadata(&metrics).unwrap().modified().unwrap();
    verify(&suite, data());
    let first = made();
    let (code, text) = verify_with(&suite, data(), &["--resume"]);
    assert_eq!((code, made()), (0, first), "{text}");
    verify(&suite, data());
    let second = made();
    assert_ne!(second, first, "without --resume it is made again");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("base_lr = 1e-3", "base_lr = 2e-3")).unwrap();
    let (code, text) = verify_with(&suite, data(), &["--resume"]);
    assert_eq!((code, made()), (2, second), "{text}");
    let (code, _) = verify_with(&suite, data(), &["--resume", "--replace"]);
    assert_eq!(code, 1, "another rate, other figures");
    assert_ne!(made(), second, "another experiment is made again");
    let aside = fs::read_dir(folder.path().join("verify/suite/.replaced")).unwrap();
    assert_eq!(aside.count(), 2);
}

/// The estimate counts what the manifest says, and a rehearsal runs every part on a small share of it.
#[test]
fn a_suite_says_what_it_takes_and_rehearses() {
    let folder = TempDir::new().unwrap();
    let (suite, config, _) = micro_suite(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    let text = text
        .replace("cases_per_site = [1, 1]\n", "")
        .replace("rounds = 2", "rounds = 50");
    fs::write(&config, text).unwrap();
    let (code, text) = verify_with(&suite, data(), &["--estimate", "--json"]);
    assert_eq!(code, 0, "{text}");
    let estimate: Value = serde_json::from_str(&text).unwrap();
    let manifest = flapsam::data::manifest::Manifest::read(&root().join("data-manifests/phantom.json")).unwrap();
    let (train, test): (Vec<_>, Vec<_>) = manifest.cases.iter().partition(|case| case.train);
    let stacks: usize = train.iter().map(|case| case.slices.div_ceil(5)).sum();
    let slices: usize = test.iter().map(|case| case.slices).sum();
    assert_eq!(estimate[0]["stacks"], 50 * stacks);
    assert_eq!(estimate[0]["judged_slices"], 2 * slices, "untrained, and at the end");
    let (seconds, memory) = (&estimate[0]["seconds"], &estimate[0]["memory_bytes"]);
    assert!(seconds.as_f64().unwrap() > 1.0, "{estimate}");
    assert!(memory.as_u64().unwrap() > 5_000_000, "{estimate}");

    let (code, text) = verify_with(&suite, data(), &["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 of 1 experiments ran through"), "{text}");
    let rehearsed = record(&folder.path().join("verify/dry-run/suite/micro"));
    assert!(rehearsed.partial, "what is rehearsed never counts");
    assert_eq!((rehearsed.rounds.len(), rehearsed.cases.len()), (2, 6));
    let config = folder.path().join("verify/dry-run/suite/micro/config.toml");
    let says = Experiment::read(&config).unwrap();
    assert_eq!(says.cases_per_site, Some([1, 1]), "a rehearsal's settings are its own");

    // A part that cannot run is named: this base is there, and no checkpoint.
    fs::write(suite.join("broken.safetensors"), "no checkpoint").unwrap();
    let nano = root().join("golden/nano.safetensors").display().to_string();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(suite.join("wrong.toml"), text.replace(&nano, "broken.safetensors")).unwrap();
    let (code, text) = verify_with(&suite, data(), &["--dry-run"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("broken.safetensors") && text.contains("1 of 2 experiments ran"),
        "{text}"
    );
}

#[test]
fn a_changed_data_byte_fails() {
    let folder = TempDir::new().unwrap();
    let (suite, _, _) = micro_suite(folder.path());
    let copy = folder.path().join("data");
    copy_folder(data(), &copy);
    let file = copy.join("phantom/case_00050/imaging.nii.gz");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, text) = verify(&suite, &copy);
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

/// What numbers of parameters say of the paper's claims, as accepted.
#[test]
fn the_claims_that_counts_decide_hold() {
    let claims = Claims::read(&root().join("golden/claims.toml")).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("claims", to_text(&claims.figures().unwrap())));
}

#[test]
fn a_changed_golden_claim_fails() {
    let folder = TempDir::new().unwrap();
    let suite = folder.path().join("suite");
    fs::create_dir(&suite).unwrap();
    experiment(&suite, |text| text);
    let golden = |name: &str| root().join("golden").join(name);
    fs::create_dir(folder.path().join("golden")).unwrap();
    let copy = |name: &str| folder.path().join("golden").join(name);
    fs::copy(golden("claims.toml"), copy("claims.toml")).unwrap();
    let snapshot = fs::read_to_string(golden("claims.snap")).unwrap();
    fs::write(copy("claims.snap"), snapshot.replace("= 49.0", "= 48.0")).unwrap();
    let mut command = flapsam();
    command.current_dir(root()).arg("verify").arg("--suite").arg(&suite);
    command.arg("--data").arg(data()).arg("--out").arg(folder.path());
    command.arg("--claims-file").arg(copy("claims.toml"));
    let ended = command.assert().code(1);
    let text = String::from_utf8_lossy(&ended.get_output().stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with("C1 ")).unwrap();
    assert!(line.contains("48.0") && line.contains("FAILED"), "{text}");
}

/// Runs that were never run: the record of a real one, changed.
struct MadeUp {
    folder: TempDir,
    record: Value,
    provenance: Value,
}

impl MadeUp {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let run = micro::run(&experiment(folder.path(), |text| text), folder.path(), "2");
        let read = |name: &str| serde_json::from_slice::<Value>(&fs::read(run.join(name)).unwrap()).unwrap();
        let (mut record, mut provenance) = (read("metrics.json"), read("provenance.json"));
        let claims = Claims::read(&root().join("golden/claims.toml")).unwrap();
        provenance["base_sha256"] = claims.network.base_sha256.into();
        record["data"] = "fed-kits19".into();
        record["partial"] = false.into();
        let folder = TempDir::new().unwrap();
        Self {
            folder,
            record,
            provenance,
        }
    }

    /// Writes a federated run of the paper's experiment with that mean Dice.
    fn run(&self, method: &str, seed: u64, dice: f64, change: impl FnOnce(&mut Value, &mut Value)) {
        let (mut record, mut provenance) = (self.record.clone(), self.provenance.clone());
        record["method"] = method.into();
        record["seed"] = seed.into();
        // Two classes: their mean counts.
        record["dice"] = json!([dice + 0.2, dice - 0.2]);
        change(&mut record, &mut provenance);
        let of = |key: &str| record[key].as_str().unwrap_or_default();
        let (setting, data) = (of("setting"), of("data"));
        let run = self.folder.path().join(format!("some/{method}-{setting}-{seed}"));
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.json"), record.to_string()).unwrap();
        fs::write(run.join("provenance.json"), provenance.to_string()).unwrap();
        let part = if setting == "alone" { "alone" } else { "methods" };
        let paper = root().join(format!("golden/{data}/{part}/{method}"));
        fs::write(run.join("config.toml"), Experiment::read(&paper).unwrap().resolved).unwrap();
    }

    /// What `verify --claims` says of a claim.
    fn judged(&self, id: &str) -> Value {
        let mut command = self.command();
        let output = command.arg("--json").assert().code(0);
        let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        let mut claims = report["claims"].as_array().unwrap().iter();
        claims.find(|claim| claim["id"] == id).unwrap().clone()
    }

    fn command(&self) -> assert_cmd::Command {
        let mut command = flapsam();
        command.current_dir(root()).args(["verify", "--claims", "--runs"]);
        command.arg(self.folder.path());
        command
    }
}

fn as_it_is(_: &mut Value, _: &mut Value) {}

#[test]
fn moving_a_figure_moves_the_verdict() {
    let runs = MadeUp::new();
    runs.run("flap_sam", 1, 0.54, as_it_is);
    let waiting = runs.judged("C2");
    assert_eq!(
        (&waiting["verdict"], &waiting["ours"]),
        (&json!("not_run"), &Value::Null)
    );
    let missing = waiting["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0]["runs"], "fed-kits19, full_ft, federated");
    assert!(
        missing[0]["remedy"].as_str().unwrap().contains("golden/fed-kits19/"),
        "{missing:?}"
    );

    // The mean over seeds: 56 per cent.
    runs.run("flap_sam", 2, 0.58, as_it_is);
    for (full_ft, ours, verdict) in [
        (0.50, 6.0, "reproduced"),
        (0.525, 3.5, "differs"),
        (0.46, 10.0, "differs"),
        (0.57, -1.0, "not_reproduced"),
    ] {
        runs.run("full_ft", 1, full_ft, as_it_is);
        let judged = runs.judged("C2");
        assert_eq!(judged["verdict"], verdict, "{judged}");
        assert!((judged["ours"].as_f64().unwrap() - ours).abs() < 1e-9, "{judged}");
    }

    // Training alone is a setting of its own, and other data sets have their own runs.
    assert_eq!(runs.judged("C6")["verdict"], "not_run");
    runs.run("flap_sam", 1, 0.46, |record, _| record["setting"] = "alone".into());
    assert_eq!(runs.judged("C6")["verdict"], "reproduced");
    assert_eq!(runs.judged("C7.prostate-mri.C6")["verdict"], "not_run");

    let table = runs.command().assert().code(0);
    let table = String::from_utf8(table.get_output().stdout.clone()).unwrap();
    let (verdicts, missing) = table.split_once("\nmissing\n").unwrap();
    assert_eq!(verdicts.matches("\ncounts\n").count(), 1, "{table}");
    for verdict in ["reproduced", "differs", "not reproduced", "not run"] {
        assert!(
            verdicts.lines().any(|line| line.ends_with(&format!("  {verdict}"))),
            "{table}"
        );
    }
    let widest = verdicts.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest} columns:\n{table}");
    assert!(missing.contains("fed-ixi, flap_sam, alone"), "{table}");
}

/// By sign alone: above zero, and not.
#[test]
fn a_direction_is_judged_too() {
    let runs = MadeUp::new();
    let on_prostate = |record: &mut Value, _: &mut Value| {
        record["data"] = "prostate-mri".into();
        record["dice"] = json!([record["dice"][0]]);
    };
    runs.run("full_ft", 1, 0.5, on_prostate);
    for (dice, verdict) in [(0.51, "reproduced"), (0.50, "not_reproduced"), (0.49, "not_reproduced")] {
        runs.run("flap_sam", 1, dice, on_prostate);
        assert_eq!(runs.judged("C7.prostate-mri.C2")["verdict"], verdict, "{dice}");
    }
}

#[test]
fn runs_on_other_data_and_parts_of_runs_do_not_count() {
    type Change = fn(&mut Value, &mut Value);
    let changes: [(&str, Change); 5] = [
        ("no claim is about phantom", |record, _| {
            record["data"] = "phantom".into();
        }),
        ("no claim is about labels-to-ct", |record, _| {
            record["data"] = "labels-to-ct".into();
        }),
        ("a part of the cases", |record, _| record["partial"] = true.into()),
        ("another base checkpoint", |_, provenance| {
            provenance["base_sha256"] = "other".into();
        }),
        ("metrics.json", |record, _| {
            drop(record.as_object_mut().unwrap().remove("method"));
        }),
    ];
    let runs = MadeUp::new();
    runs.run("full_ft", 1, 0.5, as_it_is);
    for (why, change) in changes {
        runs.run("flap_sam", 1, 0.56, change);
        assert_eq!(runs.judged("C2")["verdict"], "not_run", "{why}");
        let table = runs.command().assert().code(0);
        let table = String::from_utf8(table.get_output().stdout.clone()).unwrap();
        let (_, not_counted) = table.split_once("\nnot counted\n").unwrap();
        assert!(
            not_counted.contains(why) && not_counted.contains("some/flap_sam-federated-1"),
            "{table}"
        );
    }
    // What the figures do not show, the settings do.
    runs.run("flap_sam", 1, 0.56, as_it_is);
    assert_eq!(runs.judged("C2")["verdict"], "reproduced");
    let config = runs.folder.path().join("some/flap_sam-federated-1/config.toml");
    let plain = fs::read_to_string(&config).unwrap();
    let with = |changed: &str| {
        fs::write(&config, changed).unwrap();
        runs.judged("C2")["verdict"].clone()
    };
    for departure in [
        "participation = 0.5",
        "aggregation = \"mean_of_factors\"",
        "precision = \"int8\"",
        "dora = true",
    ] {
        assert_eq!(with(&format!("{departure}\n{plain}")), "not_run", "{departure}");
    }
    for (from, to) in [
        ("base_lr = 0.0008", "base_lr = 0.0009"),
        ("image_size = 224", "image_size = 256"),
    ] {
        assert!(plain.contains(from), "{plain}");
        assert_eq!(with(&plain.replace(from, to)), "not_run", "{to}");
    }
    // What does not move Dice does not matter, nor does a default that is written down.
    let same = format!("num_lora = 1\n{plain}").replace("dice_every = 5", "dice_every = 1");
    assert_eq!(with(&same), "reproduced");

    // Another state of the data is not compared with this one; with a whole pair on each, neither is chosen.
    runs.run("flap_sam", 1, 0.56, |_, provenance| {
        provenance["data_sha256"] = "other".into();
    });
    assert_eq!(runs.judged("C2")["verdict"], "not_run");
    runs.run("full_ft", 2, 0.5, |_, provenance| {
        provenance["data_sha256"] = "other".into();
    });
    assert_eq!(runs.judged("C2")["verdict"], "reproduced");
    runs.run("flap_sam", 3, 0.56, as_it_is);
    let judged = runs.judged("C2");
    assert_eq!(judged["verdict"], "not_run");
    assert!(
        judged["missing"][0]["runs"].as_str().unwrap().contains("there are 2"),
        "{judged}"
    );
}

#[test]
fn a_mistake_among_the_claims_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("claims.toml");
    let text = fs::read_to_string(root().join("golden/claims.toml")).unwrap();
    for (from, to, word) in [
        ("\nwithin = 2.4", "\nwithin = 2.4\nwhithin = 3", "whithin"),
        ("parameter_ratio = { of", "parameter_ratio = { off", "off"),
        ("id = \"C2\"", "id = \"C1\"", "two claims are called 'C1'"),
        ("data = \"counts\"", "data = \"fed-kits19\"", "C1"),
        ("model = \"vit_b\"", "model = \"vit_x\"", "vit_x"),
        // Of ours.
        (
            "id = \"hippocampus.C2\"",
            "id = \"GB.flap_sam\"",
            "two claims are called 'GB.flap_sam'",
        ),
        ("\nseeds = 5", "\nseeds = 1", "at least 2"),
        ("data = \"hippocampus\"", "data = \"fed-ixi\"", "C7.fed-ixi.C2"),
        ("\nrule = { similar = 2 }", "\nrule = { similar = 0 }", "hippocampus.C3"),
        ("\nrule = { similar = 2 }", "\nrule = { simular = 2 }", "simular"),
        (
            "measure = { gain_over_alone = { of = \"flap_sam\" } }\nrule",
            "measure = { gibibits = { of = \"flap_sam\" } }\nrule",
            "hippocampus.C6",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let mut command = flapsam();
        command.args(["verify", "--claims", "--claims-file"]).arg(&file);
        let ended = command.assert().code(2);
        let message = String::from_utf8(ended.get_output().stderr.clone()).unwrap();
        assert!(
            message.contains("claims.toml") && message.contains(word),
            "no '{word}' in: {message}"
        );
    }
}

/// Runs on the hippocampus data that were never run, beside the claims and experiments that they are judged by.
struct Drawn {
    folder: TempDir,
    record: Value,
    provenance: Value,
}

/// Sites of the drawn runs, and how many test patients and cases of each they have.
const HOSPITALS: [(&str, usize, usize); 3] = [("hammersmith", 4, 2), ("st-louis", 2, 2), ("vanderbilt", 8, 1)];

/// A site's Dice.
type OfSite = fn(&str) -> f64;

impl Drawn {
    fn new() -> Self {
        let MadeUp {
            folder,
            mut record,
            provenance,
        } = MadeUp::new();
        record["data"] = "hippocampus".into();
        record["classes"] = json!(["background", "hippocampus"]);
        let golden = folder.path().join("golden");
        fs::create_dir_all(folder.path().join("runs")).unwrap();
        for (part, setting, methods) in [
            (
                "methods",
                "federated",
                &["flap_sam", "full_ft", "lora_decoder_ft", "decoder_ft"][..],
            ),
            ("alone", "alone", &["flap_sam"]),
        ] {
            let part = golden.join("experiments").join(part);
            fs::create_dir_all(&part).unwrap();
            for method in methods {
                let file = experiment(&part, |text| {
                    let text = text
                        .replace("\"nano\"", "\"mobile_sam\"")
                        .replace("seeds = [1]", "seeds = [1, 2, 3, 4, 5]");
                    let text = text
                        .replace("cases_per_site = [1, 1]\n", "")
                        .replace("flap_sam", method);
                    text.replace("rank = 4", &format!("rank = 4\nsetting = \"{setting}\""))
                });
                fs::rename(file, part.join(format!("{method}.toml"))).unwrap();
            }
        }
        fs::copy(root().join("golden/claims.toml"), golden.join("claims.toml")).unwrap();
        let suite = "[suite]\nname = \"made-up hospitals\"\nexperiments = \"../experiments\"\n";
        fs::create_dir(golden.join("hippocampus")).unwrap();
        fs::write(golden.join("hippocampus/suite.toml"), suite).unwrap();
        Self {
            folder,
            record,
            provenance,
        }
    }

    /// Writes a run whose cases have the Dice of their site, but for a little that method, seed, patient and case add.
    fn run(&self, part: &str, method: &str, seed: u64, of_site: impl Fn(&str) -> f64) -> PathBuf {
        let (mut record, mut cases) = (self.record.clone(), Vec::new());
        for (site, patients, sides) in HOSPITALS {
            for patient in 0..patients {
                let patient = format!("{site}-{patient}");
                for side in 0..sides {
                    let case = format!("{patient}-{side}");
                    let noise = 0.005 * Random::new(seed, &format!("{part} {method} {case}")).normal();
                    let dice = of_site(site) + noise;
                    cases.push(json!({"site": site, "case": case, "patient": patient, "dice": [dice]}));
                }
            }
        }
        let mean = cases.iter().map(|case| case["dice"][0].as_f64().unwrap()).sum::<f64>() / cases.len() as f64;
        record["method"] = method.into();
        record["setting"] = if part == "alone" { "alone" } else { "federated" }.into();
        record["seed"] = seed.into();
        record["dice"] = json!([mean]);
        record["cases"] = cases.into();
        let run = self.folder.path().join(format!("runs/{part}/{method}-{seed}"));
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.json"), record.to_string()).unwrap();
        fs::write(run.join("provenance.json"), self.provenance.to_string()).unwrap();
        let planned = self
            .folder
            .path()
            .join(format!("golden/hippocampus/{part}/{method}.toml"));
        fs::write(run.join("config.toml"), Experiment::read(&planned).unwrap().resolved).unwrap();
        run
    }

    /// The same with every seed.
    fn runs(&self, part: &str, method: &str, of_site: impl Fn(&str) -> f64) {
        (1..=5).for_each(|seed| drop(self.run(part, method, seed, &of_site)));
    }

    fn command(&self) -> assert_cmd::Command {
        let mut command = flapsam();
        command
            .current_dir(root())
            .args(["verify", "--claims", "--claims-file"]);
        command.arg(self.folder.path().join("golden/claims.toml")).arg("--runs");
        command.arg(self.folder.path().join("runs"));
        command
    }

    fn table(&self) -> String {
        let ended = self.command().assert().code(0);
        String::from_utf8(ended.get_output().stdout.clone()).unwrap()
    }

    fn report(&self) -> Value {
        let ended = self.command().arg("--json").assert().code(0);
        serde_json::from_slice(&ended.get_output().stdout).unwrap()
    }

    /// What is said of a claim of ours.
    fn judged(&self, id: &str) -> Value {
        let report = self.report();
        let mut claims = report["ours"].as_array().unwrap().iter();
        claims
            .find(|claim| claim["id"] == format!("hippocampus.{id}"))
            .unwrap()
            .clone()
    }

    /// Why the one run that does not count does not.
    fn not_counted(&self) -> String {
        let report = self.report();
        let runs = report["not_counted"].as_array().unwrap();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0]["why"].as_str().unwrap().to_owned()
    }
}

/// A claim of ours is decided by where the interval over seeds, sites and patients lies.
#[test]
fn claims_of_ours_are_judged_by_intervals() {
    let drawn = Drawn::new();
    let waiting = drawn.judged("C6");
    assert_eq!(
        (&waiting["verdict"], &waiting["evidence"]),
        (&json!("not_run"), &Value::Null)
    );
    let missing = waiting["missing"].to_string();
    for words in [
        "hippocampus, flap_sam, federated",
        "hippocampus, flap_sam, alone",
        "golden/hippocampus/",
    ] {
        assert!(missing.contains(words), "no '{words}' in {missing}");
    }

    drawn.runs("methods", "flap_sam", |_| 0.80);
    assert_eq!(drawn.judged("C2")["verdict"], "not_run");
    // Better by five points; worse by as much; better at two hospitals and worse at the third, better on the whole.
    let odd = |site: &str| if site == "st-louis" { 0.83 } else { 0.75 };
    let cases: [(OfSite, &str); 3] = [
        (|_| 0.75, "reproduced"),
        (|_| 0.85, "not_reproduced"),
        (odd, "undecided"),
    ];
    for (full_ft, verdict) in cases {
        drawn.runs("methods", "full_ft", full_ft);
        let judged = drawn.judged("C2");
        assert_eq!(judged["verdict"], verdict, "{judged}");
        let evidence = &judged["evidence"];
        let counts = json!({"seeds": 5, "sites": 3, "patients": 14, "cases": 20});
        assert_eq!(evidence["paired"], counts, "{judged}");
        let [difference, low, high] = [
            &evidence["difference"],
            &evidence["interval"]["low"],
            &evidence["interval"]["high"],
        ]
        .map(|value| value.as_f64().unwrap());
        let expected = HOSPITALS
            .iter()
            .map(|&(site, patients, sides)| (patients * sides) as f64 * (0.80 - full_ft(site)) * 100.0 / 20.0)
            .sum::<f64>();
        assert!(
            (difference - expected).abs() < 0.5 && low < difference && difference < high,
            "{judged}"
        );
    }
    assert!(
        drawn.judged("C2")["why"]
            .as_str()
            .unwrap()
            .contains("the interval holds 0")
    );

    // Similar: within two points; outside; neither.
    let apart = |site: &str| if site == "vanderbilt" { 0.79 } else { 0.83 };
    let cases: [(OfSite, &str); 3] = [
        (|_| 0.795, "reproduced"),
        (|_| 0.76, "not_reproduced"),
        (apart, "undecided"),
    ];
    for (lora_decoder_ft, verdict) in cases {
        drawn.runs("methods", "lora_decoder_ft", lora_decoder_ft);
        let judged = drawn.judged("C3");
        assert_eq!(judged["verdict"], verdict, "{judged}");
    }
    // Over the same method's clients alone.
    drawn.runs("alone", "flap_sam", |_| 0.70);
    assert_eq!(drawn.judged("C6")["verdict"], "reproduced");

    // Four seeds are not five, however clear they are.
    for seed in 1..=4 {
        drawn.run("methods", "decoder_ft", seed, |_| 0.5);
    }
    let judged = drawn.judged("C5");
    assert_eq!(judged["verdict"], "undecided", "{judged}");
    assert!(judged["why"].as_str().unwrap().contains("asks for 5 seeds"), "{judged}");
    assert_eq!(
        judged["evidence"]["left_out"]["seeds_of_second"],
        json!([5]),
        "{judged}"
    );

    // A table of their own, below the paper's, which has nothing of them.
    let report = drawn.report();
    let papers = report["claims"].to_string();
    assert!(!papers.contains("hippocampus"), "{papers}");
    let table = drawn.table();
    let (above, ours) = table
        .split_once("\nclaims of ours, on hippocampus with mobile_sam")
        .unwrap();
    assert!(
        !above.contains("hippocampus") && above.contains("GB.flap_sam"),
        "{table}"
    );
    let ours = ours.split("\nmissing\n").next().unwrap();
    let line = |id: &str| {
        ours.lines()
            .find(|line| line.contains(&format!("hippocampus.{id} ")))
            .unwrap()
    };
    assert!(
        line("C2").ends_with("  undecided") && line("C6").ends_with("  reproduced"),
        "{table}"
    );
    for words in [
        "hippocampus.C5: 4 seeds, 3 sites, 14 patients, 20 cases",
        "hippocampus.C5: left out: seeds that only flap_sam has: 5",
        "hippocampus.C5: undecided: the rule asks for 5 seeds",
    ] {
        assert!(ours.contains(words), "no '{words}' in {table}");
    }
    let widest = ours.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest} columns:\n{table}");
}

/// Runs of another network, of settings or seeds that were not planned, of parts of the data, and runs that were moved
/// aside decide no claim of ours.
#[test]
fn only_planned_runs_decide_claims_of_ours() {
    let drawn = Drawn::new();
    drawn.runs("methods", "flap_sam", |_| 0.80);
    drawn.runs("methods", "full_ft", |_| 0.75);
    assert_eq!(drawn.judged("C2")["verdict"], "reproduced");
    assert_eq!(drawn.report()["not_counted"], json!([]));

    let run = drawn.run("methods", "flap_sam", 5, |_| 0.80);
    let config = run.join("config.toml");
    let planned = fs::read_to_string(&config).unwrap();
    for (from, to, why) in [
        ("\"mobile_sam\"", "\"nano\"", "its network is nano, not mobile_sam"),
        ("base_lr = 0.001", "base_lr = 0.002", "schedule.base_lr"),
        ("rank = 4", "rank = 4\ndora = true", "dora"),
    ] {
        assert!(planned.contains(from), "{planned}");
        fs::write(&config, planned.replace(from, to)).unwrap();
        assert!(drawn.not_counted().contains(why), "{why}");
        assert_eq!(drawn.judged("C2")["verdict"], "undecided", "{why}");
    }
    fs::write(&config, &planned).unwrap();
    let metrics = run.join("metrics.json");
    let record = fs::read_to_string(&metrics).unwrap();
    for (from, to, why) in [
        ("\"partial\":false", "\"partial\":true", "a part of the cases"),
        ("\"seed\":5", "\"seed\":6", "its seed, 6, is none of those of"),
    ] {
        assert!(record.contains(from), "{record}");
        fs::write(&metrics, record.replace(from, to)).unwrap();
        assert!(drawn.not_counted().contains(why), "{why}");
    }
    // Nor does one in its place that was replaced.
    let aside = run.with_file_name(".replaced");
    fs::create_dir(&aside).unwrap();
    fs::rename(&run, aside.join("flap_sam-5")).unwrap();
    assert_eq!(drawn.report()["not_counted"], json!([]));
    assert_eq!(drawn.judged("C2")["verdict"], "undecided");

    // With all of both on another state of the data, too, neither is chosen.
    let runs = drawn.folder.path().join("runs/methods");
    drawn.run("methods", "flap_sam", 5, |_| 0.80);
    copy_folder(&runs, &runs.with_file_name("others"));
    for entry in fs::read_dir(runs.with_file_name("others")).unwrap() {
        let provenance = entry.unwrap().path().join("provenance.json");
        if provenance.exists() {
            let mut other = drawn.provenance.clone();
            other["data_sha256"] = "other".into();
            fs::write(provenance, other.to_string()).unwrap();
        }
    }
    let judged = drawn.judged("C2");
    assert_eq!(judged["verdict"], "not_run", "{judged}");
    assert!(judged["missing"].to_string().contains("there are 2"), "{judged}");
}

/// Without its files a suite is not judged at all, and the message says how to get them.
#[test]
fn a_suite_without_its_files_is_not_judged() {
    let data = TempDir::new().unwrap();
    let refusal = |expected: &[&str]| {
        let mut command = flapsam();
        command.current_dir(root());
        command
            .args(["verify", "--suite", "hippocampus/quick", "--data"])
            .arg(data.path());
        let output = command.arg("--out").arg(data.path().join("runs")).assert().code(2);
        let output = output.get_output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for expected in expected {
            assert!(said.contains(expected), "{said}");
        }
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    refusal(&[
        "688 files of it are missing",
        "nothing was run or judged",
        "data fetch hippocampus",
    ]);
}
