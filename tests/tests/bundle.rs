//! Evidence bundles: what was packed is what is checked, and where two runs part is named.

mod common;
mod micro;

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{flapsam, python, root, script};
use micro::{data, experiment, run};
use serde_json::Value;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

/// A run and another whose learning rate is higher, made once.
fn runs() -> &'static Path {
    static RUNS: OnceLock<PathBuf> = OnceLock::new();
    RUNS.get_or_init(|| {
        let runs = data().with_file_name(format!("bundled-{}", std::process::id()));
        for (name, rate) in [("plain", "1e-3"), ("faster", "2e-3")] {
            let folder = TempDir::new().unwrap();
            let change = |text: String| text.replace("base_lr = 1e-3", &format!("base_lr = {rate}"));
            run(&experiment(folder.path(), change), &runs.join(name), "2");
        }
        runs
    })
}

fn bundle(run: &Path, out: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = flapsam();
    command.arg("bundle").arg(run).arg("--out").arg(out).args(more);
    command.assert()
}

/// What `bundle verify` says, and its exit code.
fn verify(bundle: &Path, more: &[&str]) -> (i32, String) {
    let mut command = flapsam();
    let output = command
        .args(["bundle", "verify"])
        .arg(bundle)
        .args(more)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The bundle with other content in some of its files; no content is no such file.
fn changed(from: &Path, to: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>, extra: Option<&str>) {
    let mut archive = ZipArchive::new(Cursor::new(fs::read(from).unwrap())).unwrap();
    let mut written = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).unwrap();
        let (name, mut bytes) = (file.name().unwrap().into_owned(), Vec::new());
        file.read_to_end(&mut bytes).unwrap();
        if let Some(bytes) = change(&name, bytes) {
            written.start_file(name, SimpleFileOptions::default()).unwrap();
            written.write_all(&bytes).unwrap();
        }
    }
    if let Some(name) = extra {
        written.start_file(name, SimpleFileOptions::default()).unwrap();
    }
    fs::write(to, written.finish().unwrap().into_inner()).unwrap();
}

#[test]
fn a_bundle_is_checked_and_made_once_more() {
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("all.zip");
    bundle(runs(), &whole, &["--agent", "A. Checker", "--with-masks"]).success();
    let (code, said) = verify(&whole, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("runs/plain/micro-1") && said.contains("holds what it says"),
        "{said}"
    );
    // The same runs give the same bytes.
    let again = folder.path().join("again.zip");
    bundle(runs(), &again, &["--agent", "A. Checker", "--with-masks"]).success();
    assert!(fs::read(&whole).unwrap() == fs::read(&again).unwrap());

    let one = folder.path().join("one.zip");
    bundle(&runs().join("plain"), &one, &[]).success();
    let base = root().join("golden/nano.safetensors");
    let manifest = root().join("data-manifests/phantom.json");
    let rerun = [
        "--rerun",
        "--base",
        base.to_str().unwrap(),
        "--manifest",
        manifest.to_str().unwrap(),
        "--data",
    ];
    let rerun = [&rerun[..], &[data().to_str().unwrap()]].concat();
    let (code, said) = verify(&one, &rerun);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("made once more"), "{said}");

    // A trace that was edited, with its checksum: only making the run once more can tell.
    let forged = folder.path().join("forged.zip");
    let trace = fs::read(runs().join("plain/micro-1/trace.txt")).unwrap();
    let edited = String::from_utf8(trace.clone())
        .unwrap()
        .replacen("step 1: ", "step 1: 0", 1)
        .into_bytes();
    let sums = [&trace, &edited].map(|bytes| flapsam_model::checkpoint::sha256(bytes));
    let forge = |name: &str, bytes: Vec<u8>| match name {
        "runs/micro-1/trace.txt" => Some(edited.clone()),
        "ro-crate-metadata.json" => Some(
            String::from_utf8(bytes)
                .unwrap()
                .replace(&sums[0], &sums[1])
                .into_bytes(),
        ),
        _ => Some(bytes),
    };
    changed(&one, &forged, forge, None);
    assert_eq!(verify(&forged, &[]).0, 0);
    let (code, said) = verify(&forged, &rerun);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("round 1, client") && said.contains("its start and step 1"),
        "{said}"
    );
}

#[test]
fn whatever_was_changed_in_a_bundle_is_named() {
    let folder = TempDir::new().unwrap();
    let (whole, spoilt) = (folder.path().join("whole.zip"), folder.path().join("spoilt.zip"));
    bundle(&runs().join("plain"), &whole, &[]).success();
    let edit = |target: &'static str| {
        move |name: &str, mut bytes: Vec<u8>| {
            if name.ends_with(target) {
                bytes.push(b' ');
            }
            Some(bytes)
        }
    };
    for target in [
        "metrics.json",
        "adapter.safetensors",
        "figures.txt",
        "config.toml",
        "codecheck.yml",
    ] {
        changed(&whole, &spoilt, edit(target), None);
        let (code, said) = verify(&spoilt, &[]);
        assert_eq!(code, 1, "{said}");
        assert!(
            said.contains(target) && said.contains("was changed"),
            "{target}: {said}"
        );
    }
    changed(
        &whole,
        &spoilt,
        |name, bytes| (!name.ends_with("trace.txt")).then_some(bytes),
        None,
    );
    assert!(verify(&spoilt, &[]).1.contains("trace.txt is not there"));
    changed(&whole, &spoilt, |_, bytes| Some(bytes), Some("more.txt"));
    assert!(verify(&spoilt, &[]).1.contains("more.txt is not listed"));
    changed(&whole, &spoilt, |_, bytes| Some(bytes), Some("../outside.txt"));
    assert_eq!(verify(&spoilt, &[]).0, 2);
    fs::write(&spoilt, b"no zip").unwrap();
    let (code, said) = verify(&spoilt, &[]);
    assert!(code == 2 && said.contains("it is no bundle"), "{said}");
    // A bundle takes the place of no file that it packs.
    let metrics = runs().join("plain/micro-1/metrics.json");
    bundle(&runs().join("plain"), &metrics, &[]).code(2);
}

#[test]
fn a_signature_is_checked() {
    let Some(python) = python() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (whole, key) = (folder.path().join("whole.zip"), folder.path().join("key.pub"));
    bundle(&runs().join("plain"), &whole, &[]).success();
    script(&python, "minisign.py", &[&whole, &key]);
    let key = key.to_str().unwrap();
    let (code, said) = verify(&whole, &["--public-key", key]);
    assert!(code == 0 && said.contains("signature"), "{said}");
    let other = folder.path().join("other.zip");
    changed(&whole, &other, |_, bytes| Some(bytes), Some("more.txt"));
    fs::copy(
        folder.path().join("whole.zip.minisig"),
        folder.path().join("other.zip.minisig"),
    )
    .unwrap();
    let (code, said) = verify(&other, &["--public-key", key]);
    assert!(code == 1 && said.contains("FAILED  signature"), "{said}");
    let (code, said) = verify(&whole, &["--public-key", whole.to_str().unwrap()]);
    assert!(code == 2 && said.contains("public key"), "{said}");
}

/// CRS4's validator finds nothing against the profile, recommendations included; the standard's library reads all.
#[test]
fn a_bundle_is_a_process_run_crate() {
    let Some(python) = python() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (whole, unpacked) = (folder.path().join("whole.zip"), folder.path().join("unpacked"));
    bundle(runs(), &whole, &["--agent", "A. Checker"]).success();
    ZipArchive::new(fs::File::open(&whole).unwrap())
        .unwrap()
        .extract(&unpacked)
        .unwrap();
    let said = script(&python, "ro_crate.py", &[&unpacked]);
    let result: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(result["valid"], true, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let codecheck = fs::read_to_string(unpacked.join("codecheck.yml")).unwrap();
    assert!(codecheck.contains("\"runs/plain/micro-1/figures.txt\"") && codecheck.contains("A. Checker"));
}

/// `diff --trace` names where runs part, and what they were made of.
#[test]
fn where_two_runs_part_is_named() {
    let diff = |one: &str, other: &str| {
        let mut command = flapsam();
        command.args(["diff", "--trace"]);
        let output = command.arg(runs().join(one)).arg(runs().join(other)).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (code, said) = diff("plain/micro-1", "faster/micro-1");
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("they part here: round 1, client A, differs between its start and step 1"),
        "{said}"
    );
    assert!(
        said.contains("setting schedule.base_lr") && said.contains("0.002"),
        "{said}"
    );
    let (code, said) = diff("plain/micro-1", "plain/micro-1");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("to the byte") && said.contains("are alike"), "{said}");
    assert_eq!(diff("plain/micro-1", "plain").0, 2);
}
