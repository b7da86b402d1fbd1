//! A run's bytes, as checksums along its way: so that two runs that differ can tell where they parted.

use std::fmt::{self, Display};

use flapsam_model::checkpoint::sha256;
use flapsam_model::parameters::StateDict;
use serde::{Deserialize, Serialize};

/// What a checksum is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// A client's trained parameters after so many steps of its local epoch.
    Step(usize),
    /// The message of a client.
    Sent,
    /// The message to a client.
    Received,
}

/// A moment of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// From 1.
    pub round: usize,
    /// Whose.
    pub client: String,
    /// When.
    pub moment: Moment,
    /// The first sixteen digits of the sha256.
    pub sha256: String,
}

impl Mark {
    /// The mark of a message.
    pub fn of_message(round: usize, client: &str, moment: Moment, message: &[u8]) -> Self {
        Self {
            round,
            client: client.into(),
            moment,
            sha256: short(message),
        }
    }
}

impl Display for Moment {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Step(step) => write!(to, "step {step}"),
            Moment::Sent => write!(to, "sent"),
            Moment::Received => write!(to, "received"),
        }
    }
}

impl Display for Mark {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark {
            round,
            client,
            moment,
            sha256,
        } = self;
        write!(to, "round {round}, client {client}, {moment}: {sha256}")
    }
}

/// The checksum of parameters: of their names and values, in the order of names.
pub fn of_state(state: &StateDict) -> String {
    let mut bytes = Vec::new();
    for (key, array) in state {
        bytes.extend(key.as_bytes());
        bytes.extend(array.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    short(&bytes)
}

fn short(bytes: &[u8]) -> String {
    let mut digits = sha256(bytes);
    digits.truncate(16);
    digits
}
