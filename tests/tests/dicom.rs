//! DICOM: series are read as pydicom reads them, and masks are written as highdicom reads them.

mod common;
mod micro;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use common::{flapsam, python, root, script};
use flapsam::data::dicom::series::Series;
use micro::{data, experiment, run};
use serde_json::Value;
use tempfile::TempDir;

/// The JSON lines that `tests/python/dicom.py` prints.
fn python_lines(python: &OsString, what: &str, paths: &[&Path]) -> Vec<Value> {
    let paths = paths.iter().map(|path| path.as_os_str());
    let arguments: Vec<&OsStr> = std::iter::once(what.as_ref()).chain(paths).collect();
    let lines = script(python, "dicom.py", &arguments);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is wrong with our reading of a series, pixel by pixel.
fn differences(record: &Value) -> Vec<String> {
    let path = record["path"].as_str().unwrap();
    let volume = match Series::open(Path::new(path), None).and_then(|series| series.volume()) {
        Ok(volume) => volume,
        Err(why) => return vec![why.to_string()],
    };
    let mut wrong = Vec::new();
    if serde_json::json!(volume.dims) != record["dims"] {
        wrong.push(format!("{path}: {:?}, not {}", volume.dims, record["dims"]));
        return wrong;
    }
    let pixels = record["pixels"].as_array().unwrap();
    assert_eq!(pixels.len(), volume.voxels.len(), "{path}");
    for pixel in pixels {
        let [x, y, z, value] = [0, 1, 2, 3].map(|part| pixel[part].as_f64().unwrap());
        let [i, j, k] = volume.voxel_at([x, y, z]);
        let place = volume
            .affine
            .map(|row| row[0] * i as f64 + row[1] * j as f64 + row[2] * k as f64 + row[3]);
        let off = [x - place[0], y - place[1], z - place[2]].map(f64::abs);
        let [columns, rows, _] = volume.dims;
        let got = f64::from(volume.voxels[(k * rows + j) * columns + i]);
        if off.iter().any(|off| *off > 1e-6) || (got - value).abs() > 1e-7 * value.abs().max(1.0) {
            wrong.push(format!("{path}: {value} at ({x}, {y}, {z}) is {got} at {place:?}"));
            break;
        }
    }
    wrong
}

#[test]
fn series_are_what_the_standard_says() {
    let Some(python) = python() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let records = python_lines(&python, "make", &[folder.path()]);
    assert_eq!(records.len(), 12);
    let wrong: Vec<String> = records.iter().flat_map(differences).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let series = |name: &str, chosen: Option<&str>| Series::open(&folder.path().join(name), chosen);
    let refused = |name: &str, chosen: Option<&str>| {
        let read = series(name, chosen).and_then(|series| series.volume());
        read.err()
            .map_or_else(|| format!("{name} was read"), |why| why.to_string())
    };
    for (name, chosen, words) in [
        ("two_series", None, ["several series", "'abdomen'"]),
        ("two_series", Some("head"), ["'head'", "'chest'"]),
        ("missing", None, ["mm apart", "missing"]),
        ("times", None, ["at one place", "folder of their own"]),
        ("no_place", None, ["Image Position", "export"]),
        ("many_frames", None, ["1000000000 frames", "export"]),
        ("cut_off", None, ["cannot be unpacked", "export"]),
        ("colour", None, ["colour", "name"]),
        ("nothing", None, ["no DICOM images", "name the folder"]),
    ] {
        let said = refused(name, chosen);
        assert!(words.iter().all(|word| said.contains(word)), "{name}: {said}");
    }
    for chosen in ["abdomen", "2"] {
        assert!(series("two_series", Some(chosen)).is_ok(), "{chosen}");
    }
}

/// A run's adapter, and a scan of the phantom as NIfTI and as a DICOM series.
struct Place {
    folder: TempDir,
    run: PathBuf,
}

impl Place {
    fn new(python: &OsString) -> Self {
        let folder = TempDir::new().unwrap();
        let config = experiment(folder.path(), |text| text);
        let run = run(&config, &folder.path().join("runs"), "2");
        let scan = data().join("phantom/case_00000/imaging.nii.gz");
        fs::copy(&scan, folder.path().join("scan.nii.gz")).unwrap();
        python_lines(python, "of-nifti", &[&scan, &folder.path().join("series")]);
        Self { folder, run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn segment(&self, scan: &str, out: &str, more: &[&str]) -> assert_cmd::Command {
        let mut command = flapsam();
        command.arg("segment").arg(self.path(scan)).arg("--adapter");
        command.arg(self.run.join("adapter.safetensors")).arg("--base");
        command
            .arg(root().join("golden/nano.safetensors"))
            .args(["--device", "cpu", "--json", "--out"]);
        command.arg(self.path(out)).args(more);
        command
    }
}

#[test]
fn a_series_is_segmented_as_the_nifti_file_that_it_is() {
    let Some(python) = python() else {
        return;
    };
    let place = Place::new(&python);
    let report = |scan, out, more: &[&str]| -> Value {
        let output = place.segment(scan, out, more).assert().success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    let nifti = report("scan.nii.gz", "nifti.nii.gz", &[]);
    let dicom = report("series", "dicom.nii.gz", &[]);
    assert_eq!(nifti["classes"], dicom["classes"]);
    assert!(nifti["classes"][0]["voxels"].as_u64().unwrap() > 100, "{nifti}");

    report("series", "mask.dcm", &[]);
    for mask in ["nifti.nii.gz", "dicom.nii.gz"] {
        let read = &python_lines(&python, "compare", &[&place.path("mask.dcm"), &place.path(mask)])[0];
        assert!(read["voxels"].as_u64().unwrap() > 100, "{read}");
        assert_eq!(read["segments"], serde_json::json!(["kidney", "tumour"]));
        let said: Vec<&str> = read["patient"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(said.iter().all(|value| value.is_empty()), "{said:?}");
    }
    // Beside its series, a mask is passed over.
    report("series", "series/mask.dcm", &["--with-patient"]);
    let again = report("series", "again.nii.gz", &[]);
    assert_eq!(again["classes"], dicom["classes"]);
    let read = &python_lines(
        &python,
        "compare",
        &[&place.path("series/mask.dcm"), &place.path("dicom.nii.gz")],
    )[0];
    assert_eq!(
        read["patient"],
        serde_json::json!(["Doe^Jane", "4711", "19700101", "F", "S1", "A1", "20200101"])
    );

    let refused = |scan, out, more: &[&str]| {
        let output = place.segment(scan, out, more).assert().code(2);
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    assert!(refused("scan.nii.gz", "mask.dcm", &[]).contains("this scan is NIfTI"));
    assert!(refused("series", "series/0000.dcm", &[]).contains("which is read"));
    assert!(refused("series", "x.nii.gz", &["--volume", "1"]).contains("--series"));
    assert!(refused("scan.nii.gz", "x.nii.gz", &["--series", "1"]).contains("no series"));
}
