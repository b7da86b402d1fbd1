//! SAM without an adapter, asked by clicks and boxes on one slice.

use std::collections::VecDeque;

use flapsam_model::burn::tensor::{Device, Tensor};
use flapsam_model::checkpoint::{official, read_safetensors};
use flapsam_model::memory;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::prompts::{Encoding, Prompt, PromptedSam, Seen, Slice};
use flapsam_model::volume::Plane;
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
pub fn slice(scan: Promised, plane: Plane, mm: [f64; 3], limits: Limits) -> Result<Slice, Error> {
    Ok(Slice::at(&scan.volume(limits, &Preprocessing::default())?, plane, mm))
}

/// A scan's slice of a number, from 1, from the first of [`Plane::ends`].
///
/// # Errors
/// As of [`slice()`], or there is none.
pub fn slice_numbered(scan: Promised, plane: Plane, number: usize, limits: Limits) -> Result<Slice, Error> {
    Slice::numbered(&scan.volume(limits, &Preprocessing::default())?, plane, number).map_err(Error::content(SCAN))
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
    /// By the sha256 of what was seen, oldest first.
    embeddings: VecDeque<(String, Tensor<4>)>,
    /// One that was stopped, likewise.
    begun: Option<(String, Encoding)>,
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
            begun: None,
        })
    }

    /// Masks and scores for a prompt on a slice; nothing if `go_on`, told how much of the slice is encoded, stopped it.
    ///
    /// # Errors
    /// The prompt is empty or not on the slice, the network is too large for the device, or the device stopped.
    pub async fn ask(
        &mut self,
        seen: Seen<'_>,
        prompt: &Prompt,
        limits: Limits,
        go_on: impl AsyncFnMut(usize, usize) -> Result<bool, Error>,
    ) -> Result<Option<Masks>, Error> {
        const PROMPT: &str = "the prompt";
        prompt.check(seen.pixels).map_err(Error::content(PROMPT))?;
        let Some((embedding, kept)) = self.encode(seen, limits, go_on).await? else {
            return Ok(None);
        };
        let answer = self.sam.ask(embedding, prompt, seen.pixels).await;
        let answer = answer.map_err(Error::content(PROMPT))?;
        Ok(Some(Masks {
            masks: answer.masks(),
            scores: answer.scores,
            kept,
        }))
    }

    /// Encodes a slice that may be asked about: its embedding, and whether it was there already; nothing if it was stopped.
    /// What was stopped goes on where it was, unless another slice was stopped meanwhile.
    ///
    /// # Errors
    /// As of [`Prompting::ask`].
    pub async fn encode(
        &mut self,
        seen: Seen<'_>,
        limits: Limits,
        mut go_on: impl AsyncFnMut(usize, usize) -> Result<bool, Error>,
    ) -> Result<Option<(Tensor<4>, bool)>, Error> {
        let (values, pixels) = (seen.values.len(), seen.pixels);
        if values != pixels[0] * pixels[1] {
            return Err(Error::Request(format!("{values} values are no slice of {pixels:?}")));
        }
        self.check(pixels, limits)?;
        let sha256 = seen.sha256();
        if let Some((_, embedding)) = self.embeddings.iter().find(|(of, _)| *of == sha256) {
            return Ok(Some((embedding.clone(), true)));
        }
        let begun = self.begun.take_if(|(of, _)| *of == sha256);
        let mut encoding = begun.map_or_else(|| self.sam.begin(&self.sam.prepare(seen)), |(_, encoding)| encoding);
        loop {
            if let Some(embedding) = encoding.embedding() {
                self.embeddings.push_back((sha256, embedding.clone()));
                self.embeddings.drain(..self.embeddings.len().saturating_sub(KEPT));
                return Ok(Some((embedding, false)));
            }
            if !go_on(encoding.done, encoding.of).await? {
                self.begun = Some((sha256, encoding));
                return Ok(None);
            }
            self.sam.proceed(&mut encoding);
        }
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
