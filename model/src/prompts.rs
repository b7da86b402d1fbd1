//! SAM without an adapter, as it was made to be used: an image is encoded once, and then asked by clicks and a box.

mod slice;

use burn::tensor::{Device, Tensor, TensorData};
use flapsam_kernels::{Alignment, resize_bilinear};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::checkpoint::{adapt, hex};
use crate::config::SamConfig;
use crate::parameters::{Parameters, StateDict};
use crate::prompt_encoder::{Point, PointKind};
use crate::resize;
use crate::sam::{Sam, box_points};
use crate::segment::{finite, read_values, scale_to_unit};
pub use slice::{Slice, window};

/// Mean and standard deviation of red, green and blue in `[0, 1]` by which the published checkpoints see images.
const PUBLISHED_CHANNELS: [[f32; 2]; 3] = [
    [123.675 / 255.0, 58.395 / 255.0],
    [116.28 / 255.0, 57.12 / 255.0],
    [103.53 / 255.0, 57.375 / 255.0],
];
/// `flapsam pretrain` shows its images as they are.
const PLAIN_CHANNELS: [[f32; 2]; 3] = [[0.0, 1.0]; 3];

/// A click on a slice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Click {
    /// Column, pixels of the slice; a whole number is a pixel's centre.
    pub x: f32,
    /// Row, likewise.
    pub y: f32,
    /// Whether the object is there, or is not.
    pub positive: bool,
}

/// What a user says of an object on a slice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// In any order.
    pub clicks: Vec<Click>,
    /// Two opposite corners of a box around it: x, y, x, y in pixels of the slice.
    #[serde(rename = "box")]
    pub region: Option<[f32; 4]>,
}

impl Prompt {
    /// Refuses places that are not on a slice of `rows` x `columns` pixels.
    ///
    /// # Errors
    /// It is empty, or names such a place.
    pub fn check(&self, [rows, columns]: [usize; 2]) -> Result<(), Error> {
        if self.clicks.is_empty() && self.region.is_none() {
            return Err(Error::Config("click on the object, or draw a box around it".into()));
        }
        let corners = self.region.iter().flat_map(|&[x, y, z, w]| [[x, y], [z, w]]);
        let places = self.clicks.iter().map(|click| [click.x, click.y]).chain(corners);
        let within = |value: f32, count: usize| (-0.5..=count as f32 - 0.5).contains(&value);
        for [x, y] in places {
            if !(within(x, columns) && within(y, rows)) {
                return Err(Error::Config(format!(
                    "the place ({x}, {y}) is not on a slice of {columns} x {rows} pixels"
                )));
            }
        }
        Ok(())
    }

    /// The network's points for a slice of `rows` x `columns` pixels that [`fitted`] into an image of `side`: clicks on
    /// the object, those beside it, then the box's corners, or a padding point in their place.
    pub fn points(&self, pixels: [usize; 2], side: usize) -> Vec<Point> {
        // The map by which the slice was resized, and by which its mask comes back: corners onto corners.
        let [down, across] = resize::factors(pixels, fitted(pixels, side));
        let kind = |positive| match positive {
            true => PointKind::Positive,
            false => PointKind::Negative,
        };
        let clicks = self.clicks.iter().map(|click| Point {
            x: click.x * across,
            y: click.y * down,
            kind: kind(click.positive),
        });
        let mut points: Vec<Point> = clicks.collect();
        // The answer does not depend on the order of clicks, but its last bits do.
        points.sort_by_key(|point| point.kind == PointKind::Negative);
        match self.region {
            Some([x, y, z, w]) => points.extend(box_points([
                x.min(z) * across,
                y.min(w) * down,
                x.max(z) * across,
                y.max(w) * down,
            ])),
            None if points.is_empty() => {}
            None => points.push(Point {
                x: 0.0,
                y: 0.0,
                kind: PointKind::Padding,
            }),
        }
        points
    }
}

/// Rows and columns of a slice after its longer side has become `side`.
pub fn fitted(pixels: [usize; 2], side: usize) -> [usize; 2] {
    let longest = pixels[0].max(pixels[1]).max(1);
    pixels.map(|count| ((2 * count * side + longest) / (2 * longest)).max(1))
}

/// SAM's answer to a prompt: three masks, since a prompt can mean a part, an object, or several.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Logits `[mask, row, column]` on the slice: an object is where they are above 0.
    pub logits: Vec<f32>,
    /// The network's own guess of each mask's intersection over union with what is meant.
    pub scores: Vec<f32>,
}

impl Answer {
    /// The masks `[mask, row, column]`, 1 inside.
    pub fn masks(&self) -> Vec<u8> {
        self.logits.iter().map(|&logit| u8::from(logit > 0.0)).collect()
    }

    /// Which mask has the highest score: the first one of equals.
    pub fn best(&self) -> usize {
        let scores = self.scores.iter().enumerate();
        let best = scores.fold((0, f32::NEG_INFINITY), |best, (mask, &score)| {
            if score > best.1 { (mask, score) } else { best }
        });
        best.0
    }
}

/// A slice as a user sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen<'a> {
    /// Row-major.
    pub values: &'a [f32],
    /// Rows and columns.
    pub pixels: [usize; 2],
    /// The values that are black and white.
    pub window: [f32; 2],
}

impl Seen<'_> {
    /// Lower-case hexadecimal sha256 of all that the network's image is made of.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for count in self.pixels {
            hash.update((count as u64).to_le_bytes());
        }
        for value in self.window.iter().chain(self.values) {
            hash.update(value.to_le_bytes());
        }
        hex(&hash.finalize())
    }
}

/// A slice as an un-adapted SAM sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedSlice {
    /// `[3, side, side]`; past the slice's lower and right edge, 0.
    values: Vec<f32>,
}

/// A slice that is being encoded.
#[derive(Debug, Clone)]
pub struct Encoding {
    x: Tensor<4>,
    /// Parts that are done.
    pub done: usize,
    /// Parts in all.
    pub of: usize,
}

impl Encoding {
    /// The embedding; nothing before all is done.
    pub fn embedding(&self) -> Option<Tensor<4>> {
        (self.done == self.of).then(|| self.x.clone())
    }
}

/// A base checkpoint as a network to be asked.
#[derive(Debug)]
pub struct PromptedSam {
    /// Which of [`SamConfig::NAMES`] it is.
    pub name: &'static str,
    /// Its dimensions.
    pub config: SamConfig,
    sam: Sam,
    channels: [[f32; 2]; 3],
    device: Device,
}

impl PromptedSam {
    /// The network of an official checkpoint of one of [`SamConfig::NAMES`] at its own image size.
    ///
    /// # Errors
    /// The checkpoint is of none of them, or lacks a batch norm's statistics.
    pub fn new(official: StateDict, device: &Device) -> Result<Self, Error> {
        let (name, config) = recognise(&official)?;
        let channels = match name {
            "nano" => PLAIN_CHANNELS,
            _ => PUBLISHED_CHANNELS,
        };
        let state = adapt(&official, &config, None, 0)?;
        // A large one is not held once more while the device takes its own.
        drop(official);
        Self::build((name, config), channels, &state, device)
    }

    fn build(
        (name, config): (&'static str, SamConfig),
        channels: [[f32; 2]; 3],
        state: &StateDict,
        device: &Device,
    ) -> Result<Self, Error> {
        let sam = Sam::new(&config, None, &Parameters::new(state, device))?;
        Ok(Self {
            name,
            config,
            sam,
            channels,
            device: device.clone(),
        })
    }

    /// What is seen becomes the network's image: black to white becomes `[0, 1]`, the longer side the network's, and the
    /// channels are normalised.
    pub fn prepare(&self, seen: Seen) -> PreparedSlice {
        let side = self.config.image_size;
        let (pixels, [black, white]) = (seen.pixels, seen.window);
        let mut plane: Vec<f32> = seen.values.iter().map(|value| value.max(black).min(white)).collect();
        scale_to_unit(&mut plane, [black, white]);
        let [rows, columns] = fitted(pixels, side);
        let plane = resize::cubic(&plane, pixels, [rows, columns]);
        let mut values = vec![0.0; 3 * side * side];
        for (channel, [mean, deviation]) in values.chunks_exact_mut(side * side).zip(self.channels) {
            for (row, found) in channel.chunks_exact_mut(side).zip(plane.chunks_exact(columns)) {
                row.iter_mut()
                    .zip(found)
                    .for_each(|(value, found)| *value = (found - mean) / deviation);
            }
        }
        PreparedSlice { values }
    }

    /// The slice's embedding `[1, channel, row, column]`: most of the work, and the same for every prompt.
    pub fn embed(&self, slice: &PreparedSlice) -> Tensor<4> {
        self.sam.image_encoder.forward(self.begin(slice).x)
    }

    /// The same, part by part.
    pub fn begin(&self, slice: &PreparedSlice) -> Encoding {
        let side = self.config.image_size;
        let data = TensorData::new(slice.values.clone(), [1, 3, side, side]);
        Encoding {
            x: Tensor::from_data(data, &self.device),
            done: 0,
            of: self.sam.image_encoder.parts(),
        }
    }

    /// Does one part more of an encoding.
    pub fn proceed(&self, encoding: &mut Encoding) {
        if encoding.done < encoding.of {
            encoding.x = self.sam.image_encoder.part(encoding.done, encoding.x.clone());
            encoding.done += 1;
        }
    }

    /// What the prompt means on a slice of `rows` x `columns` pixels, by its embedding.
    ///
    /// # Errors
    /// The device does not answer, or a logit or score is no finite number.
    pub async fn ask(&self, embedding: Tensor<4>, prompt: &Prompt, pixels: [usize; 2]) -> Result<Answer, Error> {
        let side = self.config.image_size;
        let (masks, scores) = self.sam.predict_multimask(embedding, &prompt.points(pixels, side));
        let [rows, columns] = fitted(pixels, side);
        let masks = self.sam.to_image_size(masks).narrow(2, 0, rows).narrow(3, 0, columns);
        let answer = Answer {
            logits: read_values(resize_bilinear(masks, pixels, Alignment::Corners)).await?,
            scores: read_values(scores).await?,
        };
        finite(&answer.logits, || "a logit of a mask".into())?;
        finite(&answer.scores, || "the score of a mask".into())?;
        Ok(answer)
    }
}

/// The named configuration whose parameters a checkpoint has.
fn recognise(state: &StateDict) -> Result<(&'static str, SamConfig), Error> {
    for name in SamConfig::NAMES {
        let Some(config) = SamConfig::named(name) else { continue };
        let layout = Sam::layout(&config, None)?;
        let has = |(key, shape): (&String, &[usize])| state.get(key).is_some_and(|array| array.shape == shape);
        if layout.iter().all(|(key, spec)| has((key, &spec.shape))) {
            return Ok((name, config));
        }
    }
    Err(Error::Config(format!(
        "the checkpoint is none of {} at its own image size; prompts need one of these",
        SamConfig::NAMES.join(", ")
    )))
}

#[cfg(test)]
mod tests;
