//! One federation over many machines: each client at its own site, the server at another, and files that travel between
//! them. Who carries the files is not this program's business; that they end in the same bytes as a run in one process is.

mod client;
mod server;

use std::path::Path;

use flapsam_model::checkpoint::sha256;
use serde::{Deserialize, Serialize};

pub use client::{Answer, SiteClient, SiteReport};
pub use server::{Coordinator, Standing};

use super::network::Network;
use super::{Experiment, Setting};
use crate::error::{Error, Result};
use crate::federation::envelope::{Agreement, Kind};

/// A site's entry into a federation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Its name.
    pub site: String,
    /// Slices of each case that it trains on: in all, its weight in the average.
    pub slices: Vec<usize>,
    /// Where it computes.
    pub device: String,
    /// What it must have in common with the others.
    pub agreement: Agreement,
    /// The settings of its experiment, so that one can say what differs.
    pub settings: String,
}

impl Kind for Enrolment {
    const NAME: &'static str = "the enrolment";
}

/// The state that a site gets before it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brings {
    /// None: before the first round all have the same by the seed.
    Nothing,
    /// What the server sent after the round before, for those who took part in it.
    LastRound,
    /// All that the server has, for those who missed something.
    Whole,
}

/// What the server asks of a site: to take over the state in it, and to train a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What sender and receiver must have in common.
    pub agreement: Agreement,
    /// The round to train, from 1; after the last one there is nothing left to train.
    pub round: usize,
    /// What state comes with it.
    pub brings: Brings,
    /// The site's share in the average of all, where the server learns sums alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl Kind for Order {
    const NAME: &'static str = "the order";
}

/// What a site hands in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedIn {
    /// What sender and receiver must have in common.
    pub agreement: Agreement,
    /// sha256 of the order that it answers.
    pub order: String,
    /// The update, but for its message.
    pub update: crate::federation::Update,
}

impl Kind for HandedIn {
    const NAME: &'static str = "the update";
}

/// What all sites of an experiment must have in common.
fn agreement(experiment: &Experiment, network: &Network, classes: &[String], seed: u64) -> Agreement {
    let settings = [experiment.deciding_settings(), classes.join(","), seed.to_string()];
    Agreement {
        program: format!("flapsam {}", env!("CARGO_PKG_VERSION")),
        sources: env!("FLAPSAM_SOURCES").to_owned(),
        base: network.base_sha256().to_owned(),
        settings: sha256(settings.join("\n").as_bytes()),
    }
}

/// Refuses experiments that no federation over several sites can be.
fn check(experiment: &Experiment) -> Result<()> {
    if !experiment.fault.is_empty() {
        let why = "[[fault]] is for runs in one process; remove it";
        return Err(Error::invalid(&experiment.path, why));
    }
    if experiment.clients_per_site.is_some() {
        let why = "'clients_per_site' is for runs in one process: across sites, who takes part is a client; remove it";
        return Err(Error::invalid(&experiment.path, why));
    }
    let why = match (experiment.setting, &experiment.leave_out) {
        (Setting::Federated, None) => return Ok(()),
        (Setting::Federated, Some(_)) => {
            "'leave_out' is for runs in one process; do not invite that site, and remove it"
        }
        _ => "only an experiment with setting = \"federated\" can run across sites",
    };
    Err(Error::invalid(&experiment.path, why))
}

/// Names a file in what is wrong with it.
fn of_file<T>(path: &Path, opened: std::result::Result<T, flapsam_model::Error>) -> Result<T> {
    opened.map_err(Error::content(path))
}
