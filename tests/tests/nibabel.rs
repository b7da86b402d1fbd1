//! Real scans: what we read is what nibabel reads.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{python, root, shared};
use flapsam_model::volume::Volume;
use serde_json::Value;

/// Every `.nii` and `.nii.gz` below a folder.
fn scans(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let below = |path: PathBuf| match path.is_dir() {
        true => scans(&path),
        false => vec![path],
    };
    let is_scan = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".nii") || name.ends_with(".nii.gz")
    };
    entries.into_iter().flat_map(below).filter(is_scan).collect()
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap())
        .collect()
}

fn integers(list: &Value) -> Vec<usize> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_u64().unwrap() as usize)
        .collect()
}

#[test]
fn values_and_affines_equal_nibabels() {
    let Some(folder) = shared("real") else {
        return;
    };
    let Some(python) = python() else {
        return;
    };
    let scans = scans(&folder);
    assert!(!scans.is_empty(), "no scan below {}", folder.display());
    let script = root().join("tests/python/volumes.py");
    let output = Command::new(python).arg(script).args(&scans).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), scans.len());
    let differences: Vec<String> = records.iter().flat_map(compare).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Compares one scan, volume by volume where it holds a series, and says what differs.
fn compare(record: &Value) -> Vec<String> {
    let path = record["path"].as_str().unwrap();
    let shape = integers(&record["shape"]);
    let bytes = fs::read(path).unwrap();
    let series: usize = shape[3..].iter().product();
    let (places, values) = (integers(&record["places"]), floats(&record["values"]));
    let affine: Vec<f64> = record["affine"].as_array().unwrap().iter().flat_map(floats).collect();
    let mut differences = Vec::new();
    for index in 0..series {
        let volume = match Volume::from_nifti(&bytes, (series > 1).then_some(index)) {
            Ok(volume) => volume,
            Err(why) => return vec![format!("{path}: {why}")],
        };
        let mut differ = |what: String| differences.push(format!("{path}, volume {index}: {what}"));
        if volume.dims[..] != shape[..3] {
            differ(format!("dimensions {:?}, nibabel {shape:?}", volume.dims));
            continue;
        }
        let furthest = volume.affine.as_flattened().iter().zip(&affine);
        let furthest = furthest.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max);
        // Units of a metre make numbers large.
        let largest = affine.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        if furthest > 1e-6 * largest {
            differ(format!("affine {:?}, nibabel {affine:?}", volume.affine));
        }
        if volume.axial().dims != axial_dims(&shape, &record["axcodes"]) {
            differ(format!(
                "axial {:?}, nibabel {}",
                volume.axial().dims,
                record["axcodes"]
            ));
        }
        let count = volume.voxels.len();
        for (place, theirs) in places.iter().zip(&values).filter(|(place, _)| *place / count == index) {
            let ours = volume.voxels[place % count] as f64;
            // Ours are f32.
            if (ours - theirs).abs() > 1e-6 * theirs.abs().max(1.0) {
                differ(format!("voxel {place} is {ours}, nibabel {theirs}"));
            }
        }
    }
    differences
}

/// Slices, rows and columns by nibabel's names of the axes' directions.
fn axial_dims(shape: &[usize], axcodes: &Value) -> [usize; 3] {
    ["SI", "AP", "LR"].map(|either| {
        let along = |code: &Value| either.contains(code.as_str().unwrap());
        shape[axcodes.as_array().unwrap().iter().position(along).unwrap()]
    })
}

/// Four hundred headers that are odd in what they say of space, size and units (see `tests/python/odd_headers.py`). Where a
/// form cannot be, nibabel takes it all the same; what we do then is tested with the reader.
#[test]
fn odd_headers_are_read_as_nibabel_reads_them() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let script = root().join("tests/python/odd_headers.py");
    let output = Command::new(python)
        .arg(script)
        .arg(folder.path())
        .arg("400")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.len() > 200);
    let differences: Vec<String> = records.iter().flat_map(compare).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The files hold one head in eight axis orders. Nothing was resampled: nibabel's own reordering makes them equal voxel
/// for voxel, so there is no tolerance. (One voxel's shift along any axis is a mean difference of 2 or more, a mirrored
/// head one of 8 or more.)
#[test]
fn one_head_in_eight_axis_orders_has_the_same_slices() {
    let Some(folder) = shared("real/nifti-space") else {
        return;
    };
    let scans = scans(&folder);
    assert_eq!(scans.len(), 8);
    let slices = |path: &PathBuf| Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap().to_slices();
    let first = slices(&scans[0]);
    for path in &scans[1..] {
        let other = slices(path);
        assert_eq!(other.dims, first.dims, "{}", path.display());
        let pairs = other.values.iter().zip(&first.values);
        let difference = pairs.map(|(a, b)| (a - b).abs() as f64).sum::<f64>() / first.values.len() as f64;
        assert_eq!(difference, 0.0, "{}", path.display());
    }
}
