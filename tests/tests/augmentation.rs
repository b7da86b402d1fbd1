//! The training augmentation: what we make of a stack is what numpy, scipy and Pillow make of it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::{python, root};
use flapsam::data::batches::augmentation::{Axis, Operation, Patch, Stack};
use safetensors::SafeTensors;

/// Every operation that a case can hold, by the name that `tests/python/augmentation.py` gives it.
const NAMES: [&str; 13] = [
    "turn",
    "rotate",
    "gamma",
    "erase",
    "shear_x",
    "shear_y",
    "scale",
    "translate_x",
    "translate_y",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
];

/// The share of values of a case with a power in it that may differ, each by one level of 255: numpy's power may
/// differ from libm's in the last bit, and so a level where the truncation falls between the two. Such a level is one
/// of 256.
const POWER_SHARE: f64 = 0.02;

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
    let (bytes, _) = tensor.data().as_chunks();
    bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn stack(file: &SafeTensors, name: &str) -> Stack {
    let labels = file.tensor(&format!("{name}/labels")).unwrap();
    let &[_, rows, columns] = labels.shape() else {
        panic!("{name} has the shape {:?}", labels.shape());
    };
    Stack {
        slices: floats(file, &format!("{name}/slices")),
        labels: labels.data().to_vec(),
        rows,
        columns,
    }
}

/// The operation that a part of a case's name says.
fn operation(words: &str, noise: impl Fn() -> Vec<f32>) -> Operation {
    let (name, parameters) = words.split_once(' ').unwrap_or((words, ""));
    let parameters: Vec<f64> = parameters
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    match (name, &parameters[..]) {
        // Axes of numpy's: 0 is down the columns.
        ("turn", &[quarters, axis]) => Operation::Turn {
            quarters: quarters as usize,
            flip: if axis == 0.0 { Axis::Y } else { Axis::X },
        },
        ("rotate", &[degrees]) => Operation::Rotate(degrees as i32),
        ("gamma", &[gamma]) => Operation::Gamma(gamma),
        ("erase", &[top, left, _, width]) => Operation::Erase(Patch {
            top: top as usize,
            left: left as usize,
            width: width as usize,
            values: noise(),
        }),
        ("shear_x", &[by]) => Operation::Shear(Axis::X, by),
        ("shear_y", &[by]) => Operation::Shear(Axis::Y, by),
        ("scale", &[by]) => Operation::Scale(by),
        ("translate_x", &[by]) => Operation::Translate(Axis::X, by),
        ("translate_y", &[by]) => Operation::Translate(Axis::Y, by),
        ("posterize", &[bits]) => Operation::Posterize(bits as u32),
        ("contrast", &[factor]) => Operation::Contrast(factor),
        ("brightness", &[factor]) => Operation::Brightness(factor),
        ("sharpness", &[factor]) => Operation::Sharpness(factor),
        ("identity", []) => Operation::Identity,
        _ => panic!("there is no operation {words}"),
    }
}

/// Labels and sizes are equal, and so are intensities to the bit, but for powers (see [`POWER_SHARE`]).
#[test]
fn operations_equal_numpys_scipys_and_pillows() {
    let Some(python) = python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = root().join("tests/python/augmentation.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(folder.path().join("augmentation.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases: Vec<&str> = file
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix("/labels"))
        .collect();
    cases.retain(|case| case.contains('/'));
    cases.sort_unstable();

    let mut differences = Vec::new();
    // Of each operation, in how many cases it changed the intensities.
    let mut changed: BTreeMap<&str, usize> = BTreeMap::new();
    for case in cases {
        let (input, operations) = case.split_once('/').unwrap();
        let noise = || floats(&file, &format!("{case}/noise"));
        let (mut ours, theirs) = (stack(&file, input), stack(&file, case));
        for words in operations.split(';') {
            let before = ours.slices.clone();
            operation(words, noise).apply(&mut ours);
            let name = words.split(' ').next().unwrap();
            *changed.entry(name).or_default() += usize::from(ours.slices != before);
        }
        if [ours.rows, ours.columns] != [theirs.rows, theirs.columns] || ours.labels != theirs.labels {
            differences.push(format!("{case}: labels"));
        }
        assert_eq!(ours.slices.len(), theirs.slices.len());
        let pairs = ours.slices.iter().zip(&theirs.slices);
        let off: Vec<f32> = pairs.map(|(a, b)| (a - b).abs()).filter(|&off| off != 0.0).collect();
        let furthest = off.iter().copied().fold(0.0, f32::max);
        let allowed = match operations.contains("gamma") {
            true => (POWER_SHARE * ours.slices.len() as f64) as usize,
            false => 0,
        };
        // Half a level above one, for the roundings of the two quotients.
        if off.len() > allowed || furthest > 1.5 / 255.0 {
            let share = off.len() as f64 / ours.slices.len() as f64;
            differences.push(format!(
                "{case}: {share:.4} of the values, by up to {} levels",
                furthest * 255.0
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for name in NAMES {
        assert!(
            changed.get(name).is_some_and(|&count| count >= 3),
            "{name} in {changed:?}"
        );
    }
}
