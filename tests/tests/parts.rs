//! Cases that are parts of their files: boxes, label ids, patients, two cases of one scan; and the data set that has all of
//! them, hippocampi of three hospitals.

mod common;
mod mini;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{flapsam, root, shared};
use flapsam::data::cases::dataset::{LabelledCase, read_pair};
use flapsam::data::manifest::{Case, DataFile, Manifest, parse_cases};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::random::Random;
use flapsam_model::segment::{range, scale_to_unit};
use flapsam_model::volume::{Packing, Volume};
use mini::{count, data, experiment, manifest, put, read_json, run, write_manifest};
use server::{Reply, Server};
use tempfile::TempDir;

/// Voxels of 1 mm towards the right, the front and the head.
const RAS: [[f64; 4]; 3] = [[1.0, 0.0, 0.0, -3.0], [0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 1.0, 7.0]];
/// The same towards the left, the front and the head.
const LAS: [[f64; 4]; 3] = [[-1.0, 0.0, 0.0, 40.0], [0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 1.0, -20.0]];
/// Voxels of 2 mm towards the back, the head and the right.
const PSR: [[f64; 4]; 3] = [[0.0, 0.0, 2.0, -30.0], [-2.0, 0.0, 0.0, 50.0], [0.0, 2.0, 0.0, -10.0]];
/// All licences of the data set.
const LICENCES: &str = "CC-BY-SA-4.0,LicenseRef-CC-BY-NC,cc-by-sa-3.0";

/// Voxels along a file's axes, and their label.
type Block = ([Range<usize>; 3], u8);

/// Noise in which each block is brighter, and their labels.
fn drawn(seed: u64, dims: [usize; 3], affine: [[f64; 4]; 3], scale: f64, blocks: &[Block]) -> (Volume, Vec<u8>) {
    let mut random = Random::new(seed, "parts");
    let (mut voxels, mut labels) = (Vec::new(), Vec::new());
    for place in 0..dims.iter().product() {
        let index = [place % dims[0], place / dims[0] % dims[1], place / dims[0] / dims[1]];
        let holds = |(block, _): &&Block| (0..3).all(|axis| block[axis].contains(&index[axis]));
        let label = blocks.iter().find(holds).map_or(0, |(_, label)| *label);
        labels.push(label);
        let value = random.uniform(0.0, 60.0) + if label > 0 { 150.0 } else { 0.0 };
        voxels.push((value * scale).round() as f32);
    }
    (Volume::new(dims, voxels, affine), labels)
}

/// The files of a case drawn in the layout of its site: scan, labels, the boxes of its left and its right side.
fn site_files(site: &str, seed: u64) -> (Vec<u8>, Vec<u8>, [&'static str; 2]) {
    match site {
        "vanderbilt" => {
            // In floats up to more than a million; every other one in 8 bits.
            let blocks = [([3..6, 2..5, 2..6], 1), ([3..6, 5..8, 2..6], 2)];
            let scale = if seed.is_multiple_of(2) { 8000.0 } else { 1.0 };
            let (scan, labels) = drawn(seed, [9, 10, 8], RAS, scale, &blocks);
            let bytes: Vec<u8> = scan.voxels.iter().map(|&value| value as u8).collect();
            let image = match seed.is_multiple_of(2) {
                true => scan.to_nifti_f32(),
                false => scan.mask_to_nifti(&bytes, Packing::Gzip),
            };
            (image, scan.mask_to_nifti(&labels, Packing::Gzip), ["0:9 0:10 0:8", ""])
        }
        "st-louis" => {
            let blocks = [
                ([14..17, 6..11, 4..8], 48),
                ([4..7, 6..11, 4..8], 47),
                ([9..11, 2..4, 2..4], 60),
            ];
            let (scan, labels) = drawn(seed, [21, 16, 12], LAS, 10.0, &blocks);
            let boxes = ["11:20 3:14 1:11", "1:10 3:14 1:11"];
            (scan.to_nifti_i16(), scan.mask_to_nifti(&labels, Packing::Gzip), boxes)
        }
        _ => {
            let blocks = [
                ([4..7, 3..6, 2..4], 48),
                ([4..7, 3..6, 9..11], 47),
                ([1..3, 1..3, 1..3], 207),
            ];
            let (scan, labels) = drawn(seed, [11, 9, 13], PSR, 1.0, &blocks);
            let bytes: Vec<u8> = scan.voxels.iter().map(|&value| value as u8).collect();
            let boxes = ["2:9 1:8 0:6", "2:9 1:8 7:13"];
            let packed = |bytes: &[u8]| scan.mask_to_nifti(bytes, Packing::Gzip);
            (packed(&bytes), packed(&labels), boxes)
        }
    }
}

/// The data set in its own layout with drawn files: of each site two scans for training and one for testing. Returns the
/// files by their paths.
fn hippocampus() -> (Manifest, BTreeMap<String, Vec<u8>>) {
    let published = manifest("hippocampus");
    let mut taken: BTreeMap<(String, bool), Vec<String>> = BTreeMap::new();
    let mut files = BTreeMap::new();
    let mut cases = Vec::new();
    for (seed, case) in published.cases.iter().enumerate() {
        let scans = taken.entry((case.site.clone(), case.train)).or_default();
        if !scans.contains(&case.image.path) {
            if scans.len() == if case.train { 2 } else { 1 } {
                continue;
            }
            scans.push(case.image.path.clone());
            let seed = scans.len() as u64 + 10 * seed as u64 * 2;
            let (image, labels, _) = site_files(&case.site, seed);
            files.insert(case.image.path.clone(), image);
            files.insert(case.label.path.clone(), labels);
        }
        let [left, right] = site_files(&case.site, 0).2;
        let part = if case.id.ends_with("-right") { right } else { left };
        let named = |file: &DataFile| DataFile {
            url: file.url.clone(),
            ..DataFile::new(file.path.clone(), &files[&file.path])
        };
        let mut made = Case {
            image: named(&case.image),
            label: named(&case.label),
            crop: Some(part.parse().unwrap()),
            ..case.clone()
        };
        let scan = Volume::claimed(&files[&case.image.path], None).unwrap();
        made.slices = scan.cropped(made.crop.as_ref().unwrap()).unwrap().axial().dims[0];
        cases.push(made);
    }
    (Manifest { cases, ..published }, files)
}

/// Puts the server's address in place of every file's host, and returns the paths that are asked for.
fn on_loopback(set: &mut Manifest, server: &Server) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for file in set.cases.iter_mut().flat_map(|case| [&mut case.image, &mut case.label]) {
        let url = file.url.take().unwrap();
        let path = url.strip_prefix("https://github.com").unwrap();
        file.url = Some(server.url(path));
        paths.insert(path.to_owned());
    }
    paths
}

fn path_of(file: &DataFile) -> String {
    file.url
        .as_ref()
        .unwrap()
        .splitn(4, '/')
        .nth(3)
        .map(|path| format!("/{path}"))
        .unwrap()
}

/// Fetches a data set from a server that has all its files; every one is asked for once.
fn is_fetched(mut set: Manifest, folder: &Path, content: impl Fn(&str) -> Vec<u8>) -> PathBuf {
    let server = Server::start();
    let paths = on_loopback(&mut set, &server);
    let mut served = BTreeSet::new();
    for file in set.data_files() {
        server.serve(&path_of(&file), [Reply::honest(&content(&file.path))]);
        served.insert(path_of(&file));
    }
    assert_eq!(served, paths);
    let manifest = write_manifest(&set, &folder.join("manifests"));
    let name = manifest.display().to_string();
    for (arguments, why) in [
        (&[][..], "was not accepted"),
        (
            &["--accept-licence", "CC-BY-SA-4.0,CC-BY-SA-3.0"],
            "LicenseRef-CC-BY-NC of hippocampus was not accepted",
        ),
        (&["--accept-licence", "MIT"], "and CC-BY-SA-3.0, not MIT"),
    ] {
        let (code, _, said) = data("fetch", &[&[name.as_str()], arguments].concat(), folder);
        assert!(
            code == 2 && said.contains(why) && said.contains("all of them"),
            "{said}"
        );
        assert!(
            said.contains("hammersmith: IXI") && said.contains("credit: scans: OASIS"),
            "{said}"
        );
    }
    assert!(server.requests().is_empty());
    let arguments = [name.as_str(), "--accept-licence", LICENCES];
    let (code, fetched, said) = data("fetch", &arguments, folder);
    assert_eq!(
        (code, fetched["files_fetched"].as_u64()),
        (0, Some(paths.len() as u64)),
        "{said}"
    );
    let asked: Vec<String> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked.len(), paths.len());
    assert_eq!(asked.into_iter().collect::<BTreeSet<_>>(), paths);
    // Everything is there: no licence is asked for.
    let (code, fetched, _) = data("fetch", &[&name], folder);
    assert_eq!((code, fetched["files_fetched"].as_u64()), (0, Some(0)));
    let (code, report, said) = data("verify", &[&name], folder);
    assert_eq!((code, count(&report, "right")), (0, paths.len()), "{report} {said}");
    assert_eq!(report["misfits"].as_array().unwrap().len(), 0);
    manifest
}

/// From every file's own address to a run whose masks, page and report show the box at its own place.
#[test]
fn boxes_of_shared_scans_are_fetched_trained_on_and_shown() {
    let folder = TempDir::new().unwrap();
    let (set, files) = hippocampus();
    // Of each site three scans; both sides of those of two sites.
    assert_eq!((set.cases.len(), files.len()), (3 + 2 * 6, 2 * 9));
    let place = is_fetched(set, folder.path(), |path| files[path].clone());
    let set = Manifest::read(&place).unwrap();
    let preprocessing = Preprocessing {
        spacing_mm: Some([1.0, 1.0, 1.0]),
        ..Preprocessing::default()
    };
    let settings = "save_predictions = true\n[preprocessing]\nspacing_mm = [1.0, 1.0, 1.0]\n[local]\n\
                    batch_stacks = 4\nstack_stride = 4";
    let runs = run(&place, folder.path(), settings);
    let run = runs.path().join("mini-1");
    let metrics = read_json(&run.join("metrics.json"));
    assert_eq!(metrics["cases"].as_array().unwrap().len(), 1 + 2 + 2);
    // Clients count by the slices that they train on: 8 of each crop, 10 of each box, and 2 x 7 where they are 2 mm apart.
    let slices = [
        ("vanderbilt", 2.0 * 8.0),
        ("st-louis", 4.0 * 10.0),
        ("hammersmith", 4.0 * 14.0),
    ];
    for (site, count) in slices {
        let weight = metrics["weights"][site].as_f64().unwrap();
        assert!((weight - count / 112.0).abs() < 1e-12, "{site}: {weight}");
    }

    // Masks lie where their boxes do: the outer corner of the first voxel is the same on either grid.
    let home = folder.path().join("hippocampus");
    let corner = |volume: &Volume| volume.affine.map(|row| row[3] - (row[0] + row[1] + row[2]) / 2.0);
    for case in set.cases.iter().filter(|case| !case.train) {
        let (scan, _) = read_pair(&home, case, 2, &Preprocessing::default()).unwrap();
        let grid = preprocessing.on_grid(scan.clone()).unwrap();
        let mask = run
            .join("predictions")
            .join(&case.site)
            .join(format!("{}.nii.gz", case.id));
        let mask = Volume::from_nifti(&fs::read(mask).unwrap(), None).unwrap();
        assert_eq!((mask.dims, mask.affine), (grid.dims, grid.affine), "{}", case.id);
        if case.site == "hammersmith" {
            // 6 columns, 7 rows and 7 slices of 2 mm.
            assert_eq!((mask.dims, corner(&mask)), ([12, 14, 14], corner(&scan.oriented())));
        }
    }

    is_shown(&set, &place, &run, folder.path());
    segments_its_box(&set, &home, &run, folder.path());
    misfits_are_named(&set, folder.path());
}

/// The page's scan is the box with the values that the network saw, its truth the class.
fn is_shown(set: &Manifest, place: &Path, run: &Path, folder: &Path) {
    let page = folder.join("page");
    put(&page.join("index.html"), b"<p>page</p>");
    let out = folder.join("shown");
    let mut command = flapsam();
    command
        .current_dir(root())
        .arg("view")
        .arg(run)
        .arg("--page")
        .arg(&page);
    command
        .arg("--data")
        .arg(folder)
        .arg("--manifests")
        .arg(place.parent().unwrap());
    command.arg("--export").arg(&out).assert().success();
    let shown = read_json(&out.join("run.json"));
    assert_eq!(shown["spacingMm"], serde_json::json!([1.0, 1.0, 1.0]));
    for case in shown["cases"].as_array().unwrap() {
        let of_set = set.cases.iter().find(|own| case["id"] == own.id).unwrap();
        let (scan, labels) = read_pair(&folder.join("hippocampus"), of_set, 2, &Preprocessing::default()).unwrap();
        let read = |what: &str| {
            let bytes = fs::read(out.join(case[what]["path"].as_str().unwrap())).unwrap();
            assert_eq!(case[what]["sha256"], flapsam_model::checkpoint::sha256(&bytes));
            assert_eq!(case[what]["bytes"], bytes.len());
            Volume::from_nifti(&bytes, None).unwrap()
        };
        let (image, truth) = (read("image"), read("truth"));
        assert_eq!((image.dims, image.affine), (scan.dims, scan.affine));
        assert!(image.voxels == scan.voxels && truth.voxels == labels.voxels);
        assert!(truth.voxels.contains(&1.0) && truth.voxels.iter().all(|&label| label <= 1.0));
    }
    let mut command = flapsam();
    command
        .current_dir(root())
        .arg("report")
        .arg(run)
        .arg("--data")
        .arg(folder);
    command.arg("--manifests").arg(place.parent().unwrap());
    command.arg("-o").arg(folder.join("report.html")).assert().success();
    let report = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(report.contains("data:image/png"), "there are no pictures");
}

/// `segment --box` works as the run did, and its mask is on the whole scan's grid.
fn segments_its_box(set: &Manifest, home: &Path, run: &Path, folder: &Path) {
    let case = set
        .cases
        .iter()
        .find(|case| case.site == "hammersmith" && !case.train)
        .unwrap();
    let scan = home.join(&case.image.path);
    let out = folder.join("mask.nii.gz");
    let segment = |part: &str| {
        let mut command = flapsam();
        command.current_dir(root()).arg("segment").arg(&scan).arg("--adapter");
        command.arg(run.join("adapter.safetensors")).arg("-o").arg(&out);
        command.args(["--device", "cpu", "--box", part]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let part = case.crop.as_ref().unwrap();
    assert_eq!(segment(&part.to_string()).0, Some(0));
    let whole = Volume::from_nifti(&fs::read(&scan).unwrap(), None).unwrap();
    let mask = Volume::from_nifti(&fs::read(&out).unwrap(), None).unwrap();
    assert_eq!((mask.dims, mask.affine), (whole.dims, whole.affine));
    let inside = |volume: &Volume| volume.voxels.iter().filter(|&&label| label > 0.0).count();
    let cut = mask.clone().cropped(part).unwrap();
    assert_eq!(inside(&cut), inside(&mask), "nothing is marked outside of the box");
    // It is the run's own mask, whose voxels of 1 mm are halves of the scan's: each of these takes the one at its centre.
    let own = run.join("predictions/hammersmith").join(format!("{}.nii.gz", case.id));
    let own = Volume::from_nifti(&fs::read(own).unwrap(), None).unwrap().to_slices();
    let cut = cut.to_slices();
    let [slices, rows, columns] = cut.dims;
    assert_eq!(own.dims, [2 * slices, 2 * rows, 2 * columns]);
    for (place, label) in cut.values.iter().enumerate() {
        let [slice, row, column] = [place / (rows * columns), place / columns % rows, place % columns];
        let centre = ((2 * slice + 1) * 2 * rows + 2 * row + 1) * 2 * columns + 2 * column + 1;
        assert_eq!(*label, own.values[centre], "{slice} {row} {column}");
    }
    for (part, why) in [
        ("0:3 0:3", "has 2 sides"),
        ("0:3 0:3 0:14", "reaches out of its 11 x 9 x 13 voxels"),
        ("0:3 0:3 3:3", "is empty"),
    ] {
        let (code, said) = segment(part);
        assert!(code == Some(2) && said.contains(why), "{part}: {said}");
    }
}

/// A box that reaches out of its file is named with its case, by `verify` as by a run.
fn misfits_are_named(set: &Manifest, folder: &Path) {
    let mut wrong = set.clone();
    let case = wrong.cases.iter_mut().find(|case| case.site == "st-louis").unwrap();
    case.crop = Some("1:10 3:17 1:11".parse().unwrap());
    let (id, file) = (case.id.clone(), case.image.path.clone());
    let place = write_manifest(&wrong, &folder.join("wrong"));
    let name = place.display().to_string();
    let (code, report, _) = data("verify", &[&name], folder);
    let said = report["misfits"].to_string();
    assert!(
        code == 1 && said.contains(&id) && said.contains("1:10 3:17 1:11 reaches out of its 21 x 16 x 12"),
        "{said}"
    );
    assert_eq!(report["misfits"].as_array().unwrap().len(), 1);
    let config = folder.join("wrong.toml");
    fs::write(&config, experiment(&place, "[local]\nbatch_stacks = 1", 1)).unwrap();
    let mut command = flapsam();
    command
        .arg("run")
        .arg(&config)
        .arg("--data")
        .arg(folder)
        .args(["--device", "cpu"]);
    let output = command.arg("--out").arg(folder.join("wrong-runs")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && said.contains(&file) && said.contains("reaches out"),
        "{said}"
    );
}

/// What the table does not know is recorded of the box, and what it says of the case stays.
#[test]
fn boxes_of_unknown_files_are_pinned() {
    let folder = TempDir::new().unwrap();
    let (mut set, files) = hippocampus();
    for (path, bytes) in &files {
        put(&folder.path().join("hippocampus").join(path), bytes);
    }
    let published = set.cases.clone();
    for case in &mut set.cases {
        case.slices = 0;
        for file in [&mut case.image, &mut case.label] {
            (file.sha256, file.bytes) = (None, None);
        }
    }
    let name = write_manifest(&set, &folder.path().join("manifests"))
        .display()
        .to_string();
    let (code, pinned, said) = data("pin", &[&name], folder.path());
    assert_eq!((code, pinned["cases_known"].as_u64()), (0, Some(15)), "{pinned} {said}");
    let lock = folder.path().join("hippocampus.lock.csv");
    let known = parse_cases(&lock, &fs::read(&lock).unwrap()).unwrap();
    assert_eq!(known, published);
    let (code, report, _) = data("verify", &[&name], folder.path());
    assert_eq!((code, count(&report, "right")), (0, files.len()));

    // A lock file that speaks of another part, or of another patient, is not believed.
    let text = fs::read_to_string(&lock).unwrap();
    for (from, to) in [
        ("11:20 3:14 1:11,48", "10:20 3:14 1:11,48"),
        (",1+2,", ",1,"),
        (",msd-001,", ",msd-0001,"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&lock, text.replacen(from, to, 1)).unwrap();
        let (code, _, said) = data("verify", &[&name], folder.path());
        assert!(
            code == 2 && said.contains("is not as the manifest of hippocampus has it"),
            "{said}"
        );
    }
}

/// The table's facts of the real files: voxels of the class in each box, slices, and values that scale.
#[test]
fn the_real_hippocampi_are_as_their_table_says() {
    let (Some(real), Some(facts)) = (shared("real/hippocampus"), shared("data")) else {
        return;
    };
    let folder = TempDir::new().unwrap();
    symlink(real.canonicalize().unwrap(), folder.path().join("hippocampus")).unwrap();
    let (code, report, said) = data("verify", &["hippocampus"], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 688), "{said}");
    assert_eq!(report["misfits"].as_array().unwrap().len(), 0);

    // No cell of it holds a comma.
    let table = fs::read_to_string(facts.join("hippocampus.csv")).unwrap();
    let mut lines = table.lines().map(|line| line.split(',').map(str::to_owned));
    let head: Vec<String> = lines.next().unwrap().collect();
    let rows: Vec<BTreeMap<String, String>> = lines.map(|line| head.iter().cloned().zip(line).collect()).collect();
    let set = manifest("hippocampus");
    assert_eq!(rows.len(), set.cases.len());
    let by_spacing = Preprocessing {
        spacing_mm: Some([1.0; 3]),
        ..Preprocessing::default()
    };
    let mut eight_bit = 0;
    let mut highest = 0.0f32;
    for (row, case) in rows.iter().zip(&set.cases) {
        assert_eq!(
            (&row["case"], &row["site"], row["split"] == "train"),
            (&case.id, &case.site, case.train)
        );
        assert_eq!(
            [
                &row["image_sha256"],
                &row["labels_sha256"],
                &row["image_url"],
                &row["labels_url"]
            ]
            .map(Some),
            [&case.image.sha256, &case.label.sha256, &case.image.url, &case.label.url].map(Option::as_ref)
        );
        assert_eq!(Some(&row["subject"]), case.patient.as_ref());
        let home = folder.path().join("hippocampus");
        let (scan, labels) = read_pair(&home, case, 2, &Preprocessing::default()).unwrap();
        let voxels = labels.voxels.iter().filter(|&&label| label == 1.0).count();
        assert_eq!(voxels.to_string(), row["voxels"], "{}", case.id);
        assert!(labels.voxels.iter().all(|&label| label <= 1.0));
        assert_eq!(scan.axial().dims[0], case.slices, "{}", case.id);
        // Every value counts, the largest as much as the smallest, whatever they are.
        let mut values = scan.voxels.clone();
        let [low, high] = range(&values);
        assert!(low < high, "{}", case.id);
        (eight_bit, highest) = (eight_bit + usize::from(high <= 255.0), highest.max(high));
        scale_to_unit(&mut values, [low, high]);
        let [least, most] = range(&values);
        assert!(
            least == 0.0 && (most - 1.0).abs() < 1e-6,
            "{}: {least}, {most}",
            case.id
        );
        // At 1 mm the crops of Vanderbilt and the boxes of St Louis stay as they are, and those of Hammersmith are doubled.
        let own = scan.dims;
        let prepared = LabelledCase::new(scan, labels, &case.site, 2, &by_spacing).unwrap();
        match case.site.as_str() {
            "hammersmith" => {
                let [along, up, across] = own;
                assert_eq!(prepared.slices.dims, [2 * up, 2 * along, 2 * across]);
                // A label needs the whole of a voxel: two to a side are all of its own.
                assert_eq!(prepared.labels.iter().filter(|&&label| label == 1).count(), 8 * voxels);
            }
            _ => assert_eq!(prepared.slices.dims, [own[2], own[1], own[0]]),
        }
    }
    assert!(eight_bit > 50 && highest > 1.7e6, "{eight_bit} {highest}");
}

/// The real files, each from its own address.
#[test]
fn the_real_hippocampi_are_fetched_from_their_own_addresses() {
    let Some(real) = shared("real/hippocampus") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let set = manifest("hippocampus");
    is_fetched(set, folder.path(), |path| fs::read(real.join(path)).unwrap());
}

/// What the published table promises, whether or not the files are there.
#[test]
fn both_sides_of_a_brain_are_in_one_split() {
    let set = manifest("hippocampus");
    let mut splits: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for case in &set.cases {
        let scan = splits.entry(&case.image.path).or_default();
        scan.insert(case.train);
        assert_eq!(scan.len(), 1, "{}", case.id);
        assert!(case.patient.is_some() && case.crop.is_some() && case.label_ids.is_some());
        assert!(case.image.sha256.is_some() && case.label.sha256.is_some() && case.slices > 0);
        let commit = |file: &DataFile| {
            let url = file.url.clone().unwrap();
            let pinned = url
                .split('/')
                .any(|part| part.len() == 40 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
            url.starts_with("https://github.com/") && pinned
        };
        assert!(commit(&case.image) && commit(&case.label), "{}", case.id);
    }
    assert_eq!(splits.len(), 344);
    let sites: Vec<&str> = set.origins.iter().map(|origin| origin.site.as_str()).collect();
    assert_eq!(sites, ["hammersmith", "st-louis", "vanderbilt"]);
    for said in [
        "DLMUSE",
        "by hand at 1 mm",
        "made by a program",
        "A box around the structure is given",
    ] {
        let text = format!("{} {:?}", set.about.description, set.origins);
        assert!(text.contains(said), "{said}");
    }
}
