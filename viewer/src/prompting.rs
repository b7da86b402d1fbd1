//! SAM without an adapter, asked by clicks and boxes on one slice.

use std::collections::VecDeque;

use flapsam_model::burn::tensor::{Device, Tensor};
use flapsam_model::checkpoint::{official, read_safetensors};
use flapsam_model::memory;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::prompts::{Prompt, PromptedSam, Slice};
use serde::Serialize;

use crate::Error;
use crate::device::{Limits, amount};
use crate::promised::{BASE, Promised, SCAN};

/// How many slices' embeddings are kept: 4 MB each with the published networks.
const KEPT: usize = 32;
/// A scan's slice at a place, mm: a number of slices would mean another one to whoever counts along another axis.
///
/// # Errors
/// The scan cannot be read, or is too large.
pub fn slice(scan: Promised, mm: [f64; 3], limits: Limits) -> Result<Slice, Error> {
    Ok(Slice::at(&scan.volume(limits, &Preprocessing::default())?, mm))
}

/// A scan's slice of a number from the feet, from 1.
///
/// # Errors
/// As of [`slice()`], or there is none.
pub fn slice_numbered(scan: Promised, number: usize, limits: Limits) -> Result<Slice, Error> {
    Slice::numbered(&scan.volume(limits, &Preprocessing::default())?, number).map_err(Error::content(SCAN))
}

/// What SAM takes a prompt to mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Masks {
    /// Three masks `[mask, row, column]`, 1 inside.
    #[serde(skip)]
    pub masks: Vec<u8>,
    /// The network's own guess of each mask's intersection over union with what is meant.
    pub scores: Vec<f32>,
    /// Whether the slice was encoded for an earlier prompt.
    pub kept: bool,
}

/// A base on a device, and the slices that it has encoded.
#[derive(Debug)]
pub struct Prompting {
    sam: PromptedSam,
    /// By the sha256 of what the network saw, oldest first.
    embeddings: VecDeque<(String, Tensor<4>)>,
}

impl Prompting {
    /// Checks a base and puts it on the device.
    ///
    /// # Errors
    /// It is not the promised file, or no checkpoint of a known network.
    pub fn load(base: Promised, device: &Device) -> Result<Self, Error> {
        base.check(BASE)?;
        let (state, _) = read_safetensors(base.bytes).map_err(Error::content(BASE))?;
        let state = official(state).map_err(Error::content(BASE))?;
        Ok(Self {
            sam: PromptedSam::new(state, device).map_err(Error::content(BASE))?,
            embeddings: VecDeque::new(),
        })
    }

    /// Masks and scores for a prompt on a slice of `rows` x `columns` values, seen through a window (black, white).
    ///
    /// # Errors
    /// The prompt is empty or not on the slice, the network is too large for the device, or the device stopped.
    pub async fn ask(
        &mut self,
        values: &[f32],
        pixels: [usize; 2],
        window: [f32; 2],
        prompt: &Prompt,
        limits: Limits,
    ) -> Result<Masks, Error> {
        const PROMPT: &str = "the prompt";
        if values.len() != pixels[0] * pixels[1] {
            return Err(Error::Request(format!(
                "{} values are no slice of {pixels:?}",
                values.len()
            )));
        }
        prompt.check(pixels).map_err(Error::content(PROMPT))?;
        self.check(pixels, limits)?;
        let slice = self.sam.prepare(values, pixels, window);
        let sha256 = slice.sha256();
        let found = self.embeddings.iter().find(|(of, _)| *of == sha256);
        let kept = found.map(|(_, embedding)| embedding.clone());
        let embedding = kept.clone().unwrap_or_else(|| self.sam.embed(&slice));
        let answer = self.sam.ask(embedding.clone(), prompt, pixels).await;
        let answer = answer.map_err(Error::content(PROMPT))?;
        if kept.is_none() {
            self.embeddings.push_back((sha256, embedding));
            self.embeddings.drain(..self.embeddings.len().saturating_sub(KEPT));
        }
        Ok(Masks {
            masks: answer.masks(),
            scores: answer.scores,
            kept: kept.is_some(),
        })
    }

    fn check(&self, pixels: [usize; 2], limits: Limits) -> Result<(), Error> {
        let largest = memory::largest_prompted_tensor(&self.sam.config, pixels);
        if !limits.allow(largest) {
            return Err(limits.refuse(largest, pixels));
        }
        let on_cpu = limits.largest_tensor.is_none();
        let needed = memory::prompted_on_cpu(&self.sam.config, pixels);
        if on_cpu && needed > limits.host {
            return Err(Error::Memory(format!(
                "this network needs about {} of memory on the CPU, and a page may take {}; choose WebGPU, or a smaller \
                 network",
                amount(needed),
                amount(limits.host)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
