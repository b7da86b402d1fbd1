//! Data sets of a few voxels, made on the fly in each real one's layout and naming.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use flapsam::data::manifest::Manifest;
use flapsam_model::random::Random;
use flapsam_model::volume::{Packing, Volume};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{flapsam, root};

/// Axes towards the feet, the back and the left, as Fed-KiTS's: slices come first.
pub const SLICES_FIRST: [[f64; 4]; 3] = [[0.0, 0.0, -0.8, 10.0], [0.0, -0.8, 0.0, 5.0], [-3.0, 0.0, 0.0, 0.0]];
/// Axes towards the left, the front and the head.
pub const SLICES_LAST: [[f64; 4]; 3] = [[-0.6, 0.0, 0.0, 10.0], [0.0, 0.6, 0.0, 5.0], [0.0, 0.0, 3.6, 0.0]];

/// A scan and its labels as NIfTI files: noise with a bright block, which is labelled `label`.
pub fn pair(seed: u64, dims: [usize; 3], affine: [[f64; 4]; 3], label: u8) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random::new(seed, "mini");
    let count = dims.iter().product();
    let mut voxels = Vec::with_capacity(count);
    let mut labels = Vec::with_capacity(count);
    for place in 0..count {
        let index = [place % dims[0], place / dims[0] % dims[1], place / dims[0] / dims[1]];
        let inside = (0..3).all(|axis| (dims[axis] / 3..dims[axis] * 2 / 3).contains(&index[axis]));
        labels.push(if inside { label } else { 0 });
        voxels.push((random.uniform(-20.0, 20.0) + if inside { 150.0 } else { 0.0 }).round() as f32);
    }
    let volume = Volume::new(dims, voxels, affine);
    (volume.to_nifti_i16(), volume.mask_to_nifti(&labels, Packing::Gzip))
}

/// Writes a file and the folders above it.
pub fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// One of the project's own manifests.
pub fn manifest(name: &str) -> Manifest {
    Manifest::read(&root().join(format!("data-manifests/{name}.json"))).unwrap()
}

/// Writes a manifest into a folder, and returns its file.
pub fn write_manifest(manifest: &Manifest, folder: &Path) -> PathBuf {
    manifest.write(folder).unwrap();
    folder.join(format!("{}.json", manifest.about.name))
}

/// The Prostate MRI data set in its own layout: the test cases of its manifest, and `train` cases for each site.
pub fn prostate(data: &Path, train: usize) {
    let hospitals = ["RUNMC", "BMC", "I2CVB", "UCL", "BIDMC", "HK"];
    let cases = manifest("prostate-mri").cases;
    let sites = ["A", "B", "C", "D", "E", "F"].into_iter().zip(hospitals);
    for (home, (site, hospital)) in sites.enumerate() {
        let tests = cases.iter().filter(|case| case.site == site && !case.train);
        let tests: Vec<String> = tests
            .map(|case| case.id.split('-').nth(1).unwrap().to_owned())
            .collect();
        let others = (50..50 + train).map(|number| number.to_string());
        for (place, number) in tests.into_iter().chain(others).enumerate() {
            // Label 2 stands for a zone of the prostate: it is merged into label 1.
            let label = 1 + (place % 2) as u8;
            let (image, labels) = pair((100 * home + place) as u64, [12, 12, 3 + place % 3], SLICES_LAST, label);
            let folder = data.join("prostate-mri").join(hospital);
            let spelling = ["segmentation", "Segmentation"][place % 2];
            put(&folder.join(format!("Case{number}.nii.gz")), &image);
            put(&folder.join(format!("Case{number}_{spelling}.nii.gz")), &labels);
        }
    }
}

/// `flapsam data ACTION ARGUMENTS --data DATA --json`: exit code, what it printed, what it said.
pub fn data(action: &str, arguments: &[&str], data: &Path) -> (i32, Value, String) {
    let mut command = flapsam();
    command.current_dir(root());
    command
        .arg("data")
        .arg(action)
        .args(arguments)
        .arg("--data")
        .arg(data)
        .arg("--json");
    let output = command.output().unwrap();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), printed, said)
}

/// How many files `verify` found in a state.
pub fn count(report: &Value, state: &str) -> usize {
    let files = report["files"].as_array().unwrap();
    files.iter().filter(|file| file["state"] == state).count()
}

/// A run of one round at 32 x 32 pixels on one case of each site and split.
pub fn train(manifest: &Path, data: &Path, preprocessing: &str) -> Value {
    let limits = "cases_per_site = [1, 1]\nsave_predictions = true";
    let folder = run(
        manifest,
        data,
        &format!("{limits}\n[preprocessing]\n{preprocessing}\n[local]\nbatch_stacks = 2"),
    );
    read_json(&folder.path().join("mini-1/metrics.json"))
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A run of one round at 32 x 32 pixels with these settings, into a folder that lives as long as its handle.
pub fn run(manifest: &Path, data: &Path, settings: &str) -> TempDir {
    run_seed(manifest, data, settings, 1)
}

pub fn run_seed(manifest: &Path, data: &Path, settings: &str, seed: u64) -> TempDir {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("mini.toml");
    fs::write(&config, experiment(manifest, settings, seed)).unwrap();
    let mut command = flapsam();
    command
        .arg("run")
        .arg(&config)
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(folder.path());
    command.args(["--device", "cpu"]).assert().success();
    folder
}

/// The experiment file of such a run.
pub fn experiment(manifest: &Path, settings: &str, seed: u64) -> String {
    format!(
        "title = \"mini\"\ndata = \"{}\"\nbase = \"{}\"\nmodel = \"nano\"\nimage_size = 32\nmethod = \"flap_sam\"\n\
         rank = 2\nrounds = 1\nseeds = [{seed}]\nweight_decay = 0.1\n{settings}\n[schedule]\nbase_lr = 1e-3\n\
         warmup_period = 5\nmax_iterations = 50\nlr_exp = 1\n",
        manifest.display(),
        root().join("golden/nano.safetensors").display()
    )
}
