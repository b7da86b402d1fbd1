//! The Flower app: three sites as real SuperNodes, with TLS and authentication, end in the bytes of a run in one process,
//! whatever dies or misbehaves.

mod common;
mod micro;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{program, root, skip};
use flapsam_model::checkpoint::sha256;
use micro::{data, experiment, run};
use tempfile::TempDir;

/// A Python with Flower in it; `None` where there is none.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("FLAPSAM_FLOWER")
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    if python.is_none() {
        skip("FLAPSAM_FLOWER names no Python with flwr", true);
    }
    python
}

/// The phantom's sites A, B and C alone: the manifest of them.
fn three_sites(folder: &Path) -> PathBuf {
    let manifests = root().join("data-manifests");
    let table = fs::read_to_string(manifests.join("phantom.csv")).unwrap();
    let kept = |line: &&str| ["site", "A", "B", "C"].contains(&line.split(',').nth(1).unwrap());
    let fewer: String = table.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let manifest = fs::read_to_string(manifests.join("phantom.json")).unwrap();
    let manifest = manifest.replace(&sha256(table.as_bytes()), &sha256(fewer.as_bytes()));
    fs::write(folder.join("phantom.csv"), fewer).unwrap();
    let path = folder.join("phantom.json");
    fs::write(&path, manifest).unwrap();
    path
}

/// Three sites, so many rounds, and more settings.
fn of_three_sites(folder: &Path, rounds: usize, lines: &str) -> PathBuf {
    let manifest = three_sites(folder);
    experiment(folder, |text| {
        let data = text
            .lines()
            .find(|line| line.starts_with("data = "))
            .unwrap()
            .to_owned();
        let text = text.replace(&data, &format!("data = \"{}\"", manifest.display()));
        let text = text.replace("save_predictions = true", "");
        let text = text.replace("rounds = 2", &format!("rounds = {rounds}"));
        text.replace("rank = 4", &format!("rank = 4\n{lines}"))
    })
}

/// Plays a scene of `tests/flower/loopback.py`; the folder of the coordinating site.
fn play(python: &Path, folder: &Path, config: &Path, scene: &str) -> PathBuf {
    let stage = folder.join("stage");
    let mut command = Command::new(python);
    command.arg(root().join("tests/flower/loopback.py")).arg(&stage);
    command.arg(program()).arg(config).arg(data()).args(["A,B,C", scene]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scene}: {}", String::from_utf8_lossy(&said));
    stage.join("server")
}

fn results(folder: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let names = ["adapter.safetensors", "ledger.csv", "trace.txt"];
    names.map(|name| (name, fs::read(folder.join(name)).unwrap())).into()
}

/// A scene ends in the bytes of a run in one process, in which the same goes wrong. The folder that it was played in.
fn same_bytes(scene: &str, rounds: usize, lines: &str, faults: &str) -> Option<TempDir> {
    let python = python()?;
    let folder = TempDir::new().unwrap();
    let config = of_three_sites(folder.path(), rounds, lines);
    let text = fs::read_to_string(&config).unwrap();
    let faulty = folder.path().join("one-process");
    fs::create_dir(&faulty).unwrap();
    fs::write(faulty.join("micro.toml"), text + faults).unwrap();
    let whole = results(&run(&faulty.join("micro.toml"), &faulty, "2"));
    let many = results(&play(&python, folder.path(), &config, scene));
    for (name, bytes) in whole {
        assert!(many[name] == bytes, "{scene}: another {name}");
    }
    Some(folder)
}

/// A scene that is refused by name, before anything is trained.
fn refused(scene: &str) {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    let config = of_three_sites(folder.path(), 2, "");
    let server = play(&python, folder.path(), &config, scene);
    assert!(!server.join("orders").exists(), "{scene}: it began all the same");
}

#[test]
fn three_sites_end_in_the_same_bytes_and_a_stranger_stays_outside() {
    same_bytes("plain", 3, "", "");
}

/// By SecAgg+, under a rule that needs sums alone: the bytes of a run in one process, and no parameter of a single site's ever
/// reaches the server.
#[test]
fn the_server_learns_sums_alone() {
    let lines = "aggregation = \"mean_of_factors\"\nsecure_aggregation = true";
    let Some(server) = same_bytes("secure", 3, lines, "") else {
        return;
    };
    for round in 1..=3 {
        let received = server.path().join(format!("stage/server/received/round-{round:05}"));
        let sum = fs::read(received.join("sum")).unwrap();
        assert!(sum.len() > 10_000, "{} bytes", sum.len());
        for site in 0..3 {
            let update = fs::read(received.join(format!("{site:05}.safetensors"))).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&update).unwrap();
            assert!(tensors.is_empty() && update.len() < 4096, "{} bytes", update.len());
        }
    }
}

#[test]
fn a_supernode_that_dies_loses_nothing() {
    same_bytes("supernode_dies", 3, "precision = \"int8\"", "");
}

#[test]
fn a_superlink_that_dies_loses_nothing() {
    same_bytes("superlink_dies", 3, "", "");
}

#[test]
fn bad_updates_are_left_out() {
    let faults = [
        (2, "\"not_finite\""),
        (3, "\"wrong_shape\""),
        (4, "\"replayed\""),
        (5, "{ scaled = { times = 1000.0 } }"),
    ];
    let table = |(round, kind)| format!("\n[[fault]]\nclient = \"C\"\nkind = {kind}\nrounds = [{round}]\n");
    let faults: String = faults.into_iter().map(table).collect();
    same_bytes("bad_updates", 6, "quorum = 2\nlargest_change = 20.0", &faults);
}

#[test]
fn a_site_that_never_answers_is_left_out() {
    let fault = "\n[[fault]]\nclient = \"C\"\nkind = \"silent\"\nrounds = [2, 3]\n";
    same_bytes("silent", 3, "quorum = 2", fault);
}

#[test]
fn another_version_is_refused_by_name() {
    refused("other_version");
}

#[test]
fn another_base_is_refused_by_name() {
    refused("other_base");
}
