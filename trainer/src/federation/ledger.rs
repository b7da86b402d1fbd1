//! What travelled: the bytes of every message, by group of tensors, beside the count by formula.

use std::collections::BTreeMap;

use flapsam_model::parameters::{Layout, Part, Role, Spec};
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

use super::wire::{Precision, scales_of};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
    /// From the client to the server, which did not use it.
    LeftOut,
}

/// One line: a group of tensors in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1.
    pub round: usize,
    /// The client that sent or received it.
    pub client: String,
    /// Which way.
    pub direction: Direction,
    /// `lora_encoder`, `lora_decoder`, `heads`, `image_encoder`, `prompt_encoder` or `mask_decoder`; `header` is the
    /// message's list of names and shapes, and `message` all of one that was not used.
    pub group: String,
    /// Parameters in the group.
    pub parameters: u64,
    /// Bytes that were serialised.
    pub bytes: u64,
    /// Parameters times the bytes of one: what papers count.
    pub formula_bytes: u64,
}

/// The group that a parameter is counted in.
fn group(spec: &Spec) -> &'static str {
    match (spec.part, &spec.role) {
        (Part::ImageEncoder, role) if role.is_lora() => "lora_encoder",
        (_, role) if role.is_lora() => "lora_decoder",
        (Part::ImageEncoder, _) => "image_encoder",
        (_, Role::Head) => "heads",
        (Part::PromptEncoder, _) => "prompt_encoder",
        (Part::MaskDecoder, _) => "mask_decoder",
    }
}

/// The lines of one message.
///
/// # Panics
/// If the message is no safetensors file of the network's parameters (a programming error: messages are written here).
pub fn entries(
    round: usize,
    client: &str,
    direction: Direction,
    message: &[u8],
    precision: Precision,
    layout: &Layout,
) -> Vec<Entry> {
    let tensors = SafeTensors::deserialize(message).expect("it was encoded here");
    let mut groups: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for (key, view) in tensors.iter() {
        let scaled = scales_of(key);
        let (parameters, bytes) = groups.entry(group(&layout[scaled.unwrap_or(key)])).or_default();
        // A scale counts as bytes, not as a parameter.
        if scaled.is_none() {
            *parameters += view.shape().iter().product::<usize>() as u64;
        }
        *bytes += view.data().len() as u64;
    }
    let held: u64 = groups.values().map(|(_, bytes)| bytes).sum();
    let entry = |(group, (parameters, bytes)): (&str, (u64, u64))| Entry {
        round,
        client: client.to_owned(),
        direction,
        group: group.to_owned(),
        parameters,
        bytes,
        formula_bytes: parameters * precision.bytes(),
    };
    let header = ("header", (0, message.len() as u64 - held));
    groups.into_iter().chain([header]).map(entry).collect()
}

/// Sums over entries, one round's or a whole run's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes from the clients to the server, as serialised.
    pub up: u64,
    /// Bytes from the server to the clients, as serialised.
    pub down: u64,
    /// The clients' parameters times the bytes of one.
    pub up_by_formula: u64,
    /// The server's parameters times the bytes of one.
    pub down_by_formula: u64,
}

impl Traffic {
    /// The sums.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut sum = Self::default();
        for entry in entries {
            let (bytes, formula) = match entry.direction {
                Direction::Up | Direction::LeftOut => (&mut sum.up, &mut sum.up_by_formula),
                Direction::Down => (&mut sum.down, &mut sum.down_by_formula),
            };
            *bytes += entry.bytes;
            *formula += entry.formula_bytes;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use flapsam_model::config::{AdapterConfig, SamConfig};
    use flapsam_model::parameters::{Array, StateDict};
    use flapsam_model::sam::Sam;

    use super::*;
    use crate::federation::wire::encode;

    #[test]
    fn every_byte_of_a_message_is_in_one_group() {
        let nano = SamConfig::named("nano").unwrap();
        let layout = Sam::layout(&nano, Some(&AdapterConfig::lora(1, 2))).unwrap();
        let keys = [
            "image_encoder.blocks.0.attn.lora_w_a_q.0.weight",
            "mask_decoder.transformer.layers.0.self_attn.lora_w_a_q.0.weight",
            "mask_decoder.mask_tokens.weight",
            "mask_decoder.iou_token.weight",
            "prompt_encoder.no_mask_embed.weight",
            "image_encoder.pos_embed",
        ];
        let array = |key: &str| Array::new(layout[key].shape.clone(), vec![0.5; layout[key].count()]);
        let state: StateDict = keys.map(|key| (key.to_owned(), array(key))).into();
        let parameters: u64 = keys.map(|key| layout[key].count() as u64).iter().sum();
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            let message = encode(&state, precision);
            let entries = entries(1, "A", Direction::Up, &message, precision, &layout);
            let names: Vec<&str> = entries.iter().map(|entry| entry.group.as_str()).collect();
            let expected = [
                "heads",
                "image_encoder",
                "lora_decoder",
                "lora_encoder",
                "mask_decoder",
                "prompt_encoder",
                "header",
            ];
            assert_eq!(names, expected);
            let traffic = Traffic::of(&entries);
            assert_eq!(traffic.up, message.len() as u64);
            assert_eq!(traffic.up_by_formula, parameters * precision.bytes());
            assert_eq!(traffic.down, 0);
        }
    }
}
