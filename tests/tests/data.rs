//! `flapsam data`: from a manifest to files that are known to be right, and to a first batch.

mod common;
mod mini;
mod server;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use assert_cmd::Command;
use common::{flapsam, root, shared};
use flapsam::data::cases::dataset::read_pair;
use flapsam::data::manifest::croissant::FileSet;
use flapsam::data::manifest::{Case, DataFile, Manifest, Part, Source};
use flapsam::verification::suite::find;
use flapsam_model::checkpoint::sha256;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Volume;
use mini::{
    SLICES_FIRST, SLICES_LAST, count, data, experiment, manifest, pair, prostate, put, read_json, run, run_seed, train,
    write_manifest,
};
use serde_json::Value;
use server::{Ending, Reply, Server};
use tempfile::TempDir;

fn unknown(path: &str) -> DataFile {
    DataFile {
        path: path.into(),
        sha256: None,
        bytes: None,
        url: None,
    }
}

/// A case's name, scan and labels.
type Files = Vec<(String, Vec<u8>, Vec<u8>)>;

/// A data set of Fed-KiTS's layout, in which the labels' checksums are published and the scans' are not: two sites of
/// two cases. Returns its scans and labels by case.
fn mini_kits(sources: Vec<Source>) -> (Manifest, Files) {
    let scratch = TempDir::new().unwrap();
    let mut cases = Vec::new();
    let mut files = Vec::new();
    for (number, (site, train)) in [("A", true), ("A", false), ("B", true), ("B", false)]
        .into_iter()
        .enumerate()
    {
        let id = format!("case_{number:05}");
        let (image, labels) = pair(number as u64, [6, 16, 14], SLICES_FIRST, 1 + (number % 2) as u8);
        cases.push(Case {
            id: id.clone(),
            site: site.into(),
            train,
            slices: 6,
            image: unknown(&format!("{id}/imaging.nii.gz")),
            label: DataFile::write(scratch.path(), format!("{id}/segmentation.nii.gz"), &labels).unwrap(),
            patient: None,
            crop: None,
            label_ids: None,
        });
        files.push((id, image, labels));
    }
    let kits = manifest("fed-kits19");
    let made = Manifest {
        cases,
        sources,
        sets: vec![FileSet::nifti("images", "Mini.", "*/imaging.nii.gz")],
        ..kits
    };
    (made, files)
}

fn put_kits(files: &[(String, Vec<u8>, Vec<u8>)], folder: &Path) {
    for (id, image, labels) in files {
        put(&folder.join(id).join("imaging.nii.gz"), image);
        put(&folder.join(id).join("segmentation.nii.gz"), labels);
    }
}

#[test]
fn every_manifest_is_what_our_writer_would_write() {
    for name in [
        "fed-ixi",
        "fed-kits19",
        "hippocampus",
        "phantom",
        "prostate-mri",
        "sam-checkpoints",
    ] {
        let (document, table) = manifest(name).to_files();
        let folder = root().join("data-manifests");
        assert_eq!(
            document,
            fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()
        );
        if name != "sam-checkpoints" {
            assert_eq!(table, fs::read_to_string(folder.join(format!("{name}.csv"))).unwrap());
        }
    }
}

#[test]
fn list_and_status_know_every_data_set() {
    let folder = TempDir::new().unwrap();
    let (code, listed, _) = data("list", &[], folder.path());
    assert_eq!(code, 0);
    let row = |name: &str| {
        listed
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == name)
            .unwrap()
            .clone()
    };
    let numbers =
        |name: &str| ["sites", "train", "test", "files", "with_checksum"].map(|key| row(name)[key].as_u64().unwrap());
    assert_eq!(numbers("fed-kits19"), [6, 74, 22, 192, 96]);
    assert_eq!(numbers("fed-ixi"), [3, 453, 113, 1132, 0]);
    // Both sides of a brain share its files.
    assert_eq!(numbers("hippocampus"), [3, 326, 102, 688, 688]);
    assert_eq!(
        row("hippocampus")["licence"],
        "CC-BY-SA-4.0 AND LicenseRef-CC-BY-NC AND CC-BY-SA-3.0"
    );
    assert_eq!(numbers("sam-checkpoints"), [0, 0, 0, 4, 4]);
    assert_eq!(row("fed-ixi")["licence"], "CC-BY-SA-3.0");

    let (code, status, _) = data("status", &["fed-kits19"], folder.path());
    assert_eq!((code, status[0]["missing"].as_u64()), (0, Some(192)));
    let (code, _, said) = data("status", &["fed-kits"], folder.path());
    assert_eq!(code, 2);
    assert!(said.contains("known are fed-ixi, fed-kits19"), "{said}");
}

#[test]
fn one_flipped_bit_in_each_of_sixteen_real_segmentations_is_found() {
    let Some(real) = shared("real/kits19") else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("fed-kits19");
    let mut cases: Vec<_> = fs::read_dir(real).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("segmentation.nii.gz").is_file());
    cases.sort();
    assert_eq!(cases.len(), 18);
    for (place, case) in cases.iter().enumerate() {
        let mut bytes = fs::read(case.join("segmentation.nii.gz")).unwrap();
        // Bits all over the files, the first and the last byte among them; two files stay as they are.
        let bit = (bytes.len() * 8 - 1) * place / 15;
        if place < 16 {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        put(
            &target.join(case.file_name().unwrap()).join("segmentation.nii.gz"),
            &bytes,
        );
    }
    let (code, report, _) = data("verify", &["fed-kits19"], folder.path());
    assert_eq!(code, 1);
    let found = ["changed", "right", "missing", "unpinned"].map(|state| count(&report, state));
    assert_eq!(found, [16, 2, 192 - 18, 0]);
}

#[test]
fn pin_records_what_fits_and_verify_uses_it() {
    let folder = TempDir::new().unwrap();
    let (kits, files) = mini_kits(Vec::new());
    let name = write_manifest(&kits, &folder.path().join("manifests"))
        .display()
        .to_string();
    let root = folder.path();
    put_kits(&files, &root.join("fed-kits19"));

    let (code, report, _) = data("verify", &[&name], root);
    assert_eq!((code, count(&report, "unpinned"), count(&report, "right")), (1, 4, 4));
    let (code, pinned, _) = data("pin", &[&name], root);
    assert_eq!((code, pinned["files_pinned_now"].as_u64()), (0, Some(4)));
    let (code, report, _) = data("verify", &[&name], root);
    assert_eq!((code, count(&report, "right")), (0, 8));
    // Again: nothing is left to pin.
    let (code, pinned, _) = data("pin", &[&name], root);
    assert_eq!((code, pinned["files_pinned_now"].as_u64()), (0, Some(0)));

    let image = root.join("fed-kits19/case_00001/imaging.nii.gz");
    let mut bytes = fs::read(&image).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&image, bytes).unwrap();
    let (code, report, _) = data("verify", &[&name], root);
    assert_eq!((code, count(&report, "changed"), count(&report, "right")), (1, 1, 7));

    // A lock file that contradicts the manifest is not believed.
    let lock = root.join("fed-kits19.lock.csv");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, text.replacen("case_00000,A,train", "case_00000,B,train", 1)).unwrap();
    let (code, _, said) = data("verify", &[&name], root);
    assert_eq!(code, 2);
    assert!(
        said.contains("fed-kits19.lock.csv") && said.contains("case_00000"),
        "{said}"
    );
}

#[test]
fn pin_refuses_a_scan_that_does_not_fit_its_labels() {
    let folder = TempDir::new().unwrap();
    let (kits, mut files) = mini_kits(Vec::new());
    let name = write_manifest(&kits, &folder.path().join("manifests"))
        .display()
        .to_string();
    // Another shape; the same shape elsewhere; labels for a scan; half a file.
    files[0].1 = pair(9, [6, 14, 16], SLICES_FIRST, 1).0;
    let mut shifted = SLICES_FIRST;
    shifted[0][3] += 2.0;
    files[1].1 = pair(9, [6, 16, 14], shifted, 1).0;
    files[2].2 = files[2].1.clone();
    let half = files[3].1.len() / 2;
    files[3].1.truncate(half);
    put_kits(&files, &folder.path().join("fed-kits19"));
    let (code, pinned, _) = data("pin", &[&name], folder.path());
    assert_eq!((code, pinned["files_pinned_now"].as_u64()), (1, Some(0)));
    let refused: Vec<&str> = pinned["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|why| why.as_str().unwrap())
        .collect();
    let reasons = ["its shape", "voxels away", "published is", "imaging.nii.gz"];
    for (case, reason) in reasons.into_iter().enumerate() {
        let why = refused
            .iter()
            .find(|why| why.starts_with(&format!("case_{case:05}")))
            .unwrap();
        assert!(why.contains(reason), "{why}");
    }
    assert!(!folder.path().join("fed-kits19.lock.csv").exists());
}

#[test]
fn prostate_cases_are_found_by_pattern_and_trained_on() {
    let folder = TempDir::new().unwrap();
    prostate(folder.path(), 2);
    let manifest = root().join("data-manifests/prostate-mri.json");
    let (code, pinned, said) = data("pin", &["prostate-mri"], folder.path());
    assert_eq!(code, 0, "{pinned} {said}");
    assert_eq!(pinned["cases_known"].as_u64(), Some(25 + 12));
    let (code, report, _) = data("verify", &["prostate-mri"], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 2 * 37));
    let lock = fs::read_to_string(folder.path().join("prostate-mri.lock.csv")).unwrap();
    assert!(
        lock.contains("A-50,A,train,") && lock.contains("A-03,A,test,"),
        "{lock}"
    );
    // Cases that come later are found, and a test case is never one for training.
    prostate(folder.path(), 3);
    let (code, pinned, _) = data("pin", &["prostate-mri"], folder.path());
    assert_eq!((code, pinned["files_pinned_now"].as_u64()), (0, Some(12)));
    assert_eq!(pinned["cases_known"].as_u64(), Some(25 + 18));
    let path = folder.path().join("prostate-mri.lock.csv");
    let lock = fs::read_to_string(&path).unwrap();
    fs::write(&path, lock.replace("A-03,A,test,", "A-03,A,train,")).unwrap();
    assert_eq!(data("verify", &["prostate-mri"], folder.path()).0, 2);
    fs::write(&path, lock).unwrap();
    let metrics = train(&manifest, folder.path(), "clip_percentile = 99.0");
    assert_eq!(metrics["cases"].as_array().unwrap().len(), 6);
}

/// Every experiment of the paper on one data set, through all its parts: `--dry-run` with the small network in ViT-B's
/// place, on a few voxels in the data set's own layout.
#[test]
fn the_papers_experiments_rehearse() {
    let folder = TempDir::new().unwrap();
    prostate(folder.path(), 1);
    assert_eq!(data("pin", &["prostate-mri"], folder.path()).0, 0);
    let suite = folder.path().join("suite");
    let text = format!(
        "extends = \"{}\"\nmodel = \"nano\"\nbase = \"{}\"\nimage_size = 32\nrank = 4\n",
        root().join("golden/prostate-mri/suite.toml").display(),
        root().join("golden/nano.safetensors").display()
    );
    put(&suite.join("suite.toml"), text.as_bytes());
    let count = find(&suite.to_string_lossy()).unwrap().len();
    assert!(count >= 20, "{count} experiments");
    let mut command = flapsam();
    command
        .current_dir(root())
        .args(["verify", "--dry-run", "--device", "cpu", "--suite"]);
    command.arg(&suite).arg("--data").arg(folder.path());
    let output = command.arg("--out").arg(folder.path().join("runs")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(&format!("{count} of {count} experiments ran through")),
        "{said}"
    );
}

#[test]
fn a_data_set_known_by_patterns_must_be_pinned_first() {
    let folder = TempDir::new().unwrap();
    prostate(folder.path(), 1);
    let config = folder.path().join("run.toml");
    let text = format!(
        "extends = \"{}\"\ntitle = \"prostate\"\ndata = \"{}\"\n",
        root().join("golden/phantom/methods/flap_sam").display(),
        root().join("data-manifests/prostate-mri.json").display()
    );
    fs::write(&config, text).unwrap();
    let mut command = flapsam();
    command
        .arg("run")
        .arg(&config)
        .arg("--data")
        .arg(folder.path())
        .arg("--out")
        .arg(folder.path());
    let output = command.assert().code(2);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("flapsam data pin prostate-mri"), "{said}");
}

/// A ZIP archive of the IXI layout with every case of the manifest, inside the folder that Mendeley puts around it.
fn ixi_archive(ixi: &Manifest) -> Vec<u8> {
    ixi_archive_with(ixi, |_, _| None)
}

/// The same with other bytes for some files, by case and kind.
fn ixi_archive_with(ixi: &Manifest, other: impl Fn(&str, &str) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (place, case) in ixi.cases.iter().enumerate() {
        let (image, labels) = pair(place as u64, [10, 6, 7], SLICES_LAST, 1);
        let folder = format!("7kd5wj7v7p-3/IXI_sample/{}-{}-{:04}", case.id, case.site, 800 + place);
        for (kind, name, bytes) in [("T1", "T1", image), ("label", "brain", labels)] {
            zip.start_file(format!("{folder}/{kind}/{}_{name}.nii.gz", case.id), options)
                .unwrap();
            zip.write_all(&other(&case.id, kind).unwrap_or(bytes)).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn ixi_is_fetched_as_an_archive_pinned_and_trained_on() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let mut ixi = manifest("fed-ixi");
    let archive = ixi_archive(&ixi);
    // The first answer breaks off in the middle.
    let half = archive.len() / 2;
    server.serve(
        "/ixi.zip",
        [
            Reply::honest(&archive).ending(Ending::Cut(half)),
            Reply::honest(&archive),
        ],
    );
    ixi.sources[0].url = server.url("/ixi.zip");
    let manifest = write_manifest(&ixi, &folder.path().join("manifests"));
    let name = manifest.display().to_string();
    let (code, fetched, said) = data(
        "fetch",
        &[&name, "--accept-licence", "cc-by-sa-3.0", "--stall", "5"],
        folder.path(),
    );
    assert_eq!(code, 0, "{fetched} {said}");
    assert_eq!(fetched["files_pinned_now"].as_u64(), Some(1132));
    assert_eq!(server.sent(), archive.len(), "the second answer is the rest only");
    assert!(!folder.path().join("fed-ixi/archive.zip").exists());
    let (code, report, _) = data("verify", &[&name], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 1132));
    // Everything is there: nothing is asked for, the licence included.
    let (code, fetched, _) = data("fetch", &[&name], folder.path());
    assert_eq!((code, fetched["files_fetched"].as_u64()), (0, Some(0)));
    let metrics = train(&manifest, folder.path(), "resample = [12, 10, 8]");
    let weights = ["Guys", "HH", "IOP"].map(|site| metrics["weights"][site].as_f64().unwrap());
    assert_eq!(weights, [1.0 / 3.0; 3], "one case of each site");

    // A later archive with another file in it is noticed: one file was lost, and all are fetched again.
    let first = ixi.cases[0].clone();
    let (image, _) = pair(99, [10, 6, 7], SLICES_LAST, 1);
    let other = ixi_archive_with(&ixi, |id, kind| (id == first.id && kind == "T1").then(|| image.clone()));
    server.serve("/ixi.zip", [Reply::honest(&other)]);
    let lock = fs::read_to_string(folder.path().join("fed-ixi.lock.csv")).unwrap();
    let lost = lock.lines().nth(3).unwrap().split(',').nth(4).unwrap();
    fs::remove_file(folder.path().join("fed-ixi").join(lost)).unwrap();
    let (code, fetched, _) = data("fetch", &[&name, "--accept-licence", "cc-by-sa-3.0"], folder.path());
    assert_eq!(code, 1);
    let changed = fetched["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 1);
    assert!(changed[0]["path"].as_str().unwrap().contains(&first.id));
}

#[test]
fn kits_is_fetched_file_by_file_checked_pinned_and_trained_on() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let source = |part, path: &str| Source {
        part,
        url: server.url(path),
    };
    let sources = vec![
        source(Part::Image, "/images/{case_id}.nii.gz"),
        source(Part::Label, "/data/{case_id}/segmentation.nii.gz"),
    ];
    let (kits, files) = mini_kits(sources);
    for (id, image, labels) in &files {
        server.serve(&format!("/images/{id}.nii.gz"), [Reply::honest(image)]);
        server.serve(&format!("/data/{id}/segmentation.nii.gz"), [Reply::honest(labels)]);
    }
    let manifest = write_manifest(&kits, &folder.path().join("manifests"));
    let name = manifest.display().to_string();

    for (arguments, why) in [
        (vec![], "was not accepted"),
        (vec!["--accept-licence", "MIT"], "is CC-BY-NC-SA-4.0, not MIT"),
    ] {
        let (code, _, said) = data("fetch", &[&[name.as_str()], &arguments[..]].concat(), folder.path());
        assert_eq!(code, 2);
        assert!(
            said.contains(why) && said.contains("--accept-licence CC-BY-NC-SA-4.0"),
            "{said}"
        );
    }
    assert!(server.requests().is_empty() && !folder.path().join("fed-kits19").exists());

    let accept = [name.as_str(), "--accept-licence", "CC-BY-NC-SA-4.0"];
    // Labels of another case: their checksum is published, and they are refused.
    let wrong = Reply::honest(&files[1].2);
    server.serve("/data/case_00000/segmentation.nii.gz", [wrong]);
    let (code, _, said) = data("fetch", &accept, folder.path());
    assert_eq!(code, 2);
    assert!(
        said.contains("case_00000/segmentation.nii.gz") && said.contains("sha256"),
        "{said}"
    );
    assert!(!folder.path().join("fed-kits19/case_00000/segmentation.nii.gz").exists());

    server.serve("/data/case_00000/segmentation.nii.gz", [Reply::honest(&files[0].2)]);
    let (code, fetched, said) = data("fetch", &accept, folder.path());
    assert_eq!(code, 0, "{fetched} {said}");
    assert_eq!(fetched["files_pinned_now"].as_u64(), Some(4));
    let (code, report, _) = data("verify", &[&name], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 8));
    let window = |site| format!("[preprocessing.sites.{site}]\nclip = [-60.0, 120.0]\nmean = 30.0\nstd = 50.0\n");
    let metrics = train(&manifest, folder.path(), &format!("{}{}", window("A"), window("B")));
    assert_eq!(metrics["weights"]["A"].as_f64(), Some(0.5));
}

#[test]
fn a_manifest_that_leads_out_of_its_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    for path in ["../outside.nii.gz", "/etc/passwd", "a/../../b", ""] {
        let (mut kits, _) = mini_kits(Vec::new());
        kits.cases[0].image = unknown(path);
        let name = write_manifest(&kits, folder.path()).display().to_string();
        let (code, _, said) = data("verify", &[&name], folder.path());
        assert_eq!(code, 2, "{path}");
        assert!(said.contains("leads out of"), "{said}");
    }
}

#[test]
fn data_sets_without_an_address_say_where_to_get_them() {
    let folder = TempDir::new().unwrap();
    let (code, _, said) = data("fetch", &["prostate-mri"], folder.path());
    assert_eq!(code, 2);
    assert!(
        said.contains("liuquande.github.io/SAML") && said.contains("data pin prostate-mri"),
        "{said}"
    );
}

/// Two sites in two of the layouts that people have; the seed alone decides the split.
#[test]
fn a_folder_of_ones_own_is_imported_and_trained_on() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own");
    for number in 0..5_u64 {
        let (image, labels) = pair(number, [14, 12, 4], SLICES_LAST, 1);
        put(&own.join(format!("North/p{number}.nii.gz")), &image);
        put(&own.join(format!("North/p{number}_mask.nii.gz")), &labels);
        let (image, labels) = pair(50 + number, [14, 12, 4], SLICES_LAST, 1);
        put(&own.join(format!("South/images/p{number}.nii.gz")), &image);
        put(&own.join(format!("South/labels/p{number}.nii.gz")), &labels);
    }
    let import = |seed: &str, extra: &[&str]| {
        let manifests = folder.path().join(format!("manifests-{seed}"));
        let mut command = flapsam();
        command.args([
            "data",
            "import",
            "--classes",
            "organ",
            "--test-share",
            "0.4",
            "--seed",
            seed,
            "--json",
        ]);
        command.args(extra).arg("--manifests").arg(&manifests).arg(&own);
        (command.output().unwrap(), manifests)
    };
    let (output, manifests) = import("1", &[]);
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (printed["train"].as_u64(), printed["test"].as_u64()),
        (Some(6), Some(4))
    );
    let table = |manifests: &Path| fs::read_to_string(manifests.join("own.csv")).unwrap();
    let first = table(&manifests);
    let again = import("1", &[]).0;
    assert!(String::from_utf8(again.stderr).unwrap().contains("--force"));
    assert_eq!(table(&import("1", &["--force"]).1), first);
    assert_ne!(table(&import("2", &[]).1), first);
    for site in ["North", "South"] {
        assert_eq!(
            first
                .lines()
                .filter(|line| line.contains(&format!(",{site},test,")))
                .count(),
            2
        );
    }
    let manifest = manifests.join("own.json");
    let (code, report, _) = data("verify", &[&manifest.display().to_string()], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 20));
    train(&manifest, folder.path(), "clip = [-100.0, 200.0]");

    // What does not fit is refused, with its path.
    let refused = |extra: &[&str]| {
        let output = import("3", &[extra, &["--force"]].concat()).0;
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let lonely = own.join("North/p9.nii.gz");
    put(&lonely, &pair(9, [14, 12, 4], SLICES_LAST, 1).0);
    assert!(refused(&[]).contains("p9.nii.gz: of its case 'p9' there are 1 scans and 0 masks"));
    assert!(import("3", &["--skip-unpaired"]).0.status.success());
    fs::remove_file(lonely).unwrap();
    put(
        &own.join("South/labels/p0.nii.gz"),
        &pair(9, [14, 12, 4], SLICES_LAST, 2).1,
    );
    assert!(refused(&[]).contains("p0.nii.gz: it holds the label 2, and 1 classes were named"));
    put(
        &own.join("South/labels/p0.nii.gz"),
        &pair(9, [14, 12, 5], SLICES_LAST, 1).1,
    );
    assert!(refused(&[]).contains("its shape"));
}

/// What a folder may hold that would make figures mean something else than they say.
#[test]
fn an_import_that_would_mislead_is_refused() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own");
    let file = |name: &str, bytes: &[u8]| put(&own.join(name), bytes);
    for number in 0..4_u64 {
        let (image, labels) = pair(number, [14, 12, 4], SLICES_LAST, 1);
        file(&format!("A/p{number}.nii.gz"), &image);
        file(&format!("A/p{number}_mask.nii.gz"), &labels);
    }
    let import = |classes: &str, more: &[&str]| {
        let mut command = flapsam();
        command
            .args(["data", "import", "--classes", classes, "--force", "--json"])
            .args(more);
        command
            .arg("--manifests")
            .arg(folder.path().join("manifests"))
            .arg(&own);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            serde_json::from_slice::<Value>(&output.stdout).ok(),
            said,
        )
    };
    for (classes, wanted) in [
        ("organ,organ", "named twice"),
        ("organ, Organ", "named twice"),
        ("background,organ", "named twice"),
        ("", "has no name"),
        ("organ,", "has no name"),
        ("organ,tumour", "no mask in it holds the label 2"),
    ] {
        let (code, _, said) = import(classes, &[]);
        assert!(code == Some(2) && said.contains(wanted), "{classes}: {said}");
    }
    // Links in circles, up and down, add nothing.
    for (link, target) in [("A/loop", "."), ("A/up", ".."), ("B", "A"), ("A/again", "../A")] {
        std::os::unix::fs::symlink(target, own.join(link)).unwrap();
    }
    // A folder outside is followed.
    let (image, labels) = pair(9, [14, 12, 4], SLICES_LAST, 1);
    put(&folder.path().join("elsewhere/q.nii.gz"), &image);
    put(&folder.path().join("elsewhere/q_mask.nii.gz"), &labels);
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), own.join("A/more")).unwrap();
    let (code, report, said) = import("organ", &[]);
    let report = report.unwrap();
    assert_eq!(
        (code, &report["train"], &report["test"]),
        (Some(0), &4.into(), &1.into()),
        "{said}"
    );

    // Nothing to judge is said.
    let (code, report, said) = import("organ", &["--test-share", "0"]);
    assert_eq!(
        (code, &report.unwrap()["sites_without_test"]),
        (Some(0), &serde_json::json!(["A"]))
    );
    assert!(said.contains("no case of site A is kept for testing"), "{said}");

    // Copies of one scan: whatever the split, some land on both sides.
    for number in 10..30 {
        file(&format!("A/p{number}.nii.gz"), &image);
        file(&format!("A/p{number}_mask.nii.gz"), &labels);
    }
    let (code, _, said) = import("organ", &[]);
    assert!(
        code == Some(2) && said.contains("are the same scan") && said.contains("A_p"),
        "{said}"
    );
}

/// Masks of many numbers: which make which class is said by name, and all else is background.
#[test]
fn an_import_says_which_labels_make_which_class() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own");
    for number in 0..4_u64 {
        let (image, labels) = pair(number, [14, 12, 4], SLICES_LAST, 1);
        let mut labels = Volume::from_nifti(&labels, None).unwrap();
        // A part of the organ has a number of its own, beyond a byte, and so has something else.
        let inside: Vec<usize> = (0..labels.voxels.len())
            .filter(|&place| labels.voxels[place] > 0.0)
            .collect();
        labels.voxels[inside[0]] = 1004.0;
        labels.voxels[inside[1]] = 3.0;
        labels.voxels[0] = 77.0;
        put(&own.join(format!("A/p{number}.nii.gz")), &image);
        put(&own.join(format!("A/p{number}_mask.nii.gz")), &labels.to_nifti_f32());
    }
    let manifests = folder.path().join("manifests");
    let import = |arguments: &[&str]| {
        let mut command = flapsam();
        command
            .args(["data", "import", "--force", "--manifests"])
            .arg(&manifests);
        let output = command.args(arguments).arg(&own).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, why) in [
        (
            &["--label-ids", "organ=1+9"][..],
            "no mask in it holds the label 9, which --label-ids names",
        ),
        (&["--label-ids", "organ=1+1"], "the label id 1 is named twice"),
        (&["--label-ids", "organ=1,tumour=3+1"], "the label id 1 is named twice"),
        (&["--label-ids", "organ=-1"], "'-1' is no label id"),
        (&["--label-ids", "organ=0"], "'0' is the background"),
        (&["--label-ids", "organ=x"], "'x' is no label id"),
        (&["--label-ids", "organ="], "'' is no label id"),
        (&["--label-ids", "organ"], "'organ' is no CLASS=ID+ID"),
        (&["--label-ids", "organ=1,organ=3"], "'organ' is named twice"),
        (&["--label-ids", "=1"], "has no name"),
        (
            &["--classes", "organ", "--label-ids", "tumour=3"],
            "'tumour' is none of --classes organ",
        ),
        (
            &["--classes", "organ,tumour", "--label-ids", "tumour=3"],
            "it has no ids of 'organ'",
        ),
        (&["--classes", "organ"], "labels are whole numbers from 0 to 255"),
        (&[], "--classes"),
    ] {
        let (code, said) = import(arguments);
        assert!(code == Some(2) && said.contains(why), "{arguments:?}: {said}");
    }
    // The order of --classes counts, or else the one of the ids.
    for arguments in [
        &["--classes", "organ,tumour", "--label-ids", "tumour=3,organ=1+1004"][..],
        &["--label-ids", "organ=1+1004,tumour=3"],
    ] {
        let (code, said) = import(arguments);
        assert_eq!(code, Some(0), "{said}");
        let made = Manifest::read(&manifests.join("own.json")).unwrap();
        assert_eq!(made.classes, ["background", "organ", "tumour"]);
        for case in &made.cases {
            let (_, labels) = read_pair(&own, case, 2, &Preprocessing::default()).unwrap();
            let voxels = |class: f32| labels.voxels.iter().filter(|&&label| label == class).count();
            // The block of 5 x 4 x 1 voxels, of which one is the other class.
            assert_eq!([voxels(1.0), voxels(2.0)], [19, 1]);
        }
    }
    let name = manifests.join("own.json").display().to_string();
    let (code, report, _) = data("verify", &[&name], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 8));
    train(&manifests.join("own.json"), folder.path(), "clip = [-100.0, 200.0]");

    // A table written by hand is held against the files as well, and against the classes.
    let (table, file) = (
        fs::read_to_string(manifests.join("own.csv")).unwrap(),
        manifests.join("own.csv"),
    );
    for (ids, code, why) in [
        ("1+1004 9", 1, "no case holds the label 9"),
        ("1+1004", 2, "are of 1 classes, and there are 2 (organ, tumour)"),
    ] {
        let document = fs::read_to_string(manifests.join("own.json")).unwrap();
        let other = table.replace("1+1004 3", ids);
        fs::write(&file, &other).unwrap();
        let old = made_of(&document);
        fs::write(
            manifests.join("own.json"),
            document.replace(&old, &sha256(other.as_bytes())),
        )
        .unwrap();
        let (found, report, said) = data("verify", &[&name], folder.path());
        assert!(
            found == code && format!("{report} {said}").contains(why),
            "{ids}: {report} {said}"
        );
        // Nor does a run take it.
        let config = folder.path().join("wrong.toml");
        fs::write(
            &config,
            experiment(&manifests.join("own.json"), "[local]\nbatch_stacks = 1", 1),
        )
        .unwrap();
        let mut command = flapsam();
        command.arg("run").arg(&config).arg("--data").arg(folder.path());
        let output = command.arg("--out").arg(folder.path().join("wrong")).assert().code(2);
        let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(said.contains("tumour"), "{said}");
    }
}

/// The checksum of the table that a manifest names.
fn made_of(document: &str) -> String {
    let document: Value = serde_json::from_str(document).unwrap();
    document["distribution"][0]["sha256"].as_str().unwrap().to_owned()
}

/// Imports a folder whose one class is an organ.
fn import_organ(own: &Path, manifests: &Path) -> assert_cmd::assert::Assert {
    let mut command = flapsam();
    command.args(["data", "import", "--classes", "organ", "--manifests"]);
    command.arg(manifests).arg(own).assert()
}

/// What a name may be, import and everyone after it agree on.
#[test]
fn odd_names_are_imported_and_trained_on() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("odd {case} *names [x], ü");
    for (site, place) in [
        ("A 10:30?", 0),
        ("St. John's, [old] #2", 10),
        ("Köln = within 50 %", 20),
    ] {
        for number in 0..2_u64 {
            let (image, labels) = pair(place + number, [14, 12, 4], SLICES_LAST, 1);
            let name = format!("{site}/pat {number}, [v1] 'é' {{case}} 50%*");
            put(&own.join(format!("{name}.nii.gz")), &image);
            put(&own.join(format!("{name}_mask.NII.GZ")), &labels);
        }
    }
    let manifests = folder.path().join("manifests");
    import_organ(&own, &manifests).success();
    let manifest = manifests.join(format!("{}.json", own.file_name().unwrap().to_str().unwrap()));
    let (code, report, said) = data("verify", &[&manifest.display().to_string()], folder.path());
    assert_eq!((code, count(&report, "right")), (0, 12), "{said}");
    let metrics = train(&manifest, folder.path(), "clip = [-100.0, 200.0]");
    assert_eq!(metrics["cases"].as_array().unwrap().len(), 3);

    // No file that a table names can have such a name.
    let unfit = folder.path().join("unfit/ A");
    let (image, labels) = pair(1, [14, 12, 4], SLICES_LAST, 1);
    put(&unfit.join("p.nii.gz"), &image);
    put(&unfit.join("p_mask.nii.gz"), &labels);
    let output = import_organ(&folder.path().join("unfit"), &manifests).code(2);
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("' A'") && said.contains("rename"), "{said}");
}

/// A case of fewer slices than lie between the stacks' centres has a stack all the same, whatever the seed.
#[test]
fn every_case_has_a_stack() {
    let folder = TempDir::new().unwrap();
    let own = folder.path().join("own");
    for (site, slices) in [("A", 8), ("B", 1)] {
        for number in 0..2_u64 {
            let (image, labels) = pair(10 * slices as u64 + number, [14, 12, slices], SLICES_LAST, 1);
            put(&own.join(format!("{site}/p{number}.nii.gz")), &image);
            put(&own.join(format!("{site}/p{number}_mask.nii.gz")), &labels);
        }
    }
    let manifests = folder.path().join("manifests");
    import_organ(&own, &manifests).success();
    for seed in 1..6 {
        let settings = format!(
            "[local]\nbatch_stacks = 2\nstack_stride = 5\naugment = {}",
            seed % 2 == 0
        );
        let run = run_seed(&manifests.join("own.json"), folder.path(), &settings, seed);
        let metrics = read_json(&run.path().join(format!("mini-{seed}/metrics.json")));
        let loss = metrics["rounds"][0]["loss"]["B"].as_f64().unwrap();
        assert!(loss > 0.0, "seed {seed}: {loss}");
    }
}

/// Ten times the cases, the same memory: were they kept, these would take 180 MB more.
#[test]
fn memory_does_not_grow_with_the_data() {
    let folder = TempDir::new().unwrap();
    let (image, labels) = pair(1, [128, 128, 40], SLICES_LAST, 1);
    put(&folder.path().join("fed-kits19/imaging.nii.gz"), &image);
    let (tested, _) = pair(2, [128, 128, 40], SLICES_LAST, 1);
    put(&folder.path().join("fed-kits19/tested.nii.gz"), &tested);
    put(&folder.path().join("fed-kits19/segmentation.nii.gz"), &labels);
    let peak = |count: usize| {
        let mut kits = manifest("fed-kits19");
        // Every case for training is the same pair of files, and still a case of its own.
        let case = |number: usize| Case {
            id: format!("case_{number}"),
            site: if number.is_multiple_of(2) {
                "A".into()
            } else {
                "B".into()
            },
            train: number > 1,
            slices: 40,
            image: unknown(if number > 1 { "imaging.nii.gz" } else { "tested.nii.gz" }),
            label: unknown("segmentation.nii.gz"),
            patient: None,
            crop: None,
            label_ids: None,
        };
        kits.cases = (0..count).map(case).collect();
        let manifest = write_manifest(&kits, &folder.path().join(format!("manifests-{count}")));
        let _ = fs::remove_file(folder.path().join("fed-kits19.lock.csv"));
        assert_eq!(data("pin", &[&manifest.display().to_string()], folder.path()).0, 0);
        let run = run(&manifest, folder.path(), "[local]\nbatch_stacks = 1\nstack_stride = 40");
        let timing = read_json(&run.path().join("mini-1/timing.json"));
        timing["peak_memory_bytes"].as_u64().unwrap()
    };
    let (few, many) = (peak(8), peak(62));
    println!("8 cases: {few} bytes, 62 cases: {many} bytes");
    assert!(many < few + (50 << 20), "8 cases: {few} bytes, 62 cases: {many} bytes");
}

/// sha256sum is what a user would type instead. Both read the same files from the page cache; ours reads several at a
/// time.
#[test]
fn hashing_keeps_up_with_sha256sum() {
    let folder = TempDir::new().unwrap();
    let (mut kits, _) = mini_kits(Vec::new());
    let mut random = flapsam_model::random::Random::new(1, "bytes");
    let block: Vec<u8> = (0..1 << 20).map(|_| random.below(256) as u8).collect();
    let mut files = Vec::new();
    for case in &mut kits.cases {
        for file in [&mut case.image, &mut case.label] {
            let mut bytes = Vec::with_capacity(64 << 20);
            (0..64).for_each(|_| bytes.extend_from_slice(&block));
            bytes[0] = files.len() as u8;
            *file = DataFile::write(&folder.path().join("fed-kits19"), file.path.clone(), &bytes).unwrap();
            files.push(folder.path().join("fed-kits19").join(&file.path));
        }
    }
    let name = write_manifest(&kits, &folder.path().join("manifests"));
    let fastest = |command: &mut Command| {
        let times = (0..3).map(|_| {
            let start = std::time::Instant::now();
            command.assert().success();
            start.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    };
    let theirs = fastest(Command::new("sha256sum").args(&files));
    let ours = fastest(
        flapsam()
            .args(["data", "verify"])
            .arg(&name)
            .arg("--data")
            .arg(folder.path()),
    );
    println!("512 MiB: flapsam {ours:.3} s, sha256sum {theirs:.3} s");
    // A tenth for the noise of a machine that runs other tests too.
    assert!(ours <= theirs * 1.1, "flapsam {ours:.3} s, sha256sum {theirs:.3} s");
}
