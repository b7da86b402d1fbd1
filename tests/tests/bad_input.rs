//! Whatever a user passes, the program answers with a sentence, exit code 2, and no half-written file.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{flapsam, root};
use flapsam_model::volume::Volume;
use micro::{data, experiment};
use tempfile::TempDir;

/// An adapter of a micro run, made once.
fn adapter() -> &'static Path {
    static ADAPTER: OnceLock<PathBuf> = OnceLock::new();
    ADAPTER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("adapter-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let config = experiment(&folder, |text| text.replace("rounds = 2", "rounds = 1"));
        micro::run(&config, &folder, "2").join("adapter.safetensors")
    })
}

fn base() -> PathBuf {
    root().join("golden/nano.safetensors")
}

/// Runs `segment`, expects a refusal, and returns what it said.
fn refused(scan: &Path, adapter: &Path, base: &Path, out: &Path) -> String {
    let mut command = flapsam();
    command
        .arg("segment")
        .arg(scan)
        .arg("--adapter")
        .arg(adapter)
        .arg("--base")
        .arg(base);
    let assert = command.args(["--device", "cpu", "-o"]).arg(out).assert().code(2);
    let stderr = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        stderr.starts_with("flapsam: ") && !stderr.contains("panicked"),
        "{stderr}"
    );
    assert!(!out.exists(), "no mask is left behind");
    stderr
}

/// Runs an experiment, expects a refusal, and returns what it said.
fn refused_run(config: &Path, out: &Path) -> String {
    let mut command = flapsam();
    command
        .arg("run")
        .arg(config)
        .arg("--data")
        .arg(data())
        .arg("--out")
        .arg(out);
    let assert = command.assert().code(2);
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

/// Refuses a scan of these bytes, naming its path.
fn refused_scan(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let scan = folder.path().join("scan.nii.gz");
    fs::write(&scan, bytes).unwrap();
    let said = refused(&scan, adapter(), &base(), &folder.path().join("mask.nii.gz"));
    assert!(said.contains("scan.nii.gz"), "{said}");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else is left behind"
    );
    said
}

fn phantom_scan() -> Vec<u8> {
    fs::read(data().join("phantom/case_00000/imaging.nii.gz")).unwrap()
}

/// A plain NIfTI-1 of 2 x 2 x 2 floats.
fn float_scan(value: f32) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    bytes[0..4].copy_from_slice(&348i32.to_le_bytes());
    for (axis, dim) in [3i16, 2, 2, 2, 1, 1, 1, 1].into_iter().enumerate() {
        bytes[40 + 2 * axis..42 + 2 * axis].copy_from_slice(&dim.to_le_bytes());
        bytes[76 + 4 * axis..80 + 4 * axis].copy_from_slice(&1f32.to_le_bytes());
    }
    bytes[70..72].copy_from_slice(&16i16.to_le_bytes());
    bytes[72..74].copy_from_slice(&32i16.to_le_bytes());
    bytes[108..112].copy_from_slice(&352f32.to_le_bytes());
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend([value; 8].into_iter().flat_map(f32::to_le_bytes));
    bytes
}

#[test]
fn a_truncated_gzip() {
    let whole = phantom_scan();
    let said = refused_scan(&whole[..whole.len() / 2]);
    assert!(said.contains("cut off") && said.contains("again"), "{said}");
}

#[test]
fn absurd_dimensions() {
    let mut bytes = float_scan(1.0);
    for axis in 1..4 {
        bytes[40 + 2 * axis..42 + 2 * axis].copy_from_slice(&32_000i16.to_le_bytes());
    }
    let said = refused_scan(&bytes);
    assert!(said.contains("absurd dimensions"), "{said}");
}

#[test]
fn voxels_that_are_no_numbers() {
    let said = refused_scan(&float_scan(f32::NAN));
    assert!(said.contains("NaN") && said.contains("replace"), "{said}");
}

#[test]
fn not_a_nifti_file() {
    let said = refused_scan(&[7; 1000]);
    assert!(said.contains("NIfTI"), "{said}");
}

#[test]
fn a_missing_scan() {
    let folder = TempDir::new().unwrap();
    let said = refused(
        &folder.path().join("no.nii"),
        adapter(),
        &base(),
        &folder.path().join("mask.nii.gz"),
    );
    assert!(said.contains("no.nii") && said.contains("check the path"), "{said}");
}

#[test]
fn an_adapter_for_another_base() {
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("other.safetensors");
    let mut bytes = fs::read(base()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&other, bytes).unwrap();
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    let said = refused(&scan, adapter(), &other, &folder.path().join("mask.nii.gz"));
    assert!(said.contains("made for the base checkpoint"), "{said}");
}

#[test]
fn a_checkpoint_with_a_missing_key() {
    let folder = TempDir::new().unwrap();
    let (mut state, _) = flapsam_model::checkpoint::read_safetensors(&fs::read(base()).unwrap()).unwrap();
    state.remove("image_encoder.neck.0.weight").unwrap();
    let lame = folder.path().join("lame.safetensors");
    fs::write(&lame, flapsam_model::checkpoint::write_safetensors(&state, None)).unwrap();
    let base = base().display().to_string();
    let config = experiment(folder.path(), |text| text.replace(&base, "lame.safetensors"));
    let said = refused_run(&config, &folder.path().join("out"));
    assert!(
        said.contains("lame.safetensors") && said.contains("image_encoder.neck.0.weight"),
        "{said}"
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_mask_of_another_shape() {
    let folder = TempDir::new().unwrap();
    // The phantom's table with the first case's label replaced by another site's, checksum and all.
    let table = fs::read_to_string(root().join("data-manifests/phantom.csv")).unwrap();
    let row = |id: &str| table.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    let (first, other) = (row("case_00000"), row("case_00014"));
    let fields = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (mut mixed, other) = (fields(&first), fields(&other));
    mixed[6..].clone_from_slice(&other[6..]);
    let table = table.replace(&first, &mixed.join(","));
    let document = fs::read_to_string(root().join("data-manifests/phantom.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&document).unwrap();
    document["distribution"][0]["sha256"] = flapsam_model::checkpoint::sha256(table.as_bytes()).into();
    fs::write(folder.path().join("phantom.csv"), table).unwrap();
    fs::write(folder.path().join("phantom.json"), document.to_string()).unwrap();
    let manifest = root().join("data-manifests/phantom.json").display().to_string();
    let config = experiment(folder.path(), |text| text.replace(&manifest, "phantom.json"));
    let said = refused_run(&config, &folder.path().join("out"));
    assert!(
        said.contains("case_00014/segmentation.nii.gz") && said.contains("shape"),
        "{said}"
    );
}

#[test]
fn an_unknown_device() {
    let assert = flapsam().args(["parity", "x", "--device", "tpu"]).assert().code(2);
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(said.contains("tpu") && said.contains("cpu, wgpu, auto"), "{said}");
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text.replace("rounds = 2", "round = 2"));
    let assert = flapsam().arg("run").arg(config).assert().code(2);
    let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    assert!(
        said.contains("'round'") && said.contains("did you mean 'rounds'"),
        "{said}"
    );
}

#[test]
fn a_surface_tolerance_that_is_no_length() {
    for tolerance in ["-1.0", "nan", "inf"] {
        let folder = TempDir::new().unwrap();
        let key = format!("rank = 4\nsurface_tolerance_mm = {tolerance}");
        let config = experiment(folder.path(), |text| text.replace("rank = 4", &key));
        let assert = flapsam().arg("run").arg(config).assert().code(2);
        let said = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(
            said.contains("'surface_tolerance_mm'") && said.contains("0 or more"),
            "{said}"
        );
    }
}

#[test]
fn an_output_folder_that_cannot_be_written() {
    // Root may write anywhere, so the obstacle is a file where a folder should be.
    let folder = TempDir::new().unwrap();
    let obstacle = folder.path().join("file");
    fs::write(&obstacle, "in the way").unwrap();
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    let said = refused(&scan, adapter(), &base(), &obstacle.join("mask.nii.gz"));
    assert!(said.contains("file"), "{said}");
    let config = experiment(folder.path(), |text| text);
    refused_run(&config, &obstacle.join("runs"));
}

/// As of `flapsam data list | head -1`.
#[test]
fn a_reader_that_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(flapsam().get_program());
    let output = command.args(["data", "list"]).current_dir(root()).stdout(writer);
    let output = output.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_full_disk() {
    // Every write to /dev/full fails for want of space, and so does creating a file in it; a real full disk is a tiny
    // file system, which only root may mount.
    let folder = TempDir::new().unwrap();
    let mount = folder.path().join("tiny");
    fs::create_dir(&mount).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
        .arg(&mount)
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: a tiny file system cannot be mounted here");
        return;
    }
    let said = std::panic::catch_unwind(|| {
        let scan = data().join("phantom/case_00000/imaging.nii.gz");
        fs::write(mount.join("filler"), [1; 4096]).ok();
        refused(&scan, adapter(), &base(), &mount.join("mask.nii.gz"))
    });
    let left = fs::read_dir(&mount).unwrap().count();
    std::process::Command::new("umount").arg(&mount).status().unwrap();
    let said = said.unwrap();
    assert!(said.contains("mask.nii.gz") && said.contains("space"), "{said}");
    assert_eq!(left, 1, "only the filler is left");
}

#[test]
fn volumes_of_our_own_read_back() {
    let scan = Volume::from_nifti(&phantom_scan(), None).unwrap();
    assert!(scan.check_finite().is_ok());
}
