//! The same on wgpu: in CI on a software adapter, which `tests/run.sh` installs.

mod common;
mod micro;

use std::fs;
use std::path::Path;

use common::{flapsam, root};
use flapsam_model::labels::dice;
use flapsam_model::volume::Volume;
use micro::{data, experiment};
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

fn segment(scan: &Path, adapter: &Path, device: &str, out: &Path) {
    let mut command = flapsam();
    command.arg("segment").arg(scan).arg("--adapter").arg(adapter);
    command.arg("--base").arg(root().join("golden/nano.safetensors"));
    command.args(["--device", device, "-o"]).arg(out).assert().success();
}
