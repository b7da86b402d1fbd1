//! Exported networks: the reference's names, weights with LoRA folded in, and a base in half precision.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::assert::Assert;
use common::{fixture, flapsam, python, root, shared};
use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::burn::tensor::{Device, Tensor, TensorData};
use flapsam_model::checkpoint::{read_safetensors, sha256, write_safetensors};
use flapsam_model::config::{AdapterConfig, LoraInit, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::{Parameters, StateDict, to_vec};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use micro::experiment;
use serde_json::Value;
use tempfile::TempDir;

/// An adapter, its base, and what was exported of both.
struct Exported {
    metadata: AdapterMetadata,
    base: PathBuf,
    flap_sam: PathBuf,
    merged: PathBuf,
}

impl Exported {
    /// `run` is a run's folder or an adapter; the files go into `folder`.
    fn new(run: &Path, base: PathBuf, folder: &Path) -> Self {
        let (flap_sam, merged) = (folder.join("flap-sam.safetensors"), folder.join("merged.safetensors"));
        export(Some(run), "flap-sam", &base, &flap_sam).success();
        export(Some(run), "merged", &base, &merged).success();
        let adapter = if run.is_dir() {
            run.join("adapter.safetensors")
        } else {
            run.into()
        };
        Self {
            metadata: Adapter::from_bytes(&fs::read(adapter).unwrap()).unwrap().metadata,
            base,
            flap_sam,
            merged,
        }
    }

    fn logits(&self, state: StateDict, adapter: &AdapterConfig) -> Vec<f32> {
        let (sam, device) = (&self.metadata.sam, Device::flex());
        let side = sam.image_size;
        let mut random = Random::new(1, "slices");
        let slices = (0..2 * 3 * side * side).map(|_| random.uniform(0.0, 1.0) as f32);
        let slices = Tensor::from_data(TensorData::new(slices.collect(), [2, 3, side, side]), &device);
        let network = Sam::new(sam, Some(adapter), &Parameters::new(&state, &device)).unwrap();
        to_vec(network.logits(slices))
    }
}

fn export(run: Option<&Path>, format: &str, base: &Path, out: &Path) -> Assert {
    let mut command = flapsam();
    command.arg("export").args(run).args(["--format", format]);
    command.arg("--base").arg(base).arg("-o").arg(out).assert()
}

fn tensors(file: &Path) -> StateDict {
    read_safetensors(&fs::read(file).unwrap()).unwrap().0
}

fn nano() -> PathBuf {
    root().join("golden/nano.safetensors")
}

/// The largest difference, as a share of the largest value.
fn apart(got: &[f32], want: &[f32]) -> f32 {
    let largest = want.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let differences = got.iter().zip(want).map(|(got, want)| (got - want).abs());
    differences.fold(0.0, f32::max) / largest
}

/// Each weight times `1 - e`, `1` or `1 + e`, where `e` is the rounding unit of f32.
fn move_last_bits(mut state: StateDict, repetition: u64) -> StateDict {
    for (key, array) in &mut state {
        let mut random = Random::new(repetition, key);
        let step = |value: &mut f32| *value *= 1.0 + f32::EPSILON * (random.below(3) as f32 - 1.0);
        array.values.iter_mut().for_each(step);
    }
    state
}

/// A run of seconds.
fn run(folder: &Path) -> PathBuf {
    micro::run(&experiment(folder, |text| text), folder, "2")
}

/// The official network that the reference cases with exports adapt: their configuration is the same.
fn official() -> PathBuf {
    fixture("parity/dora/sam.safetensors")
}

/// The adapter in a reference case, as flapsam would have saved it.
fn adapter_of_case(case: &str, folder: &Path) -> PathBuf {
    let file = |name: &str| fixture("parity").join(case).join(name);
    let meta: Value = serde_json::from_slice(&fs::read(file("meta.json")).unwrap()).unwrap();
    let sam: SamConfig = serde_json::from_value(meta["config"].clone()).unwrap();
    let adapter = AdapterConfig {
        num_classes: meta["num_classes"].as_u64().unwrap() as usize,
        rank: meta["rank"].as_u64().unwrap() as usize,
        num_lora: meta["num_lora"].as_u64().unwrap() as usize,
        dora: meta["dora"].as_bool().unwrap(),
        train_magnitude: false,
        lora_scale: meta["lora_scale"].as_f64().unwrap(),
        lora_init: LoraInit::Reference,
    };
    let method = Method::LoraDecoderFt;
    let trained = method.trained(&Sam::layout(&sam, Some(&adapter)).unwrap());
    let mut state = tensors(&file("flap.safetensors"));
    state.retain(|key, _| trained.contains(key));
    let metadata = AdapterMetadata {
        method,
        sam,
        adapter,
        classes: ["background", "kidney", "tumour"].map(String::from).into(),
        preprocessing: Preprocessing::default(),
        base_sha256: sha256(&fs::read(official()).unwrap()),
        seed: 1,
    };
    let path = folder.join("adapter.safetensors");
    fs::write(&path, Adapter { metadata, state }.to_bytes()).unwrap();
    path
}

/// A micro run, two LoRAs and DoRA: the merged network computes what the adapted one does, and numpy agrees.
#[test]
fn networks_are_exported_under_the_references_names_and_merged() {
    let folder = TempDir::new().unwrap();
    let mut exports = vec![Exported::new(&run(folder.path()), nano(), folder.path())];
    for case in ["two-lora", "dora"] {
        let folder = folder.path().join(case);
        fs::create_dir(&folder).unwrap();
        exports.push(Exported::new(&adapter_of_case(case, &folder), official(), &folder));
    }
    for export in &exports {
        let adapter = &export.metadata.adapter;
        let adapted = export.logits(tensors(&export.flap_sam), adapter);
        let merged = export.logits(tensors(&export.merged), &adapter.without_lora());
        let difference = apart(&merged, &adapted);
        let rounding = (1..=5).map(|repetition| {
            let moved = move_last_bits(tensors(&export.flap_sam), repetition);
            apart(&export.logits(moved, adapter), &adapted)
        });
        let rounding = rounding.fold(0.0, f32::max);
        let name = export.merged.display();
        println!("{name}: logits apart by {difference:e} of the largest, rounding {rounding:e}");
        // The reference cases' channel norms over two channels magnify rounding past 1e-5: no f32 computation of their
        // logits is nearer to another than what the last bits of the weights move.
        assert!(
            difference < rounding.max(1e-5),
            "{name}: {difference}, rounding {rounding}"
        );
    }
    numpy_agrees(&exports);
}

/// Names and shapes are the reference's, and merged weights are those that numpy computes.
fn numpy_agrees(exports: &[Exported]) {
    let Some(python) = python() else {
        return;
    };
    let mut cases: Vec<PathBuf> = ["two-lora", "dora"].map(|case| fixture("parity").join(case)).into();
    if let Some(parity) = shared("parity") {
        cases.extend(["one-class", "resized", "same-size"].map(|case| parity.join(case)));
    }
    let cases: Vec<String> = cases.iter().map(|case| case.display().to_string()).collect();
    let mut command = Command::new(python);
    command.arg(root().join("tests/python/export.py")).arg(cases.join(","));
    for export in exports {
        let files = [&export.base, &export.flap_sam, &export.merged];
        command.arg(files.map(|file| file.display().to_string()).join("="));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    println!("{lines}");
    assert_eq!(lines.lines().count(), exports.len());
    for line in lines.lines() {
        let found: Value = serde_json::from_str(line).unwrap();
        assert!(found["furthest"].as_f64().unwrap() < 1e-5, "{line}");
        assert!(
            found["moved"].as_f64().unwrap() > 1e-3,
            "merging changed nothing: {line}"
        );
    }
}

#[test]
fn a_base_is_halved_and_keeps_its_values() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("base.safetensors");
    let checkpoint = fixture("parity/dora/sam.pth");
    let report = export(None, "base-f16", &checkpoint, &out).success();
    let report = String::from_utf8(report.get_output().stdout.clone()).unwrap();
    let (whole, half) = (official(), fs::read(&out).unwrap());
    assert!(report.contains(&sha256(&half)), "{report}");
    let values = |state: &StateDict| state.values().map(|array| array.values.len()).sum::<usize>();
    let (want, got) = (tensors(&whole), tensors(&out));
    assert!(half.len() < 2 * values(&want) + 32_000, "{} bytes", half.len());
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (key, want) in &want {
        // Half of the last bit of eleven, and what is too small for any.
        let near = |(want, got): (&f32, &f32)| (want - got).abs() <= want.abs() / 2048.0 + 3e-8;
        assert_eq!(want.shape, got[key].shape);
        assert!(want.values.iter().zip(&got[key].values).all(near), "{key}");
    }
    let (_, notes) = read_safetensors(&half).unwrap();
    let note: Value = serde_json::from_str(&notes["flapsam_export"]).unwrap();
    assert_eq!(note["format"], "base-f16");
    assert_eq!(note["base_sha256"], sha256(&fs::read(checkpoint).unwrap()));
    assert_eq!(note["adapter"], Value::Null);
}

/// Refused with exit code 2 and a sentence of these words; nothing is written.
fn refused(ended: Assert, out: &Path, words: &[&str]) {
    let ended = ended.code(2);
    let message = String::from_utf8(ended.get_output().stderr.clone()).unwrap();
    for word in words {
        assert!(message.contains(word), "no '{word}' in: {message}");
    }
    assert!(!out.exists());
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.safetensors");
    let adapter = adapter_of_case("dora", folder.path());
    for format in ["flap-sam", "merged", "base-f16"] {
        let ended = export(Some(&adapter), format, &nano(), &out);
        refused(
            ended,
            &out,
            &["adapter.safetensors", &sha256(&fs::read(nano()).unwrap())],
        );
    }
    refused(export(None, "merged", &nano(), &out), &out, &["RUN"]);

    let base = folder.path().join("large.safetensors");
    let mut state = tensors(&official());
    let key = "image_encoder.neck.1.bias";
    state.get_mut(key).unwrap().values[3] = 65_520.0;
    fs::write(&base, write_safetensors(&state, None)).unwrap();
    refused(
        export(None, "base-f16", &base, &out),
        &out,
        &["large.safetensors", key, "65520"],
    );

    let runs = folder.path().join("alone");
    fs::create_dir(&runs).unwrap();
    refused(
        export(Some(&runs), "merged", &nano(), &out),
        &out,
        &["alone", "adapter.safetensors"],
    );
    for site in ["A", "B"] {
        fs::copy(&adapter, runs.join(format!("adapter-{site}.safetensors"))).unwrap();
    }
    let words = ["alone", "adapter-A.safetensors", "adapter-B.safetensors"];
    refused(export(Some(&runs), "merged", &nano(), &out), &out, &words);
}
