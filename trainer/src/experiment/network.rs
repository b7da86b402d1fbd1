//! The network of an experiment.

use std::path::Path;

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::adapt;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::parameters::{Layout, StateDict, pairs};
use flapsam_model::sam::Sam;

use super::Experiment;
use crate::error::{Error, Result};
use crate::state_dict::read_state_dict;

/// What an experiment's network is, and so what its adapters say of themselves.
#[derive(Debug, Clone)]
pub(super) struct Network {
    about: AdapterMetadata,
}

impl Network {
    /// The network of an experiment, and its weights before the first step.
    ///
    /// # Errors
    /// There is no network of that name, or the base cannot be read or is no checkpoint of it.
    pub(super) fn begin(
        experiment: &Experiment,
        classes: &[String],
        seed: u64,
        data_root: &Path,
    ) -> Result<(Self, StateDict)> {
        let path = experiment.base_checkpoint(data_root);
        let (base, base_sha256) = read_state_dict(&path)?;
        let (sam, adapter) = configs(experiment, classes.len())?;
        let state = adapt(&base, &sam, Some(&adapter), seed).map_err(Error::content(&path))?;
        let about = AdapterMetadata {
            method: experiment.method,
            sam,
            adapter,
            classes: classes.to_vec(),
            preprocessing: experiment.preprocessing.clone(),
            base_sha256,
            seed,
        };
        Ok((Self { about }, state))
    }

    /// Its shape.
    pub(super) fn sam(&self) -> &SamConfig {
        &self.about.sam
    }

    /// How it is adapted, with pairs of this rank.
    pub(super) fn adapter(&self, rank: usize) -> AdapterConfig {
        AdapterConfig {
            rank,
            ..self.about.adapter.clone()
        }
    }

    /// The rank of its pairs.
    pub(super) fn rank(&self) -> usize {
        self.about.adapter.rank
    }

    /// The rank of a site's pairs.
    pub(super) fn rank_of(&self, site: &str, experiment: &Experiment) -> usize {
        experiment.ranks.get(site).copied().unwrap_or(self.rank())
    }

    /// sha256 of the base's file.
    pub(super) fn base_sha256(&self) -> &str {
        &self.about.base_sha256
    }

    /// Its parameters, with pairs of this rank.
    ///
    /// # Errors
    /// The adapter does not fit the network.
    pub(super) fn layout(&self, rank: usize) -> Result<Layout> {
        Ok(Sam::layout(self.sam(), Some(&self.adapter(rank)))?)
    }

    /// The adapter that holds a state, whose pairs may be of another rank.
    ///
    /// # Errors
    /// See [`Network::layout`].
    pub(super) fn adapter_of(&self, state: StateDict) -> Result<Adapter> {
        let layout = self.layout(self.rank())?;
        let rank = pairs(&layout).find_map(|pair| Some(state.get(&pair.a)?.shape[0]));
        let metadata = AdapterMetadata {
            adapter: self.adapter(rank.unwrap_or(self.rank())),
            ..self.about.clone()
        };
        Ok(Adapter { metadata, state })
    }
}

/// The network of an experiment, and how it is adapted to so many classes, the background included.
///
/// # Errors
/// There is no network of that name.
pub(super) fn configs(experiment: &Experiment, classes: usize) -> Result<(SamConfig, AdapterConfig)> {
    let named = SamConfig::named(&experiment.model).ok_or_else(|| {
        let known = SamConfig::NAMES.join(", ");
        let why = format!("there is no model '{}'; choose one of {known}", experiment.model);
        Error::invalid(&experiment.path, why)
    })?;
    let adapter = AdapterConfig {
        lora_init: experiment.lora_init,
        num_lora: experiment.num_lora,
        dora: experiment.dora,
        train_magnitude: experiment.train_magnitude,
        ..AdapterConfig::lora(classes - 1, experiment.rank)
    };
    Ok((
        named.with_image_size(experiment.image_size),
        experiment.method.adapter(&adapter),
    ))
}
