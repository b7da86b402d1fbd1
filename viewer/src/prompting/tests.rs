use flapsam_model::checkpoint::{sha256, write_safetensors};
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::initialise;
use flapsam_model::prompts::Click;
use flapsam_model::sam::Sam;
use flapsam_model::volume::Volume;

use super::*;

const ROOMY: Limits = Limits {
    largest_tensor: None,
    host: usize::MAX,
};
const PIXELS: [usize; 2] = [40, 30];

fn base() -> Vec<u8> {
    let state = initialise(&Sam::layout(&SamConfig::named("nano").unwrap(), None).unwrap(), 3);
    write_safetensors(&state, None)
}

fn prompting() -> Prompting {
    let (bytes, device) = (base(), Device::flex());
    let sha256 = sha256(&bytes);
    let base = Promised {
        bytes: &bytes,
        sha256: Some(&sha256),
    };
    Prompting::load(base, &device).unwrap()
}

fn values() -> Vec<f32> {
    (0..PIXELS[0] * PIXELS[1])
        .map(|index| (index * 37 % 400) as f32)
        .collect()
}

fn at(x: f32, y: f32) -> Prompt {
    let positive = true;
    Prompt {
        clicks: vec![Click { x, y, positive }],
        region: None,
    }
}

fn ask(prompting: &mut Prompting, values: &[f32], prompt: &Prompt, limits: Limits) -> Result<Masks, Error> {
    pollster::block_on(prompting.ask(values, PIXELS, [0.0, 400.0], prompt, limits))
}

#[test]
fn a_slice_is_encoded_once_and_by_its_content() {
    let (mut prompting, values) = (prompting(), values());
    let first = ask(&mut prompting, &values, &at(10.0, 10.0), ROOMY).unwrap();
    assert_eq!(
        (first.masks.len(), first.scores.len(), first.kept),
        (3 * 1200, 3, false)
    );
    // A copy of the slice with another prompt; then the first prompt again.
    let other = ask(&mut prompting, &values.clone(), &at(20.0, 30.0), ROOMY).unwrap();
    assert!(other.kept);
    assert_ne!(other.scores, first.scores);
    let again = ask(&mut prompting, &values, &at(10.0, 10.0), ROOMY).unwrap();
    assert_eq!((again.masks, again.scores), (first.masks, first.scores));
    let mut changed = values.clone();
    changed[600] += 1.0;
    assert!(!ask(&mut prompting, &changed, &at(10.0, 10.0), ROOMY).unwrap().kept);
}

#[test]
fn the_oldest_slices_are_forgotten() {
    let (mut prompting, values) = (prompting(), values());
    let slice = |index: usize| values.iter().map(|value| value + index as f32).collect::<Vec<f32>>();
    for index in 0..=KEPT {
        ask(&mut prompting, &slice(index), &at(1.0, 1.0), ROOMY).unwrap();
    }
    assert_eq!(prompting.embeddings.len(), KEPT);
    assert!(ask(&mut prompting, &slice(1), &at(1.0, 1.0), ROOMY).unwrap().kept);
    assert!(!ask(&mut prompting, &slice(0), &at(1.0, 1.0), ROOMY).unwrap().kept);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let (mut prompting, values) = (prompting(), values());
    let mut refused = |prompt: &Prompt, limits| ask(&mut prompting, &values, prompt, limits).unwrap_err();
    assert_eq!(refused(&at(30.0, 5.0), ROOMY).kind(), "file");
    let small = |largest_tensor, host| Limits { largest_tensor, host };
    let error = refused(&at(1.0, 1.0), small(Some(100_000), usize::MAX));
    assert!(error.to_string().contains("WebGPU here allows 100 kB"), "{error}");
    let error = refused(&at(1.0, 1.0), small(None, 100_000));
    assert!(error.to_string().contains("choose WebGPU"), "{error}");
    assert_eq!(
        ask(&mut prompting, &values[1..], &at(1.0, 1.0), ROOMY)
            .unwrap_err()
            .kind(),
        "request"
    );
}

#[test]
fn a_base_of_another_checksum_is_refused() {
    let base = Promised {
        bytes: &base(),
        sha256: Some("0"),
    };
    assert_eq!(Prompting::load(base, &Device::flex()).unwrap_err().kind(), "checksum");
}

#[test]
fn slices_are_counted_from_the_feet_and_seen_as_by_radiologists() {
    // Voxels 0 to 23 along right, front and up, of 1, 2 and 3 mm.
    let affine = [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]];
    let scan = Volume::new([2, 3, 4], (0..24).map(|value| value as f32).collect(), affine).to_nifti_i16();
    let scan = Promised {
        bytes: &scan,
        sha256: None,
    };
    let slice = Slice::read(scan, [0.4, 3.0, 3.9], ROOMY).unwrap();
    assert_eq!((slice.number, slice.of), (2, 4));
    assert_eq!((slice.pixels, slice.spacing), ([3, 2], [2.0, 1.0]));
    // The patient's front right first.
    assert_eq!(slice.values, [11.0, 10.0, 9.0, 8.0, 7.0, 6.0]);
    // Outside of the scan, its last slice.
    assert_eq!(Slice::read(scan, [0.0, 0.0, 90.0], ROOMY).unwrap().number, 4);
    assert_eq!(Slice::read(scan, [f64::NAN; 3], ROOMY).unwrap().number, 1);
}
