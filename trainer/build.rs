//! Names what the program is built from, for the provenance of its runs: the commit, and the sources themselves, which may
//! have changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// The rooms whose code decides the figures of a run. What shows figures, compares them or starts runs is not among them:
/// a run goes on with a program that differs only there.
const ROOMS: [&str; 6] = [
    "src/data",
    "src/training",
    "src/federation",
    "src/experiment",
    "../model/src",
    "../kernels/src",
];
/// Packages whose arithmetic decides them as well. The network's is in the rooms above; burn sorts and carries gradients.
const PACKAGES: [&str; 8] = [
    "burn-autodiff",
    "burn-flex",
    "burn-wgpu",
    "libm",
    "nalgebra",
    "nifti",
    "rand_chacha",
    "rayon",
];

fn main() {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    // Without git, as in a source archive, the commit stays unknown.
    if let Some(output) = output.ok().filter(|output| output.status.success()) {
        println!(
            "cargo::rustc-env=FLAPSAM_COMMIT={}",
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    let mut files = Vec::new();
    for room in ROOMS {
        println!("cargo::rerun-if-changed={room}");
        collect(Path::new(room), &mut files);
    }
    files.sort();
    let mut hash = Sha256::new();
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = fs::read_to_string("../Cargo.lock").unwrap_or_default();
    for package in packages(&lock) {
        hash.update(package);
    }
    println!("cargo::rustc-env=FLAPSAM_LOCK={}", hex(&Sha256::digest(&lock)));
    for file in files {
        hash.update(file.to_string_lossy().as_bytes());
        hash.update(fs::read(&file).unwrap_or_default());
    }
    println!("cargo::rustc-env=FLAPSAM_SOURCES={}", hex(&hash.finalize()));
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The versions and checksums that a lock file has of [`PACKAGES`].
fn packages(lock: &str) -> Vec<&str> {
    let is_listed = |entry: &&str| {
        PACKAGES
            .iter()
            .any(|name| entry.starts_with(&format!("\nname = \"{name}\"\n")))
    };
    lock.split("[[package]]").filter(is_listed).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| collect(&entry.path(), files)),
        Err(_) => files.push(path.to_owned()),
    }
}
