//! What goes wrong at a client, on purpose: so that one can see what it does to the others.

use flapsam_model::parameters::{Array, Layout, StateDict};
use serde::{Deserialize, Serialize};

use super::robust::moved;
use super::wire::{Precision, decode, encode};

/// A client that misbehaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Whose it is.
    pub client: String,
    /// What goes wrong.
    pub kind: FaultKind,
    /// In which rounds, from 1; in all without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<usize>,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// It never answers.
    Silent,
    /// A number of its update is NaN.
    NotFinite,
    /// A tensor of its update has another shape.
    WrongShape,
    /// It sends what it sent in the round before.
    Replayed,
    /// Its change is so many times as large.
    Scaled {
        /// Any number.
        times: f64,
    },
    /// It goes the opposite way.
    SignFlip,
    /// It trains on labels in reverse order of classes: background for the last one, and so on.
    LabelFlip,
}

impl Fault {
    /// Whether it strikes a client in a round.
    pub fn strikes(&self, client: &str, round: usize) -> bool {
        self.client == client && (self.rounds.is_empty() || self.rounds.contains(&round))
    }
}

impl FaultKind {
    /// What a client says that has trained a state from another one.
    pub fn said(self, trained: StateDict, before: &StateDict, layout: &Layout) -> StateDict {
        match self {
            Self::Scaled { times } => moved(&trained, before, times, layout),
            Self::SignFlip => moved(&trained, before, -1.0, layout),
            Self::Silent | Self::NotFinite | Self::WrongShape | Self::Replayed | Self::LabelFlip => trained,
        }
    }

    /// What becomes of its message on the way.
    pub fn spoilt(self, message: Vec<u8>, precision: Precision) -> Vec<u8> {
        let spoil: fn(&mut Array) = match self {
            Self::NotFinite => |array| array.values[0] = f32::NAN,
            Self::WrongShape => |array| array.shape = vec![array.values.len(), 1, 1],
            _ => return message,
        };
        let Ok(mut state) = decode(&message) else {
            return message;
        };
        if let Some(array) = state.values_mut().find(|array| !array.values.is_empty()) {
            spoil(array);
        }
        encode(&state, precision)
    }
}
