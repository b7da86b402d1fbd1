use flapsam_model::checkpoint::{sha256, write_safetensors};
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::initialise;
use flapsam_model::prompts::{Click, window};
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

fn seen(values: &[f32]) -> Seen<'_> {
    Seen {
        values,
        pixels: PIXELS,
        window: [0.0, 400.0],
    }
}

fn ask(prompting: &mut Prompting, values: &[f32], prompt: &Prompt, limits: Limits) -> Result<Masks, Error> {
    let answer = prompting.ask(seen(values), prompt, limits, async |_, _| Ok(true));
    pollster::block_on(answer).map(|masks| masks.expect("nothing stops it"))
}

#[test]
fn what_is_stopped_goes_on_where_it_was() {
    let values = values();
    let whole = ask(&mut prompting(), &values, &at(10.0, 10.0), ROOMY).unwrap();
    let mut prompting = prompting();
    let mut parts = Vec::new();
    let stopped = prompting.encode(seen(&values), ROOMY, async |done, of| {
        parts.push((done, of));
        Ok(done < 2)
    });
    assert!(pollster::block_on(stopped).unwrap().is_none());
    let of = parts[0].1;
    assert_eq!(parts, [(0, of), (1, of), (2, of)]);
    assert!(of > 3);
    let mut later = Vec::new();
    let prompt = at(10.0, 10.0);
    let answer = prompting.ask(seen(&values), &prompt, ROOMY, async |done, _| {
        later.push(done);
        Ok(true)
    });
    assert_eq!(pollster::block_on(answer).unwrap(), Some(whole));
    assert_eq!(later, (2..of).collect::<Vec<_>>());
    // What was encoded ahead is there when it is asked about.
    let ahead: Vec<f32> = values.iter().map(|value| value + 1.0).collect();
    let encoded = prompting.encode(seen(&ahead), ROOMY, async |_, _| Ok(true));
    assert!(!pollster::block_on(encoded).unwrap().unwrap().1);
    assert!(ask(&mut prompting, &ahead, &at(1.0, 1.0), ROOMY).unwrap().kept);
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

/// What the native program does with a prompt, step by step.
#[test]
fn the_answer_is_the_native_programs() {
    let affine = [[0.0, 0.0, -1.0, 30.0], [2.0, 0.0, 0.0, -8.0], [0.0, 3.0, 0.0, 5.0]];
    let voxels = (0..24 * 5 * 30).map(|index| (index * 37 % 400) as f32).collect();
    let file = Volume::new([24, 5, 30], voxels, affine).to_nifti_i16();
    let promised = Promised {
        bytes: &file,
        sha256: None,
    };
    let seen = slice(promised, Plane::Axial, [14.0, 10.0, 12.0], ROOMY).unwrap();
    let scan = Volume::from_nifti(&file, None).unwrap();
    assert_eq!(seen, Slice::numbered(&scan, Plane::Axial, 3).unwrap());
    let click = |x, y, positive| Click { x, y, positive };
    let prompt = |clicks: [Click; 3]| Prompt {
        clicks: clicks.to_vec(),
        region: Some([20.0, 3.0, 4.0, 15.0]),
    };
    let [first, second, beside] = [click(12.0, 9.0, true), click(8.0, 4.5, true), click(25.0, 20.0, false)];
    let window = window(&scan);

    let (state, _) = read_safetensors(&base()).unwrap();
    let network = PromptedSam::new(state, &Device::flex()).unwrap();
    let shown = seen.seen(window);
    let embedding = network.embed(&network.prepare(shown));
    let asked = prompt([first, second, beside]);
    let native = network.ask(embedding, &asked, seen.pixels);
    let native = pollster::block_on(native).unwrap();
    // The page's marks come in the order in which they were made.
    let mut page = prompting();
    let asked = prompt([first, beside, second]);
    let answer = page.ask(shown, &asked, ROOMY, async |_, _| Ok(true));
    let answer = pollster::block_on(answer).unwrap().unwrap();
    assert_eq!((answer.masks, answer.scores), (native.masks(), native.scores));
}
