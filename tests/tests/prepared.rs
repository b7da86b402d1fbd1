//! Preprocessing of each data set in its own layout, and the cache of what was prepared.

mod common;
mod mini;

use std::fs;
use std::path::{Path, PathBuf};

use common::root;
use flapsam::data::batches::prepared::{Preparation, PreparedCase};
use flapsam::data::batches::stacks::stack;
use flapsam::data::cases::lock::{locked, pin};
use flapsam::data::manifest::{Case, Manifest};
use flapsam::experiment::Experiment;
use flapsam_model::preprocessing::{Preprocessing, Window};
use flapsam_model::random::Random;
use flapsam_model::volume::Volume;
use mini::{SLICES_FIRST, SLICES_LAST, manifest, pair, prostate, put};
use tempfile::TempDir;

fn read(path: &Path) -> Volume {
    Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap()
}

/// Two cases of Fed-KiTS's layout, of sites A and B, with labels up to 2.
fn kits(data: &Path) -> Manifest {
    let mut kits = manifest("fed-kits19");
    let first = |site: &str| {
        kits.cases
            .iter()
            .find(|case| case.site == site && case.train)
            .unwrap()
            .clone()
    };
    kits.cases = vec![first("A"), first("B")];
    for (seed, case) in kits.cases.iter_mut().enumerate() {
        let (image, labels) = pair(seed as u64, [7, 16, 14], SLICES_FIRST, 2);
        put(&data.join("fed-kits19").join(&case.image.path), &image);
        put(&data.join("fed-kits19").join(&case.label.path), &labels);
        (case.label.sha256, case.label.bytes) = (None, None);
    }
    kits
}

/// What the project's own experiments say of a data set.
fn preprocessing(name: &str) -> Preprocessing {
    let file = root().join(format!("golden/{name}/methods/flap_sam"));
    Experiment::read(&file).unwrap().preprocessing
}

fn windows() -> Preprocessing {
    preprocessing("fed-kits19")
}

fn prepare(data: &Path, manifest: &Manifest, preprocessing: &Preprocessing, side: Option<usize>) -> Vec<PreparedCase> {
    let cases: Vec<&Case> = manifest.cases.iter().collect();
    Preparation::new(data, manifest, preprocessing, side)
        .cases(&cases)
        .unwrap()
}

/// The figures of the method's table, site by site.
#[test]
fn kits_windows_are_the_papers() {
    let sites = windows().sites;
    let text = |(site, window): (&String, &Window)| {
        let [low, high] = window.clip;
        format!("{site} {low}..{high}, {:.2}, {:.2}", window.mean, window.std)
    };
    let expected = [
        "A -66..208, 100.55, 61.68",
        "B -77..341, 110.72, 84.01",
        "C -89..325, 123.67, 97.30",
        "D -64..202, 71.07, 52.99",
        "E -64..236, 91.37, 60.98",
        "F -82..288, 105.31, 76.50",
    ];
    assert_eq!(sites.iter().map(text).collect::<Vec<_>>(), expected);
}

#[test]
fn kits_is_clipped_and_normalised_by_site_in_slices_rows_columns() {
    let folder = TempDir::new().unwrap();
    let kits = kits(folder.path());
    let prepared = prepare(folder.path(), &kits, &windows(), None);
    for (case, prepared) in kits.cases.iter().zip(&prepared) {
        let window = windows().sites[&case.site];
        let scan = read(&folder.path().join("fed-kits19").join(&case.image.path));
        let (values, labels) = prepared.read(0, prepared.len()).unwrap();
        assert_eq!((prepared.len(), prepared.size()), (7, [16, 14]));
        // The file's axes are slices, rows, columns, the first the fastest in its bytes.
        for (place, value) in values.iter().enumerate() {
            let [slice, row, column] = [place / (16 * 14), place / 14 % 16, place % 14];
            let hu = scan.voxels[slice + 7 * (row + 16 * column)];
            let expected = (hu.clamp(window.clip[0], window.clip[1]) - window.mean) / window.std;
            assert_eq!(*value, expected);
        }
        assert!(labels.contains(&2) && labels.iter().all(|&label| label == 0 || label == 2));
    }
}

/// After the stack's own scaling to [0, 1], a z-score leaves nothing behind but rounding: only the clipping counts.
#[test]
fn a_z_score_does_not_change_a_stack() {
    let folder = TempDir::new().unwrap();
    let kits = kits(folder.path());
    let mut clipped = windows();
    for window in clipped.sites.values_mut() {
        (window.mean, window.std) = (0.0, 1.0);
    }
    let with = &prepare(folder.path(), &kits, &windows(), None)[0];
    let without = &prepare(folder.path(), &kits, &clipped, None)[0];
    let (with, without) = (stack(with, 3, 16, None).unwrap(), stack(without, 3, 16, None).unwrap());
    let furthest = with
        .slices
        .iter()
        .zip(&without.slices)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(furthest < 1e-6, "{furthest}");
}

#[test]
fn prostate_is_clipped_at_its_percentile_and_zones_are_merged() {
    let folder = TempDir::new().unwrap();
    prostate(folder.path(), 1);
    pin(manifest("prostate-mri"), folder.path()).unwrap();
    let pinned = locked(manifest("prostate-mri"), folder.path()).unwrap();
    let prepared = prepare(folder.path(), &pinned, &preprocessing("prostate-mri"), None);
    for (case, prepared) in pinned.cases.iter().zip(&prepared) {
        let mut sorted = read(&folder.path().join("prostate-mri").join(&case.image.path)).voxels;
        sorted.sort_by(f32::total_cmp);
        // numpy.quantile(.., 0.99).
        let place = 0.99 * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[place as usize] as f64, sorted[place as usize + 1] as f64);
        let bound = (low + (high - low) * place.fract()) as f32;
        let (values, labels) = prepared.read(0, prepared.len()).unwrap();
        let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(largest, bound, "{}", case.id);
        assert!(labels.contains(&1) && labels.iter().all(|&label| label <= 1));
        assert_eq!(prepared.len(), case.slices);
    }
}

#[test]
fn ixi_is_resampled_to_one_grid() {
    let folder = TempDir::new().unwrap();
    let mut ixi = manifest("fed-ixi");
    ixi.cases.truncate(2);
    // About as large as the real ones, and not alike.
    for (case, dims) in ixi.cases.iter().zip([[83, 44, 55], [80, 46, 56]]) {
        let (image, labels) = pair(1, dims, SLICES_LAST, 1);
        for (kind, bytes) in [("T1", image), ("label", labels)] {
            let path = format!("IXI_sample/{}-{}-0800/{kind}/x.nii.gz", case.id, case.site);
            put(&folder.path().join("fed-ixi").join(path), &bytes);
        }
    }
    pin(ixi.clone(), folder.path()).unwrap();
    let pinned = locked(ixi, folder.path()).unwrap();
    for prepared in prepare(folder.path(), &pinned, &preprocessing("fed-ixi"), None) {
        // Axes to the left, the front and the head: slices are the third.
        assert_eq!((prepared.len(), prepared.size()), (48, [60, 48]));
        let (values, labels) = prepared.read(20, 28).unwrap();
        let inside = values
            .iter()
            .zip(&labels)
            .filter(|(_, label)| **label == 1)
            .map(|(value, _)| *value);
        let (sum, count) = inside.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        assert!(
            count > 1000 && (sum / count as f32 - 150.0).abs() < 5.0,
            "{sum} {count}"
        );
    }
}

fn cache_files(data: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for key in fs::read_dir(data.join(".prepared/fed-kits19")).unwrap() {
        files.extend(
            fs::read_dir(key.unwrap().path())
                .unwrap()
                .map(|file| file.unwrap().path()),
        );
    }
    files.sort();
    files
}

#[test]
fn the_cache_is_used_while_it_fits_and_only_then() {
    let folder = TempDir::new().unwrap();
    let mut kits = kits(folder.path());
    let prepare = |kits: &Manifest, side| prepare(folder.path(), kits, &windows(), side);
    let first = prepare(&kits, Some(16));
    let files = cache_files(folder.path());
    assert_eq!(files.len(), 2);
    let stack_of = |case: &PreparedCase| stack(case, 2, 16, None).unwrap().slices;
    let expected = stack_of(&first[0]);

    // What is there is not made again: its source may even be gone.
    let image = folder.path().join("fed-kits19").join(&kits.cases[0].image.path);
    let source = fs::read(&image).unwrap();
    fs::remove_file(&image).unwrap();
    assert_eq!(stack_of(&prepare(&kits, Some(16))[0]), expected);
    fs::write(&image, source).unwrap();

    // A file that was cut off is made again.
    let whole = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &whole[..whole.len() - 1]).unwrap();
    prepare(&kits, Some(16));
    assert!(fs::read(&files[0]).unwrap() == whole);

    // Other settings have files of their own, and so has another version of the data set.
    prepare(&kits, None);
    assert_eq!(cache_files(folder.path()).len(), 4);
    kits.sha256 = "0".repeat(64);
    prepare(&kits, Some(16));
    assert_eq!(cache_files(folder.path()).len(), 6);
    // So have other classes: tumour is a part of the kidney here.
    kits.classes.pop();
    let (_, labels) = prepare(&kits, None)[0].read(0, 7).unwrap();
    assert!(labels.contains(&1) && !labels.contains(&2));
}

#[test]
fn a_scan_that_changed_is_not_prepared() {
    let folder = TempDir::new().unwrap();
    let kits = kits(folder.path());
    pin(kits.clone(), folder.path()).unwrap();
    let kits = locked(kits, folder.path()).unwrap();
    let other = pair(77, [7, 16, 14], SLICES_FIRST, 2).0;
    put(
        &folder.path().join("fed-kits19").join(&kits.cases[0].image.path),
        &other,
    );
    let cases: Vec<&Case> = kits.cases.iter().collect();
    let why = Preparation::new(folder.path(), &kits, &windows(), None)
        .cases(&cases)
        .unwrap_err()
        .to_string();
    assert!(why.contains("imaging.nii.gz") && why.contains("data verify"), "{why}");
}

/// An augmented stack depends on its own stream only, and labels stay labels.
#[test]
fn augmented_stacks_repeat_and_differ_by_stream() {
    let folder = TempDir::new().unwrap();
    let kits = kits(folder.path());
    let case = &prepare(folder.path(), &kits, &windows(), None)[0];
    let made = |name: &str| stack(case, 3, 24, Some(&mut Random::new(1, name))).unwrap();
    let mut distinct = std::collections::BTreeSet::new();
    for number in 0..20 {
        let name = format!("stack {number}");
        let (one, again) = (made(&name), made(&name));
        assert!(one.slices == again.slices && one.labels == again.labels);
        assert_eq!((one.slices.len(), one.labels.len()), (5 * 24 * 24, 5 * 24 * 24));
        assert!(one.labels.iter().all(|label| [0, 2].contains(label)));
        distinct.insert(one.slices.iter().map(|value| value.to_bits()).collect::<Vec<u32>>());
    }
    assert!(distinct.len() > 15, "{} of 20 differ", distinct.len());
}
