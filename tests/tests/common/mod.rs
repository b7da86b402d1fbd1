//! What several test files need.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use flate2::read::GzDecoder;

/// The program. Cargo names it only to tests of its own package, so it is looked for where cargo puts it: in the
/// folder above the tests' own.
pub fn flapsam() -> Command {
    Command::new(program())
}

/// The program on an emulated processor, by qemu's name for it; `None` where qemu is missing.
pub fn emulated(processor: &str) -> Option<Command> {
    let qemu = Path::new("/usr/bin/qemu-x86_64");
    if cfg!(target_arch = "x86_64") && qemu.is_file() {
        let mut command = Command::new(qemu);
        command.args(["-cpu", processor]).arg(program());
        return Some(command);
    }
    eprintln!("SKIPPED: there is no {} (Debian: qemu-user)", qemu.display());
    None
}

/// Its file.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.ancestors().nth(2).expect("cargo puts tests two folders deep");
    let program = folder.join(format!("flapsam{}", std::env::consts::EXE_SUFFIX));
    assert!(
        program.is_file(),
        "{} is not there; run tests/run.sh, or cargo build --workspace --all-targets in the tests' profile",
        program.display()
    );
    program
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// The Python that `tests/run.sh` set up with the packages that we compare with. Without one the test says so and
/// passes.
pub fn python() -> Option<OsString> {
    let python = std::env::var_os("FLAPSAM_PYTHON");
    if python.is_none() {
        eprintln!("SKIPPED: FLAPSAM_PYTHON names no Python; tests/run.sh sets one up");
    }
    python
}

/// What a gzip stream holds.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut whole).unwrap();
    whole
}

/// A folder of the real scans and further cases that some machines hold beside the repository. They are no part of
/// the project: without them the test says so and passes.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = root().join("../shared").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there is no {}", folder.display());
    None
}
