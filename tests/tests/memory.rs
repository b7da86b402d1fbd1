//! Memory is judged before it is taken, whatever a file claims: what is taken is measured here.

mod common;
mod mini;
mod seeds;

use std::path::Path;
use std::time::{Duration, Instant};

use common::fixture;
use flapsam::state_dict::{self, pickle::memory as pickle_memory};
use flapsam_model::adapter::Adapter;
use flapsam_model::checkpoint::write_safetensors;
use flapsam_model::config::{EncoderConfig, SamConfig, VitConfig};
use flapsam_model::memory::{Content, host, resampling};
use flapsam_model::parameters::StateDict;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Volume;
use flapsam_tests::counted::{Counted, peak};
use flapsam_tests::hostile::smallest_sam;
use seeds::zipped;
use serde_json::json;
use zip::CompressionMethod::{Deflated, Stored};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MEBIBYTE: usize = 1 << 20;

/// What is said of a checkpoint, and how much memory that took.
fn said_of_checkpoint(bytes: &[u8]) -> (String, usize) {
    let (state, memory) = peak(|| state_dict::checkpoint(Path::new("bytes.pth"), bytes).map(|read| read.state));
    (state.map_or_else(|why| why.to_string(), |_| "nothing".into()), memory)
}

/// An archive whose table of contents says of each entry that it unpacks to so many bytes.
fn claiming(size: u32, entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zipped(Deflated, entries);
    let places: Vec<usize> = (0..archive.len() - 4)
        .filter(|&at| archive[at..].starts_with(b"PK\x01\x02"))
        .collect();
    assert_eq!(places.len(), entries.len());
    for place in places {
        archive[place + 24..place + 28].copy_from_slice(&size.to_le_bytes());
    }
    archive
}

#[test]
fn a_checkpoints_entries_are_judged_before_they_are_unpacked() {
    // Together more than a tebibyte.
    let storages = (0..300).map(|index| (format!("a/data/{index}"), vec![0; 4]));
    let pickle = ("a/data.pkl".to_owned(), b"\x80\x02}.".to_vec());
    let entries: Vec<(String, Vec<u8>)> = std::iter::once(pickle).chain(storages).collect();
    let (said, memory) = said_of_checkpoint(&claiming(u32::MAX - 1, &entries));
    assert!(
        said.contains("unpacked, it would take about") && said.contains("GiB of memory"),
        "{said}"
    );
    assert!(memory < MEBIBYTE, "{memory}");
    // One that says less than it holds.
    let entries = [("a/data.pkl".to_owned(), vec![b'N'; 32 * MEBIBYTE])];
    let (said, memory) = said_of_checkpoint(&claiming(1, &entries));
    assert!(said.contains("damaged") && memory < MEBIBYTE, "{said} {memory}");
}

/// A pickle as a checkpoint in PyTorch's form.
fn checkpoint(pickle: Vec<u8>) -> Vec<u8> {
    zipped(Stored, &[("a/data.pkl".to_owned(), pickle)])
}

/// Objects of a byte each.
#[test]
fn a_pickle_takes_no_more_than_is_judged() {
    for operation in [
        &b"N"[..],
        b"]",
        b"}",
        b")",
        b"(",
        b"]\x94",
        b"K\0",
        b"]2",
        b"U\x01a",
        b"]\x85",
        b"](NNl",
    ] {
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend(operation.iter().cycle().take(MEBIBYTE));
        let archive = checkpoint(pickle.clone());
        let (said, memory) = said_of_checkpoint(&archive);
        assert!(said.contains("cannot be read as a checkpoint"), "{said}");
        let judged = pickle_memory(&mut &pickle[..]);
        assert!(
            (memory as u64) < judged + judged / 4 + 4 * MEBIBYTE as u64,
            "{operation:?} takes {memory}, and {judged} are judged"
        );
    }
}

/// Copies of a long text, whose reader counts the copies and not the text: a class's name, a dictionary's key, a tensor's.
#[test]
fn a_pickle_that_copies_without_end_is_refused() {
    let long = vec![b'x'; 4 * MEBIBYTE];
    let times = 300_000;
    let text = [&b"X"[..], &(long.len() as u32).to_le_bytes(), &long].concat();
    let tensor = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
    let bombs = [
        [&b"\x80\x02c"[..], &long, b"\n\n", &vec![b'2'; times]].concat(),
        [&b"\x80\x02}"[..], &text, b"Ns", &vec![b'2'; times]].concat(),
        [&b"\x80\x02}"[..], &text, b"](", tensor, &vec![b'2'; times], b"es."].concat(),
        // A list that holds itself twice as often with every two operations.
        [&b"\x80\x02]"[..], &b"2a".repeat(100)].concat(),
    ];
    for bomb in bombs {
        let size = bomb.len();
        let (said, memory) = said_of_checkpoint(&checkpoint(bomb));
        assert!(said.contains("GiB of memory"), "{said}");
        // In its archive, out of it, in the copy for the reader, and as the reader has it.
        assert!(memory < 5 * size + MEBIBYTE / 16, "{memory}");
    }
}

/// A tensor of which one value is there, said often (`expand` in PyTorch).
#[test]
fn values_that_a_checkpoint_does_not_hold_are_not_made() {
    let archive = |values: i32| {
        let pickle: [&[u8]; 6] = [
            b"\x80\x02}X\x0f\0\0\0image_encoder.a",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ",
            b"K\0J",
            &values.to_le_bytes(),
            b"\x85K\0\x85\x89ccollections\nOrderedDict\n)RtRs.",
        ];
        let pickle = pickle.concat();
        let entries = [
            ("a/data.pkl".to_owned(), pickle),
            ("a/data/0".to_owned(), 1f32.to_le_bytes().to_vec()),
        ];
        zipped(Stored, &entries)
    };
    assert_eq!(said_of_checkpoint(&archive(5)).0, "nothing");
    let (said, memory) = said_of_checkpoint(&archive(1 << 28));
    assert!(said.contains("it names 268435456 values and holds"), "{said}");
    assert!(memory < MEBIBYTE, "{memory}");
}

#[test]
fn a_tar_is_refused() {
    // Its sparse entries claim what they like.
    let mut bytes = vec![b'('; 512];
    bytes[257..262].copy_from_slice(b"ustar");
    let (said, _) = said_of_checkpoint(&bytes);
    assert!(
        said.contains("tar archive") && said.contains("save it with a newer one"),
        "{said}"
    );
}

/// Of several classes each is resampled on its own.
#[test]
fn labels_take_no_more_than_is_judged() {
    let (dims, grid) = ([16; 3], [96; 3]);
    let preprocessing = Preprocessing {
        resample: Some(grid),
        ..Preprocessing::default()
    };
    let values = (0..16 * 16 * 16).map(|place| (place % 5) as f32);
    let labels = Volume::new(dims, values.collect(), mini::SLICES_LAST);
    for classes in [2, 3, 5] {
        let (resampled, taken) = peak(|| preprocessing.labels_on_grid(labels.clone(), classes));
        // The resampled scan lies beside them.
        let taken = taken + 4 * resampled.unwrap().voxels.len();
        let judged = |content| host(dims, 0) + resampling(dims, grid, content);
        assert!(
            taken <= judged(Content::Labels(classes)),
            "{classes} classes take {taken}"
        );
        if classes > 2 {
            assert!(taken > judged(Content::Scan), "then nothing more need be counted");
        }
    }
}

/// The smallest network with another encoder.
fn vit(change: fn(&mut VitConfig)) -> SamConfig {
    let mut sam = smallest_sam();
    if let EncoderConfig::Vit(vit) = &mut sam.encoder {
        change(vit);
    }
    sam
}

/// What is said of an adapter of which no tensor is there, and how much memory that took.
fn said_of_adapter(sam: &SamConfig, pairs: usize) -> (String, usize) {
    let metadata = json!({
        "method": "flap_sam",
        "sam": sam,
        "adapter": {"num_classes": 1, "rank": 1, "num_lora": pairs},
        "classes": ["background", "a"],
        "preprocessing": {},
        "base_sha256": "00",
        "seed": 1
    });
    let bytes = write_safetensors(&StateDict::new(), Some(("flapsam_adapter", metadata.to_string())));
    let (adapter, memory) = peak(|| Adapter::from_bytes(&bytes).map_err(|why| why.to_string()));
    (adapter.unwrap_err(), memory)
}

#[test]
fn an_adapter_of_absurd_dimensions_takes_nothing() {
    let sam = smallest_sam();
    let large = SamConfig {
        image_size: 1 << 14,
        prompt_dim: 1 << 14,
        decoder_mlp_dim: 1 << 14,
        ..vit(|vit| (vit.patch_size, vit.embed_dim) = (1 << 14, 1 << 14))
    };
    let deep = vit(|vit| vit.depth = 1 << 14);
    let mut wide = SamConfig::named("mobile_sam").unwrap();
    if let EncoderConfig::TinyVit(vit) = &mut wide.encoder {
        vit.embed_dims = [1 << 14; 4];
        vit.num_heads = [1; 4];
        vit.depths = [1 << 7; 4];
    }
    for (sam, pairs, wanted) in [
        (large, 1, "more than any there is"),
        (deep, 1, "depth is 16384"),
        (wide, 1, "more than any there is"),
        (sam, 1 << 14, "num_lora 16384"),
    ] {
        let (said, memory) = said_of_adapter(&sam, pairs);
        assert!(said.contains(wanted), "{said}");
        // Its parameters' names, shapes and roles are there before they can be counted.
        assert!(memory < 16 * MEBIBYTE, "{memory}: {said}");
    }
}

/// As many blocks and pairs as there may be.
#[test]
fn the_largest_adapter_is_judged_in_a_second() {
    let sam = vit(|vit| vit.depth = 128);
    let judged = || {
        let start = Instant::now();
        let (said, memory) = said_of_adapter(&sam, 128);
        (start.elapsed(), said, memory)
    };
    // The quickest of three: other work on the machine is not what is judged.
    let judged = (0..3).map(|_| judged()).min_by_key(|(time, ..)| *time);
    let (time, said, memory) = judged.unwrap();
    assert!(time < Duration::from_secs(1), "{time:?}");
    assert!(said.contains("is missing"), "{said}");
    // Of 131,072 factors each has a name, a shape and a role.
    assert!(memory < 128 * MEBIBYTE, "{memory}");
}

/// The fixtures of PyTorch's, with as much memory as they have bytes, some times over.
#[test]
fn a_small_checkpoint_takes_little() {
    let bytes = std::fs::read(fixture("checkpoints/plain.pth")).unwrap();
    let (said, memory) = said_of_checkpoint(&bytes);
    assert_eq!(said, "nothing");
    assert!(memory < MEBIBYTE, "{memory}");
}
