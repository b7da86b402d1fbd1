//! The fuzzer's corpus, replayed on the ordinary compiler, and thousands of drawn mutations of it: nothing panics, takes a
//! second, or takes memory that its bytes do not account for.

mod common;
mod mini;
mod seeds;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::root;
use flapsam_model::random::Random;
use flapsam_tests::counted::{Counted, peak};
use flapsam_tests::hostile::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Drawn mutations of each file.
const MUTATIONS: usize = 2000;
const LONGEST: Duration = Duration::from_secs(1);
/// A file of the corpus has a few kilobytes, which gzip unpacks a thousandfold.
const MOST_MEMORY: usize = 64 << 20;
/// All corpora together, bytes.
const LARGEST: u64 = 300_000;

macro_rules! replayed {
    ($($target:ident),*) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*

        const REPLAYED: &[&str] = &[$(stringify!($target)),*];
    };
}

replayed!(
    scan, gzip, pth, checkpoint, adapter, manifest, table, experiment, message, envelope, zip, dicom, bundle
);

fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

/// The files of a target's corpus in the order of their names.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(corpus(target)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn replay(name: &str) {
    let target = TARGETS.into_iter().find(|target| target.name == name).unwrap();
    let inputs = inputs(name);
    assert!(!inputs.is_empty());
    let (mut taken, mut refused) = (0, 0);
    for (path, bytes) in &inputs {
        match judge(target, bytes) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
        let file = path.file_name().unwrap().to_string_lossy();
        let mut random = Random::new(1, &format!("{name}/{file}"));
        for _ in 0..MUTATIONS {
            let other = &inputs[random.below(inputs.len())].1;
            let _ = judge(target, &mutated(bytes, other, &mut random));
        }
    }
    println!("{name}: {taken} files are taken and {refused} refused");
    assert!(taken > 0, "a corpus of which nothing is taken tries little");
}

/// What a target says, within the limits. What breaks them is kept for a look.
fn judge(target: Target, bytes: &[u8]) -> Result<(), String> {
    let once = || {
        let start = Instant::now();
        let (verdict, memory) = peak(|| catch_unwind(|| (target.judge)(bytes)));
        (verdict, memory, start.elapsed())
    };
    let (verdict, memory, mut time) = once();
    // Others use the processor as well.
    for _ in 0..3 {
        if time > LONGEST {
            time = once().2;
        }
    }
    let kept = || {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{:016x}", target.name, hash(bytes)));
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    assert!(time <= LONGEST, "it takes {time:?}: {}", kept());
    assert!(memory <= MOST_MEMORY, "it takes {memory} bytes: {}", kept());
    verdict.unwrap_or_else(|_| panic!("it panics: {}", kept()))
}

/// Only for a name.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What headers, tables and settings go wrong with.
const NUMBERS: [i64; 12] = [
    0,
    1,
    -1,
    2,
    127,
    255,
    256,
    32767,
    65535,
    i32::MAX as i64,
    u32::MAX as i64,
    i64::MAX,
];
const WORDS: [&str; 14] = [
    "0",
    "-1",
    "1e999",
    "nan",
    "99999999999999999999",
    "true",
    "[]",
    "{}",
    "null",
    "\"",
    ",",
    "\n",
    "..",
    "\u{7f}",
];

/// One to four changes of a file.
fn mutated(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below((bytes.len() - at).min(64) + 1);
        match random.below(9) {
            0 => flip(&mut bytes, at, 1 << random.below(8)),
            1 => flip(&mut bytes, at, random.below(256) as u8),
            2 => {
                let number = NUMBERS[random.below(NUMBERS.len())];
                let wide = [1, 2, 4, 8][random.below(4)];
                let mut number = number.to_le_bytes()[..wide].to_vec();
                if random.chance(0.5) {
                    number.reverse();
                }
                bytes
                    .iter_mut()
                    .skip(at)
                    .zip(number)
                    .for_each(|(byte, new)| *byte = new);
            }
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + length)),
            5 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.below(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
            6 => {
                let from = random.below(other.len() + 1);
                let piece = &other[from..other.len().min(from + 64)];
                drop(bytes.splice(at..at + length, piece.iter().copied()));
            }
            7 => {
                let word = WORDS[random.below(WORDS.len())];
                let over = if random.chance(0.5) { at + length.min(8) } else { at };
                drop(bytes.splice(at..over, word.bytes()));
            }
            _ => {
                let drawn: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                drop(bytes.splice(at..at + length, drawn));
            }
        }
    }
    bytes
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

/// A target has its corpus, its program for the fuzzer, and its replay above.
#[test]
fn every_target_is_fuzzed_and_replayed() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, REPLAYED);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut size = 0;
    for name in names {
        let program = format!("path = \"fuzz_targets/{name}.rs\"");
        assert!(manifest.contains(&program) && root().join(format!("fuzz/fuzz_targets/{name}.rs")).is_file());
        size += inputs(name).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }
    assert!(size <= LARGEST, "the corpora have {size} bytes");
}

/// Writes the files that the fuzzer starts from. What it found beside them stays.
#[test]
#[ignore = "writes into fuzz/corpus"]
fn write_seeds() {
    for target in TARGETS {
        for (name, bytes) in seeds::of(target.name) {
            mini::put(&corpus(target.name).join(name), &bytes);
        }
    }
}
