//! Runs: what they leave behind, and that they repeat to the byte.

mod common;
mod micro;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use common::{flapsam, flapsam_on_haswell, gunzip, root};
use flapsam::experiment::metrics::{Grid, SurfaceDistances, dice};
use flapsam_model::volume::Volume;
use micro::{data, experiment, run, run_on};
use tempfile::TempDir;

#[test]
fn a_run_repeats_to_the_byte_whatever_the_threads_and_another_seed_differs() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text);
    let first = run(&config, &folder.path().join("first"), "2");
    let second = run(&config, &folder.path().join("second"), "1");
    let adapter = |run: &Path| fs::read(run.join("adapter.safetensors")).unwrap();
    assert!(
        adapter(&first) == adapter(&second),
        "the same seed gives the same adapter"
    );
    assert_eq!(
        fs::read(first.join("metrics.json")).unwrap(),
        fs::read(second.join("metrics.json")).unwrap()
    );

    let other_folder = TempDir::new().unwrap();
    let other = experiment(other_folder.path(), |text| text.replace("seeds = [1]", "seeds = [2]"));
    let mut command = flapsam();
    command
        .arg("run")
        .arg(other)
        .arg("--out")
        .arg(other_folder.path())
        .arg("--data")
        .arg(data());
    command.assert().success();
    assert!(
        adapter(&first) != adapter(&other_folder.path().join("micro-2")),
        "another seed gives another adapter"
    );
}

#[test]
fn a_run_repeats_to_the_byte_on_another_processor() {
    let Some(emulated) = flapsam_on_haswell() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 1"));
    let here = run(&config, &folder.path().join("here"), "2");
    let there = run_on(emulated, &config, &folder.path().join("there"), "2");
    for file in ["adapter.safetensors", "metrics.json"] {
        let read = |run: &Path| fs::read(run.join(file)).unwrap();
        assert!(read(&here) == read(&there), "{file} differs");
    }
}

#[test]
fn a_run_leaves_its_record() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text);
    let run = run(&config, folder.path(), "2");
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), fs::read(&config).unwrap());

    let metrics: serde_json::Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(
        metrics["cases"].as_array().unwrap().len(),
        6,
        "one test case of each site"
    );
    let weights: f64 = metrics["weights"]
        .as_object()
        .unwrap()
        .values()
        .map(|weight| weight.as_f64().unwrap())
        .sum();
    assert!((weights - 1.0).abs() < 1e-9, "{weights}");
    // Four bytes a parameter, six clients, and a header of names.
    let parameters = metrics["trained_parameters"].as_u64().unwrap();
    let up = metrics["rounds"][0]["traffic"]["up"].as_u64().unwrap();
    assert!(
        up > 6 * 4 * parameters && up < 6 * (4 * parameters + 32_000),
        "{up} bytes, {parameters} parameters"
    );

    let provenance: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("provenance.json")).unwrap()).unwrap();
    assert_eq!(provenance["device"], "cpu");
    assert_eq!(provenance["seed"], 1);
    assert_eq!(provenance["base_sha256"].as_str().unwrap().len(), 64);

    // A prediction lies on its scan's grid: the same bytes of shape and affine in the header.
    let case = metrics["cases"][0]["case"].as_str().unwrap();
    let site = metrics["cases"][0]["site"].as_str().unwrap();
    let mask = fs::read(run.join(format!("predictions/{site}/{case}.nii.gz"))).unwrap();
    let scan = fs::read(data().join(format!("phantom/{case}/imaging.nii.gz"))).unwrap();
    let volume = |bytes: &[u8]| Volume::from_nifti(bytes, None).unwrap();
    let (mask, scan) = (volume(&mask), volume(&scan));
    assert_eq!((mask.dims, mask.affine), (scan.dims, scan.affine));

    // Its scores are those of the files.
    let want = volume(&fs::read(data().join(format!("phantom/{case}/segmentation.nii.gz"))).unwrap());
    let labels = |volume: &Volume| {
        volume
            .to_slices()
            .values
            .iter()
            .map(|&label| label as u8)
            .collect::<Vec<_>>()
    };
    let (got, want) = (labels(&mask), labels(&want));
    for class in 0..2 {
        let surfaces = SurfaceDistances::new(&got, &want, class as u8 + 1, Grid::axial(&mask));
        let score = |name: &str| metrics["cases"][0][name][class].clone();
        assert_eq!(score("dice"), dice(&got, &want, class as u8 + 1));
        assert_eq!(score("surface_dice"), surfaces.dice(2.0));
        assert_eq!(score("hausdorff_95_mm"), serde_json::json!(surfaces.hausdorff_95()));
    }
    let defined = |case: &&serde_json::Value| case["hausdorff_95_mm"][0].is_number();
    let kidneys = metrics["cases"].as_array().unwrap().iter().filter(defined).count();
    assert_eq!(metrics["hausdorff_95_cases"][0], kidneys);
    assert!(kidneys > 0 && metrics["hausdorff_95_mm"][0].as_f64().unwrap() > 0.0);
}

#[test]
fn full_fine_tuning_and_clients_alone_run_too() {
    let folder = TempDir::new().unwrap();
    let full = experiment(folder.path(), |text| text.replace("flap_sam", "full_ft"));
    let run_full = run(&full, &folder.path().join("full"), "2");
    let metrics = fs::read_to_string(run_full.join("metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(metrics["trained_parameters"].as_u64().unwrap() > 500_000);

    let alone = experiment(folder.path(), |text| {
        text.replace("rank = 4", "rank = 4\nsetting = \"alone\"")
    });
    let run_alone = run(&alone, &folder.path().join("alone"), "2");
    for site in ["A", "B", "C", "D", "E", "F"] {
        assert!(run_alone.join(format!("adapter-{site}.safetensors")).is_file());
    }
}

/// Half of the six clients take part in a round; which, the seed decides, and only they send.
#[test]
fn clients_may_sit_out_a_round() {
    let folder = TempDir::new().unwrap();
    let with = |participation: &str| {
        let config = experiment(folder.path(), |text| {
            text.replace("rank = 4", &format!("rank = 4\n{participation}"))
        });
        let run = run(
            &config,
            &folder.path().join(participation.replace([' ', '=', '.'], "-")),
            "2",
        );
        let metrics = fs::read(run.join("metrics.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&metrics).unwrap()
    };
    let (all, half) = (with("participation = 1.0"), with("participation = 0.5"));
    let up = |metrics: &serde_json::Value, round: usize| metrics["rounds"][round]["traffic"]["up"].as_u64().unwrap();
    let who = |metrics: &serde_json::Value, round: usize| {
        let losses = metrics["rounds"][round]["loss"].as_object().unwrap();
        losses.keys().cloned().collect::<Vec<_>>()
    };
    for round in 0..2 {
        assert_eq!(up(&all, round), 2 * up(&half, round));
        assert_eq!((who(&all, round).len(), who(&half, round).len()), (6, 3));
    }
    assert_ne!(who(&half, 0), who(&half, 1), "another three in another round");
    assert_eq!(with("participation = 0.5"), half);
}

/// `segment` with the adapter of a run, on the CPU.
fn segment(run: &Path, scan: &Path, mask: &Path) -> Command {
    let mut command = flapsam();
    command.arg("segment").arg(scan).arg("-o").arg(mask);
    command.arg("--adapter").arg(run.join("adapter.safetensors"));
    command.arg("--base").arg(root().join("golden/nano.safetensors"));
    command.args(["--device", "cpu", "--json"]);
    command
}

#[test]
fn segment_keeps_the_scans_grid() {
    let folder = TempDir::new().unwrap();
    let run = run(&experiment(folder.path(), |text| text), folder.path(), "2");
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    let mask = folder.path().join("mask.nii.gz");
    let output = segment(&run, &scan, &mask).assert().success();
    let volume = |path| flapsam_model::volume::Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap();
    let (found, scan_volume) = (volume(mask), volume(scan.clone()));
    assert_eq!((found.dims, found.affine), (scan_volume.dims, scan_volume.affine));
    assert!(found.voxels.iter().all(|label| [0.0, 1.0, 2.0].contains(label)));
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let kidney = found.voxels.iter().filter(|&&label| label == 1.0).count();
    assert_eq!(report["classes"][0]["class"], "kidney");
    assert_eq!(report["classes"][0]["voxels"], kidney);

    // The same scan as the second volume of a series.
    let mut series = gunzip(&fs::read(&scan).unwrap());
    let voxels = series.split_off(352);
    series[40..42].copy_from_slice(&4i16.to_le_bytes());
    series[48..50].copy_from_slice(&2i16.to_le_bytes());
    series.extend(vec![0; voxels.len()]);
    series.extend(voxels);
    let series_path = folder.path().join("series.nii");
    fs::write(&series_path, series).unwrap();
    let second = folder.path().join("second.nii.gz");
    let refusal = segment(&run, &series_path, &second).assert().code(2);
    let text = String::from_utf8_lossy(&refusal.get_output().stderr).into_owned();
    assert!(
        text.contains("series.nii") && text.contains("a series of 2 volumes"),
        "{text}"
    );
    segment(&run, &series_path, &second)
        .args(["--volume", "1"])
        .assert()
        .success();
    assert!(
        volume(second).voxels == found.voxels,
        "a volume of a series is segmented as the scan is"
    );
}
