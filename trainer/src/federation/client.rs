use flapsam_model::parameters::StateDict;
use flapsam_model::random::Random;
use serde::{Deserialize, Serialize};

use crate::data::stacks::{PreparedCase, collate};
use crate::error::Result;
use crate::training::Learner;

/// How a client goes through its data in one local epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalTraining {
    /// Stacks of five slices in a batch.
    pub batch_stacks: usize,
    /// Distance between the centres of an epoch's stacks: 1 takes every slice as a centre (the reference), 5 shows each
    /// slice once.
    #[serde(default = "every_slice")]
    pub stack_stride: usize,
    /// Augment the stacks.
    #[serde(default = "yes")]
    pub augment: bool,
}

fn every_slice() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// A hospital: its training cases and its learner, whose optimizer lives on between rounds.
#[derive(Debug)]
pub struct Client {
    /// Its name.
    pub site: String,
    cases: Vec<PreparedCase>,
    learner: Learner,
    seed: u64,
}

impl Client {
    /// A client that starts with this learner.
    pub fn new(site: &str, cases: Vec<PreparedCase>, learner: Learner, seed: u64) -> Self {
        Self {
            site: site.into(),
            cases,
            learner,
            seed,
        }
    }

    /// One epoch over the client's stacks in an order of its own; returns the mean loss of the steps.
    ///
    /// # Errors
    /// The weights are not those of the network.
    pub fn local_epoch(&mut self, round: usize, training: &LocalTraining) -> Result<f64> {
        let name = format!("{}/round {round}", self.site);
        let mut random = Random::new(self.seed, &name);
        let mut centres = Vec::new();
        for (case, prepared) in self.cases.iter().enumerate() {
            let first = random.below(training.stack_stride);
            centres.extend(
                (first..prepared.len())
                    .step_by(training.stack_stride)
                    .map(|centre| (case, centre)),
            );
        }
        random.shuffle(&mut centres);
        let batches = centres.chunks(training.batch_stacks);
        let count = batches.len().max(1);
        let mut sum = 0.0;
        for batch in batches {
            let stacks = batch.iter().map(|&(case, centre)| {
                let mut stream = Random::new(self.seed, &format!("{name}/{case}/{centre}"));
                self.cases[case].stack(centre, training.augment.then_some(&mut stream))
            });
            let batch = collate(stacks.collect());
            sum += self.learner.step(&batch)? as f64;
        }
        Ok(sum / count as f64)
    }

    /// The learner, for inference.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// All trained parameters, the personal ones included.
    pub fn trained(&self) -> StateDict {
        self.learner.trained()
    }

    /// Takes over the server's parameters; personal ones and the optimizer stay.
    pub fn receive(&mut self, global: &StateDict) {
        self.learner.load(global);
    }
}
