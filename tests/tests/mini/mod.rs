//! Data sets of a few voxels, made on the fly in each real one's layout and naming.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use flapsam::data::manifest::Manifest;
use flapsam_model::random::Random;
use flapsam_model::volume::{Packing, Volume};

use crate::common::root;

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
