//! Where the fuzzer starts: small files of each kind that its targets read, drawn or made of the project's own.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};

use flapsam::data::manifest::table;
use flapsam::experiment::Experiment;
use flapsam::experiment::across::{Brings, Enrolment, HandedIn, Order};
use flapsam::federation::envelope::{Agreement, seal};
use flapsam::federation::trace::{Mark, Moment};
use flapsam::federation::wire::{Precision, encode};
use flapsam::federation::{Epoch, Update};
use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::{EXPORT_KEY, sha256, write_safetensors, write_safetensors_f16};
use flapsam_model::config::{AdapterConfig, LoraInit};
use flapsam_model::method::Method;
use flapsam_model::parameters::{Array, StateDict, initialise};
use flapsam_model::preprocessing::{Preprocessing, Window};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use flapsam_model::segment::Scaling;
use flapsam_model::volume::{Packing, Volume};
use flapsam_tests::hostile::smallest_sam;
use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::common::{fixture, root};
use crate::mini::{SLICES_FIRST, SLICES_LAST, manifest, pair};

/// A file's name and content.
type Seed = (&'static str, Vec<u8>);

/// The files of a target.
pub fn of(target: &str) -> Vec<Seed> {
    match target {
        "scan" => scans(),
        "gzip" => gzips(),
        "pth" => pytorch(),
        "checkpoint" => checkpoints(),
        "adapter" => adapters(),
        "manifest" => manifests(),
        "table" => tables(),
        "experiment" => experiments(),
        "message" => messages(),
        "envelope" => envelopes(),
        "zip" => zips(),
        _ => Vec::new(),
    }
}

/// What a header says of space.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rows,
    Quaternion,
    Nothing,
}

/// A NIfTI file of bytes 0, 1, 2, .. as voxels, with an extension.
fn nifti(version_2: bool, big_endian: bool, dims: &[i64], (datatype, bits): (i16, i16), form: Form) -> Vec<u8> {
    let length = if version_2 { 540 } else { 348 };
    let mut bytes = vec![0; length];
    let mut put = |at: usize, little_endian: &[u8]| {
        let place = &mut bytes[at..at + little_endian.len()];
        place.copy_from_slice(little_endian);
        if big_endian {
            place.reverse();
        }
    };
    let number = |value: f64| match version_2 {
        true => value.to_le_bytes().to_vec(),
        false => (value as f32).to_le_bytes().to_vec(),
    };
    let whole = |value: i64| match version_2 {
        true => value.to_le_bytes().to_vec(),
        false => (value as i16).to_le_bytes().to_vec(),
    };
    let code = |value: i16| match version_2 {
        true => i32::from(value).to_le_bytes().to_vec(),
        false => value.to_le_bytes().to_vec(),
    };
    put(0, &(length as i32).to_le_bytes());
    let (types, sides, distances, slope, forms, quaternion, rows) = match version_2 {
        true => (12, 16, 104, 176, [344, 348], 352, 400),
        false => (70, 40, 76, 112, [252, 254], 256, 280),
    };
    let (wide, side) = if version_2 { (8, 8) } else { (4, 2) };
    put(types, &datatype.to_le_bytes());
    put(types + 2, &bits.to_le_bytes());
    put(sides, &whole(dims.len() as i64));
    for (axis, &dim) in dims.iter().enumerate() {
        put(sides + side * (axis + 1), &whole(dim));
        put(distances + wide * (axis + 1), &number(0.5 + axis as f64));
    }
    put(distances, &number(1.0));
    put(slope, &number(2.0));
    put(slope + wide, &number(-1.0));
    put(forms[0], &code(i16::from(form == Form::Quaternion)));
    put(forms[1], &code(i16::from(form == Form::Rows)));
    put(quaternion, &number(0.5));
    for place in 0..3 {
        put(rows + wide * 5 * place, &number(-1.5));
    }
    let offset = length as i64 + 4 + 16;
    match version_2 {
        true => put(168, &offset.to_le_bytes()),
        false => put(108, &(offset as f32).to_le_bytes()),
    }
    let extension: [[u8; 4]; 5] = match big_endian {
        true => [
            [1, 0, 0, 0],
            16i32.to_be_bytes(),
            6i32.to_be_bytes(),
            *b"note",
            *b"\0\0\0\0",
        ],
        false => [
            [1, 0, 0, 0],
            16i32.to_le_bytes(),
            6i32.to_le_bytes(),
            *b"note",
            *b"\0\0\0\0",
        ],
    };
    match version_2 {
        true => bytes[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n"),
        false => bytes[344..348].copy_from_slice(b"n+1\0"),
    }
    bytes[if version_2 { 500 } else { 123 }] = 2;
    bytes.extend(extension.as_flattened());
    let count = dims.iter().product::<i64>() * i64::from(bits) / 8;
    bytes.extend((0..count).map(|value| value as u8));
    bytes
}

fn scans() -> Vec<Seed> {
    let ours = Volume::new([3, 2, 2], vec![0.0; 12], SLICES_FIRST);
    vec![
        (
            "ours",
            ours.mask_to_nifti(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], Packing::Plain),
        ),
        ("floats", nifti(false, false, &[3, 2, 2], (16, 32), Form::Rows)),
        ("shorts", nifti(false, true, &[3, 2, 2], (4, 16), Form::Quaternion)),
        ("bytes", nifti(false, false, &[4, 3], (2, 8), Form::Nothing)),
        ("series", nifti(false, false, &[2, 2, 2, 3], (512, 16), Form::Rows)),
        ("nifti-2", nifti(true, false, &[3, 2, 2], (64, 64), Form::Rows)),
        (
            "nifti-2-shorts",
            nifti(true, true, &[2, 2, 3, 1, 1], (4, 16), Form::Quaternion),
        ),
    ]
}

fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzips() -> Vec<Seed> {
    let (scan, labels) = pair(1, [5, 4, 3], SLICES_LAST, 2);
    let plain = nifti(false, false, &[3, 2, 2], (16, 32), Form::Rows);
    let (head, tail) = plain.split_at(200);
    let followed = [gzip(&plain, 9), vec![0; 40]].concat();
    vec![
        ("scan", scan),
        ("labels", labels),
        ("stored", gzip(&plain, 0)),
        ("two-members", [gzip(head, 6), gzip(tail, 6)].concat()),
        ("followed-by-zeros", followed),
        ("gzip-in-gzip", gzip(&gzip(&plain, 6), 6)),
        (
            "nifti-2",
            gzip(&nifti(true, true, &[3, 2, 2], (8, 32), Form::Nothing), 6),
        ),
    ]
}

fn state() -> StateDict {
    let mut random = Random::new(1, "seeds");
    let mut values = |count| (0..count).map(|_| random.normal() as f32).collect();
    StateDict::from([
        ("image_encoder.a".to_owned(), Array::new([2, 3], values(6))),
        ("mask_decoder.b".to_owned(), Array::new([1], values(1))),
    ])
}

/// An archive's entries once more, packed.
pub fn packed(archive: &[u8]) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
    let entries = (0..archive.len()).map(|index| {
        let mut entry = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.name().unwrap().into_owned(), content)
    });
    let entries: Vec<(String, Vec<u8>)> = entries.collect();
    zipped(CompressionMethod::Deflated, &entries)
}

/// An archive of these entries.
pub fn zipped(method: CompressionMethod, entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        match name.ends_with('/') {
            true => writer.add_directory(name, options).unwrap(),
            false => {
                writer.start_file(name, options).unwrap();
                writer.write_all(content).unwrap();
            }
        }
    }
    writer.finish().unwrap().into_inner()
}

fn pytorch() -> Vec<Seed> {
    let read = |name: &str| fs::read(fixture("checkpoints").join(format!("{name}.pth"))).unwrap();
    vec![
        ("plain", read("plain")),
        ("packed", packed(&read("transposed"))),
        ("before-1.6", read("before-1.6")),
        ("under-model", read("under-model")),
        ("half", read("f16")),
        (
            "bare-pickle",
            b"\x80\x02}q\0(X\x01\0\0\0aq\x01K\x01X\x01\0\0\0bq\x02](K\x02K\x03eu.".to_vec(),
        ),
    ]
}

fn checkpoints() -> Vec<Seed> {
    let wrapped = state()
        .into_iter()
        .map(|(key, array)| (format!("model.{key}"), array))
        .collect();
    let note = r#"{"format": "base-f16", "base_sha256": "00"}"#;
    let whole = initialise(&Sam::layout(&smallest_sam(), None).unwrap(), 1);
    vec![
        ("two-weights", write_safetensors(&state(), None)),
        ("wrapped", write_safetensors(&wrapped, Some(("format", "pt".into())))),
        (
            "exported",
            write_safetensors_f16(&state(), Some((EXPORT_KEY, note.into()))).unwrap(),
        ),
        ("whole", write_safetensors_f16(&whole, None).unwrap()),
    ]
}

fn adapters() -> Vec<Seed> {
    let made = |method: Method, adapter: AdapterConfig, preprocessing: Preprocessing| {
        let layout = Sam::layout(&smallest_sam(), Some(&adapter)).unwrap();
        let trained = method.trained(&layout);
        let mut state = initialise(&layout, 1);
        state.retain(|key, _| trained.contains(key));
        let classes = (0..=adapter.num_classes).map(|class| format!("class {class}"));
        let metadata = AdapterMetadata {
            method,
            sam: smallest_sam(),
            classes: classes.collect(),
            adapter,
            preprocessing,
            base_sha256: "00".into(),
            seed: 1,
        };
        Adapter { metadata, state }.to_bytes()
    };
    let window = Window {
        clip: [-66.0, 208.0],
        mean: 100.0,
        std: 50.0,
    };
    let by_site = Preprocessing {
        resample: Some([3, 2, 2]),
        clip: Some([-100.0, 300.0]),
        sites: BTreeMap::from([("A".to_owned(), window)]),
        scaling: Scaling::Stack,
        ..Preprocessing::default()
    };
    let percentile = Preprocessing {
        clip_percentile: Some(99.0),
        ..Preprocessing::default()
    };
    let several = AdapterConfig {
        num_lora: 2,
        dora: true,
        train_magnitude: true,
        lora_init: LoraInit::Reference,
        ..AdapterConfig::lora(2, 1)
    };
    vec![
        ("pairs", made(Method::LoraFt, AdapterConfig::lora(1, 1), percentile)),
        ("several-pairs", made(Method::LoraFt, several, by_site)),
        (
            "heads",
            made(
                Method::PartialDecoderFt,
                AdapterConfig::lora(1, 1).without_lora(),
                Preprocessing::default(),
            ),
        ),
    ]
}

fn manifests() -> Vec<Seed> {
    let of = |name: &str, cases: usize| {
        let mut manifest = manifest(name);
        manifest.cases.truncate(cases);
        manifest.to_files().0.into_bytes()
    };
    vec![
        ("made-here", of("phantom", 1)),
        ("fetched", of("prostate-mri", 1)),
        ("files-only", of("sam-checkpoints", 0)),
    ]
}

fn tables() -> Vec<Seed> {
    let of = |name: &str| {
        let cases = manifest(name).cases;
        let few: Vec<_> = cases.iter().filter(|case| case.train).take(2).cloned().collect();
        let tests = cases.iter().filter(|case| !case.train).take(1).cloned();
        table(&few.into_iter().chain(tests).collect::<Vec<_>>()).into_bytes()
    };
    let quoted = table(&manifest("phantom").cases[..1]).replace("case_00000,", "\"a \"\"b\"\", c\",");
    vec![
        ("with-checksums", of("phantom")),
        ("with-patterns", of("prostate-mri")),
        ("from-addresses", of("fed-kits19")),
        ("quoted", quoted.into_bytes()),
    ]
}

fn experiments() -> Vec<Seed> {
    let of = |path: &str| {
        Experiment::read(&root().join("golden").join(path))
            .unwrap()
            .resolved
            .into_bytes()
    };
    vec![
        ("by-site", of("fed-kits19/methods/flap_sam.toml")),
        ("resampled", of("fed-ixi/variants/fedprox.toml")),
        ("server-adam", of("phantom/variants/fedadam.toml")),
        ("as-int8", of("phantom/variants/sent_as_int8.toml")),
        ("two-loras", of("phantom/variants/two_loras.toml")),
        ("pooled", of("phantom/variants/pooled.toml")),
    ]
}

fn messages() -> Vec<Seed> {
    vec![
        ("f32", encode(&state(), Precision::F32)),
        ("f16", encode(&state(), Precision::F16)),
        ("int8", encode(&state(), Precision::Int8)),
    ]
}

fn envelopes() -> Vec<Seed> {
    let agreement = Agreement {
        program: "flapsam 0.1.0".into(),
        sources: sha256(b"sources"),
        base: sha256(b"base"),
        settings: sha256(b"settings"),
    };
    let enrolment = Enrolment {
        site: "A".into(),
        slices: vec![30, 41],
        device: "the CPU".into(),
        agreement: agreement.clone(),
        settings: "rank = 2".into(),
    };
    let order = Order {
        agreement: agreement.clone(),
        round: 2,
        brings: Brings::LastRound,
        share: None,
    };
    let update = Update {
        round: 2,
        site: "A".into(),
        message: Vec::new(),
        squares: [1e-6, 2.0],
        epoch: Epoch {
            loss: 0.25,
            seconds: 3.0,
            waiting: 0.0,
            marks: vec![Mark::of_message(2, "A", Moment::Step(1), b"step")],
        },
    };
    let handed_in = HandedIn {
        agreement,
        order: sha256(b"order"),
        update,
    };
    vec![
        (
            "enrolment",
            seal(&enrolment, &encode(&StateDict::new(), Precision::F32)),
        ),
        ("order", seal(&order, &encode(&state(), Precision::F32))),
        ("update", seal(&handed_in, &encode(&state(), Precision::Int8))),
    ]
}

fn zips() -> Vec<Seed> {
    let entry = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
    let nested = [
        entry("set/", b""),
        entry("set/A/", b""),
        entry("set/A/case.nii.gz", &[7; 300]),
        entry("set/A/case_mask.nii.gz", &[0; 300]),
        entry("README", b"two files"),
    ];
    let hostile = [
        entry("a", b"1"),
        entry("../b", b"2"),
        entry("c/../../d", b"3"),
        entry("/e", b"4"),
    ];
    vec![
        ("packed", zipped(CompressionMethod::Deflated, &nested)),
        ("stored", zipped(CompressionMethod::Stored, &nested)),
        ("leads-out", zipped(CompressionMethod::Stored, &hostile)),
        ("empty", zipped(CompressionMethod::Stored, &[])),
    ]
}
