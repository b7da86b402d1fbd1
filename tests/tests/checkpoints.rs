//! Checkpoints in the forms in which people keep them: what is read is the network's weights, or a refusal that says why.

mod common;
mod mini;
mod seeds;

use std::fs;
use std::path::Path;

use common::fixture;
use flapsam::state_dict::read_state_dict;
use flapsam_model::checkpoint::{sha256, write_safetensors};
use flapsam_model::parameters::{Array, StateDict};
use seeds::packed;
use tempfile::TempDir;

fn wanted() -> StateDict {
    StateDict::from([
        (
            "image_encoder.a".to_owned(),
            Array::new([2, 3], vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5]),
        ),
        ("mask_decoder.b".to_owned(), Array::new([1], vec![-3.0])),
    ])
}

/// What is said of a file that is refused: the same every time.
fn refused(path: &Path) -> String {
    let said = read_state_dict(path).unwrap_err().to_string();
    for _ in 0..5 {
        assert_eq!(read_state_dict(path).unwrap_err().to_string(), said);
    }
    said
}

/// Of PyTorch, new and old: at the top or within something larger, in other types, beside what is no network's.
#[test]
fn weights_are_found_in_every_form() {
    for name in [
        "plain",
        "before-1.6",
        "under-state_dict",
        "under-model",
        "module",
        "f16",
        "bf16",
        "f64",
        "with-integers",
        "transposed",
    ] {
        let path = fixture("checkpoints").join(format!("{name}.pth"));
        let (state, digest) = read_state_dict(&path).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(state, wanted(), "{name}");
        assert_eq!(digest, sha256(&fs::read(&path).unwrap()), "{name}");
    }
}

/// As by zip programs; PyTorch itself packs nothing.
#[test]
fn packed_archives_are_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("packed.pth");
    for name in ["plain", "under-state_dict", "bf16", "transposed"] {
        let whole = fs::read(fixture("checkpoints").join(format!("{name}.pth"))).unwrap();
        let packed = packed(&whole);
        assert!(packed.len() < whole.len());
        fs::write(&path, &packed).unwrap();
        let (state, digest) = read_state_dict(&path).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((state, digest), (wanted(), sha256(&packed)), "{name}");
        // What was packed says how it was.
        let mut damaged = packed.clone();
        let place = damaged.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        damaged[place + 16] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(refused(&path).contains("cut off or damaged"), "{name}");
    }
}

#[test]
fn two_networks_in_one_file_are_refused() {
    let said = refused(&fixture("checkpoints/two-networks.pth"));
    assert!(said.contains("'model.', 'model_ema.'"), "{said}");
}

/// Wherever it ends, and with any one byte of it changed, a file is read as it was or refused: never a panic.
#[test]
fn damaged_files_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("damaged.pth");
    for name in ["plain", "before-1.6"] {
        let whole = fs::read(fixture("checkpoints").join(format!("{name}.pth"))).unwrap();
        for length in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(read_state_dict(&path).is_err(), "{length} bytes of {name}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let said = refused(&path);
        assert!(said.contains("cut off or damaged") || name == "before-1.6", "{said}");
        for place in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            fs::write(&path, &bytes).unwrap();
            let _ = read_state_dict(&path);
        }
    }
}

#[test]
fn other_files_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sam_vit_b_01ec64.pth");
    for (bytes, wanted) in [
        (
            &b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"[..],
            "git lfs pull",
        ),
        (b"<html><head><title>Sign in</title></head></html>", "log in"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"", "pass a .pth"),
    ] {
        fs::write(&path, bytes).unwrap();
        let said = refused(&path);
        assert!(said.contains(wanted) && said.contains("sam_vit_b"), "{said}");
    }
}

/// The first one in the order of names, and not the learning rate's fault.
#[test]
fn a_weight_that_is_no_number_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("nan.safetensors");
    let mut state = wanted();
    for key in ["mask_decoder.b", "image_encoder.z"] {
        state.insert(key.into(), Array::new([1], vec![f32::NAN]));
    }
    fs::write(&path, write_safetensors(&state, None)).unwrap();
    let said = refused(&path);
    assert!(
        said.contains("'image_encoder.z'") && !said.contains("base_lr"),
        "{said}"
    );
}
