//! What several test files need.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// The program. Cargo names it only to tests of its own package, so it is looked for where cargo puts it: in the
/// folder above the tests' own.
pub fn flapsam() -> Command {
    Command::new(program())
}

/// The program on an emulated processor with AVX2 and without AVX-512; `None` where qemu is missing.
pub fn flapsam_on_haswell() -> Option<Command> {
    let qemu = Path::new("/usr/bin/qemu-x86_64");
    if cfg!(target_arch = "x86_64") && qemu.is_file() {
        let mut command = Command::new(qemu);
        command.args(["-cpu", "Haswell-noTSX-IBRS"]).arg(program());
        return Some(command);
    }
    eprintln!("SKIPPED: there is no {} (Debian: qemu-user)", qemu.display());
    None
}

fn program() -> PathBuf {
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

/// A file or folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A folder of the real scans and further cases that some machines hold beside the repository. They are no part of
/// the project: without them the test says so and passes.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there is no {}", folder.display());
    None
}
