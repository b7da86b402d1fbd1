//! The same on wgpu: in CI on a software adapter, which `tests/run.sh` installs.

mod common;
mod micro;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{flapsam, root};
use flapsam_model::labels::dice;
use flapsam_model::volume::Volume;
use micro::{data, experiment};
use serde_json::Value;
use tempfile::TempDir;

/// Logits within 1e-3 of the CPU's, by way of the reference, which both are within 1e-4 of; gradients and AdamW steps too.
#[test]
fn the_reference_is_met() {
    let case = root().join("tests/fixtures/parity/dora");
    let assert = flapsam().arg("parity").arg(case).args(["--device", "wgpu"]).assert();
    let text = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert.success();
    assert!(text.contains("quantities on wgpu: "), "{text}");
}

#[test]
fn a_segmentation_agrees_with_the_cpus() {
    let folder = TempDir::new().unwrap();
    let run = micro::run(&experiment(folder.path(), |text| text), folder.path(), "2");
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    let mask = |device: &str| -> Volume {
        let out = folder.path().join(format!("{device}.nii.gz"));
        segment(&scan, &run.join("adapter.safetensors"), device, &out);
        Volume::from_nifti(&fs::read(out).unwrap(), None).unwrap()
    };
    let (cpu, wgpu) = (mask("cpu"), mask("wgpu"));
    let same = cpu
        .voxels
        .iter()
        .zip(&wgpu.voxels)
        .filter(|(cpu, wgpu)| cpu == wgpu)
        .count();
    let share = same as f64 / cpu.voxels.len() as f64;
    assert!(share >= 0.999, "{share}");
    // Most of a scan is background: what was found must be the same too.
    let labels = |volume: &Volume| -> Vec<u8> { volume.voxels.iter().map(|&value| value as u8).collect() };
    let (cpu, wgpu) = (labels(&cpu), labels(&wgpu));
    assert!(cpu.contains(&1), "something is found at all");
    for class in 1..3 {
        let dice = dice(&cpu, &wgpu, class);
        assert!(dice >= 0.99, "class {class}: {dice}");
    }
}

/// Killed after the first of two rounds and gone on. Sums differ in their last bits from the CPU's: a client's loss differs by
/// less than a hundredth. (Each of the program's two starts takes minutes, in which a software adapter's kernels are made.)
#[test]
fn a_run_trains_as_on_the_cpu_and_goes_on_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let on = |device: &str| {
        let own = folder.path().join(device);
        fs::create_dir(&own).unwrap();
        let device = format!("device = \"{device}\"");
        experiment(&own, |text| text.replace("device = \"cpu\"", &device))
    };
    let out = |name: &str| folder.path().join(name);
    let cpu = losses(&micro::run(&on("cpu"), &out("cpu-run"), "2"));

    let wgpu = on("wgpu");
    micro::kill(&wgpu, &out("killed"), 1, Duration::ZERO);
    let again = assert_cmd::Command::from_std(micro::command(&wgpu, &out("killed"))).assert();
    let output = again.success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("going on after round 1"), "{said}");
    agree(&cpu, &losses(&out("killed").join("micro-1")), 1e-2);
}

/// Every client's mean loss in every round.
fn losses(run: &Path) -> Vec<(String, f64)> {
    let metrics: Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
    let rounds = metrics["rounds"].as_array().unwrap();
    let of_round = |round: &Value| {
        let clients = round["loss"].as_object().unwrap();
        let loss =
            |(client, loss): (&String, &Value)| (format!("{client}, round {}", round["round"]), loss.as_f64().unwrap());
        clients.iter().map(loss).collect::<Vec<_>>()
    };
    rounds.iter().flat_map(of_round).collect()
}

fn agree(expected: &[(String, f64)], found: &[(String, f64)], relative: f64) {
    assert_eq!(expected.len(), 12, "six clients, two rounds");
    assert_eq!(expected.len(), found.len());
    for ((client, expected), (same, found)) in expected.iter().zip(found) {
        assert_eq!(client, same);
        assert!(
            (found - expected).abs() <= relative * expected.abs(),
            "{client}: {found} for {expected}"
        );
    }
}

fn segment(scan: &Path, adapter: &Path, device: &str, out: &Path) {
    let mut command = flapsam();
    command.arg("segment").arg(scan).arg("--adapter").arg(adapter);
    command.arg("--base").arg(root().join("golden/nano.safetensors"));
    command.args(["--device", device, "-o"]).arg(out).assert().success();
}
