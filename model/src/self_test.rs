//! Whether a device computes what it should: a small network of known weights on a known image, held against the CPU's
//! answer, which is in `self_test.safetensors` beside this file.

use burn::tensor::{Device, Tensor};
use serde::Serialize;

use crate::Error;
use crate::checkpoint::{read_safetensors, sha256};
use crate::config::{AdapterConfig, LoraInit, SamConfig};
use crate::parameters::{Array, Parameters, StateDict, initialise};
use crate::random::Random;
use crate::sam::Sam;
use crate::segment::{read_values, to_input};

/// The CPU's answer.
const REFERENCE: &[u8] = include_bytes!("self_test.safetensors");
/// Its checksum.
const REFERENCE_SHA256: &str = include_str!("self_test.sha256");
/// No tensor of it is larger, bytes: its largest weights have 147,456.
pub const LARGEST_TENSOR: usize = 1 << 20;
const SEED: u64 = 20_407;
/// Side of the image, pixels.
const SIDE: usize = 64;
/// How far an answer may be off, as a share of its norm. Another order of sums moves it by about 1e-6 (measured: 1.3e-6 on
/// llvmpipe), half precision by 1e-3.
pub const TOLERANCE: f64 = 1e-4;
/// The share of pixels whose class may be another: those of nearly equal scores.
pub const OTHER_PIXELS: f64 = 0.005;

const EMBEDDING: &str = "embedding";
const LOGITS: &str = "logits";

/// What a device answered, held against the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// Distance of the image's embedding, as a share of its norm; none of what is no number.
    pub embedding: Option<f64>,
    /// The same of the masks' logits.
    pub logits: Option<f64>,
    /// The share of pixels of another class.
    pub mask: f64,
    /// Whether all of it is near enough.
    pub passed: bool,
}

impl SelfTest {
    /// Runs it on a device.
    ///
    /// # Errors
    /// The device does not answer at all, or the program was built with another reference.
    pub async fn run(device: &Device) -> Result<Self, Error> {
        let (got, reference) = (answer(device).await?, reference()?);
        let of = |name: &str| (&got[name].values[..], &reference[name].values[..]);
        let [embedding, logits] = [EMBEDDING, LOGITS].map(|name| distance(of(name)));
        let (got, wanted) = of(LOGITS);
        let mask = other_pixels(got, wanted, got.len() / reference[LOGITS].shape[1]);
        let near = |distance: Option<f64>| distance.is_some_and(|distance| distance <= TOLERANCE);
        Ok(Self {
            embedding,
            logits,
            mask,
            passed: near(embedding) && near(logits) && mask <= OTHER_PIXELS,
        })
    }

    /// What was found, in a sentence's middle.
    pub fn describe(&self) -> String {
        let off = |distance: Option<f64>| distance.map_or("no number".into(), |distance| format!("{distance:.1e} off"));
        format!(
            "the embedding is {}, the masks' logits are {}, {:.2} % of the pixels have another class",
            off(self.embedding),
            off(self.logits),
            self.mask * 100.0
        )
    }
}

/// The answer of a device: embedding and logits, by name.
///
/// # Errors
/// The device does not answer.
pub async fn answer(device: &Device) -> Result<StateDict, Error> {
    let config = SamConfig::named("nano").map(|config| config.with_image_size(SIDE));
    let config = config.ok_or_else(|| Error::Config("there is no network 'nano'".into()))?;
    let adapter = AdapterConfig {
        num_classes: 2,
        rank: 4,
        num_lora: 1,
        dora: false,
        train_magnitude: false,
        lora_scale: 1.0,
        lora_init: LoraInit::default(),
    };
    let mut state = initialise(&Sam::layout(&config, Some(&adapter))?, SEED);
    for (key, array) in &mut state {
        // What starts at zero would hide whether it takes part.
        if array.values.iter().all(|value| *value == 0.0) {
            let mut random = Random::new(SEED, &format!("{key}, not zero"));
            array.values.fill_with(|| (0.02 * random.normal()) as f32);
        }
    }
    let sam = Sam::new(&config, Some(&adapter), &Parameters::new(&state, device))?;
    let input = to_input(image(), SIDE, device);
    let embedding = array(sam.image_encoder.forward(input.clone())).await?;
    let logits = array(sam.logits(input)).await?;
    Ok([(EMBEDDING.to_owned(), embedding), (LOGITS.to_owned(), logits)].into())
}

/// Discs and a slope of brightness, from 0 to 1.
fn image() -> Vec<f32> {
    let mut random = Random::new(SEED, "image");
    let discs: Vec<[f64; 4]> = (0..6)
        .map(|_| {
            [
                random.uniform(0.0, 1.0),
                random.uniform(0.0, 1.0),
                random.uniform(0.05, 0.3),
                random.uniform(-0.5, 0.5),
            ]
        })
        .collect();
    let pixel = |index: usize| {
        let [x, y] = [index % SIDE, index / SIDE].map(|place| place as f64 / SIDE as f64);
        let inside = |disc: &&[f64; 4]| (x - disc[0]).powi(2) + (y - disc[1]).powi(2) < disc[2] * disc[2];
        let value: f64 = discs.iter().filter(inside).map(|disc| disc[3]).sum();
        (0.3 + 0.4 * x + value).clamp(0.0, 1.0) as f32
    };
    (0..SIDE * SIDE).map(pixel).collect()
}

async fn array(tensor: Tensor<4>) -> Result<Array, Error> {
    let shape = tensor.dims();
    Ok(Array::new(shape, read_values(tensor).await?))
}

/// How far values are from those that are wanted, as a share of their norm.
fn distance((got, wanted): (&[f32], &[f32])) -> Option<f64> {
    if got.len() != wanted.len() {
        return None;
    }
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let off = squares(&mut got.iter().zip(wanted).map(|(got, wanted)| f64::from(got - wanted)));
    let share = off / squares(&mut wanted.iter().map(|&value| f64::from(value)));
    share.is_finite().then_some(share)
}

/// The share of `pixels` whose class with the largest logit is another.
fn other_pixels(got: &[f32], wanted: &[f32], pixels: usize) -> f64 {
    let class = |logits: &[f32], pixel: usize| {
        let of_pixel = logits.iter().skip(pixel).step_by(pixels);
        of_pixel
            .enumerate()
            .max_by(|one, other| one.1.total_cmp(other.1))
            .map(|(class, _)| class)
    };
    let others = (0..pixels).filter(|&pixel| class(got, pixel) != class(wanted, pixel));
    others.count() as f64 / pixels as f64
}

/// The CPU's answer, if it is the one that was checked in.
fn reference() -> Result<StateDict, Error> {
    let found = sha256(REFERENCE);
    match found == REFERENCE_SHA256.trim() {
        true => Ok(read_safetensors(REFERENCE)?.0),
        false => Err(Error::format(
            "the self-test's reference",
            format!("its sha256 is {found}; build from a whole copy"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_safetensors;

    fn on_cpu() -> StateDict {
        pollster::block_on(answer(&Device::flex())).unwrap()
    }

    /// With `FLAPSAM_WRITE_SELF_TEST` it writes the reference first.
    #[test]
    fn the_reference_is_the_cpus_answer_to_the_bit() {
        let bytes = write_safetensors(&on_cpu(), None);
        if std::env::var_os("FLAPSAM_WRITE_SELF_TEST").is_some() {
            let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            std::fs::write(source.join("self_test.safetensors"), &bytes).unwrap();
            std::fs::write(source.join("self_test.sha256"), sha256(&bytes) + "\n").unwrap();
            return;
        }
        reference().unwrap();
        assert!(bytes == REFERENCE, "the CPU's answer has moved");
        let found = pollster::block_on(SelfTest::run(&Device::flex())).unwrap();
        assert!(
            found.passed && found.logits == Some(0.0) && found.mask == 0.0,
            "{found:?}"
        );
    }

    #[test]
    fn the_reference_has_every_class_and_wrong_answers_are_found() {
        let reference = on_cpu();
        let logits = &reference[LOGITS];
        let pixels = logits.values.len() / logits.shape[1];
        let constant: Vec<f32> = logits
            .values
            .iter()
            .enumerate()
            .map(|(index, _)| f32::from(index < pixels))
            .collect();
        assert!(
            other_pixels(&constant, &logits.values, pixels) > 0.1,
            "one class has nearly all pixels"
        );
        let halves: Vec<f32> = logits.values.iter().map(|value| value * 1.001).collect();
        assert!(distance((&halves, &logits.values)).unwrap() > TOLERANCE);
        let mut broken = logits.values.clone();
        broken[7] = f32::NAN;
        assert_eq!(distance((&broken, &logits.values)), None);
        assert_eq!(distance((&broken[1..], &logits.values)), None);
    }
}
