use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use flapsam_model::parameters::StateDict;
use flapsam_model::random::Random;
use serde::{Deserialize, Serialize};

use super::trace::{Mark, Moment, of_state};
use crate::data::batches::prepared::PreparedCase;
use crate::data::batches::stacks::{collate, stack};
use crate::error::{Error, Result};
use crate::training::{Learner, OptimizerState};

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
    /// The share of each case's stacks that an epoch takes, drawn anew for every epoch by the seed: above 0, at most 1, and
    /// at least one stack.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub share: f64,
    /// Augment the stacks.
    #[serde(default = "yes")]
    pub augment: bool,
    /// FedProx: how strongly a client is pulled back to the state it started the round with; 0 is FedAvg.
    #[serde(default)]
    pub proximal: f64,
}

impl LocalTraining {
    /// How many of a case's stacks an epoch takes.
    pub fn taken(&self, stacks: usize) -> usize {
        ((self.share * stacks as f64).ceil() as usize).clamp(stacks.min(1), stacks)
    }

    /// Stacks of an epoch, of a case of so many slices.
    pub fn stacks(&self, slices: usize) -> usize {
        self.taken(slices.div_ceil(self.stack_stride))
    }
}

fn all() -> f64 {
    1.0
}

fn is_all(share: &f64) -> bool {
    *share == all()
}

fn every_slice() -> usize {
    1
}

fn yes() -> bool {
    true
}

/// Batches that wait for the learner.
const AHEAD: usize = 4;

/// What an epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean loss of the steps.
    pub loss: f64,
    /// How long it took.
    pub seconds: f64,
    /// How much of that the learner waited for data.
    pub waiting: f64,
    /// What was trained after the first, the tenth and the last step.
    pub marks: Vec<Mark>,
}

/// After this step of an epoch, and after its first and last one, what was trained leaves a [`Mark`].
const MARKED_STEP: usize = 10;

/// A hospital: its training cases and its learner, whose optimizer lives on between rounds.
#[derive(Debug)]
pub struct Client {
    /// Its name.
    pub site: String,
    cases: Vec<PreparedCase>,
    learner: Learner,
    seed: u64,
    /// Trains on labels in reverse order of classes: what a bad client may do.
    flips_labels: bool,
}

impl Client {
    /// A client that starts with this learner.
    pub fn new(site: &str, cases: Vec<PreparedCase>, learner: Learner, seed: u64) -> Self {
        Self {
            site: site.into(),
            cases,
            learner,
            seed,
            flips_labels: false,
        }
    }

    /// From now on, trains on labels in reverse order of classes, or as they are.
    pub fn flip_labels(&mut self, flip: bool) {
        self.flips_labels = flip;
    }

    /// One epoch over the client's stacks in an order of its own.
    ///
    /// # Errors
    /// A case's file cannot be read, or the weights are not those of the network.
    pub fn local_epoch(&mut self, round: usize, training: &LocalTraining) -> Result<Epoch> {
        let start = Instant::now();
        let name = format!("{}/round {round}", self.site);
        let centres = self.centres(training, &mut Random::new(self.seed, &name))?;
        let (cases, seed, side) = (&self.cases, self.seed, self.learner.image_size());
        let load = |&(case, centre): &(usize, usize)| {
            let mut stream = Random::new(seed, &format!("{name}/{case}/{centre}"));
            stack(&cases[case], centre, side, training.augment.then_some(&mut stream))
        };
        let batches = centres.chunks(training.batch_stacks);
        let (count, mut done, mut marks) = (batches.len(), 0, Vec::new());
        let (mut sum, mut waiting) = (0.0, Duration::ZERO);
        let last_class = self.flips_labels.then(|| self.learner.classes() as i32 - 1);
        let learner = &mut self.learner;
        if training.proximal > 0.0 {
            learner.pull_back(training.proximal);
        }
        if !training.augment {
            learner.keep_embeddings();
        }
        // While a batch is trained on, the next ones are read and augmented.
        std::thread::scope(|scope| -> Result<()> {
            let (ready, loaded) = sync_channel(AHEAD);
            scope.spawn(move || {
                batches
                    .map(|batch| collate(batch, load))
                    .try_for_each(|batch| ready.send(batch))
            });
            loop {
                let asked = Instant::now();
                let Ok(batch) = loaded.recv() else {
                    return Ok(());
                };
                waiting += asked.elapsed();
                let mut batch = batch?;
                if let Some(last) = last_class {
                    batch.labels.iter_mut().for_each(|label| *label = last - *label);
                }
                sum += learner.step(&batch)? as f64;
                done += 1;
                if [1, MARKED_STEP, count].contains(&done) {
                    marks.push(Mark {
                        round,
                        client: self.site.clone(),
                        moment: Moment::Step(done),
                        sha256: of_state(&learner.trained()),
                    });
                }
            }
        })?;
        Ok(Epoch {
            loss: sum / count as f64,
            seconds: start.elapsed().as_secs_f64(),
            waiting: waiting.as_secs_f64(),
            marks,
        })
    }

    /// The stacks of an epoch, each by its case and its centre, in the order in which they are trained on.
    ///
    /// # Errors
    /// There is none.
    fn centres(&self, training: &LocalTraining, random: &mut Random) -> Result<Vec<(usize, usize)>> {
        let mut centres = Vec::new();
        for (case, prepared) in self.cases.iter().enumerate() {
            // A case of fewer slices than the stride has a stack all the same.
            let first = random.below(training.stack_stride.min(prepared.len().max(1)));
            let mut own: Vec<usize> = (first..prepared.len()).step_by(training.stack_stride).collect();
            let taken = training.taken(own.len());
            if taken < own.len() {
                random.shuffle(&mut own);
                own.truncate(taken);
            }
            centres.extend(own.into_iter().map(|centre| (case, centre)));
        }
        if centres.is_empty() {
            let why = "it has no slice to train on; give the site a training case, or leave it out";
            return Err(Error::Message(why.into()));
        }
        random.shuffle(&mut centres);
        Ok(centres)
    }

    /// From now on, trains only these of the parameters that it trains at all.
    pub fn train_only(&mut self, trained: impl Fn(&str) -> bool) {
        self.learner.train_only(trained);
    }

    /// All trained parameters, the personal ones included.
    pub fn trained(&self) -> StateDict {
        self.learner.trained()
    }

    /// Puts these parameters in place of its own of the same name; the optimizer stays.
    pub fn receive(&mut self, parameters: &StateDict) {
        self.learner.load(parameters);
    }

    /// Puts these parameters in place of others that they do not continue; the optimizer forgets those.
    pub fn begin_anew_with(&mut self, parameters: &StateDict) {
        self.learner.begin_anew_with(parameters);
    }

    /// The steps so far, and what the optimizer holds, to go on from later.
    pub fn optimizer_state(&self) -> (usize, OptimizerState) {
        self.learner.optimizer_state()
    }

    /// Goes on from an earlier [`Client::optimizer_state`].
    pub fn restore_optimizer(&mut self, steps: usize, state: OptimizerState) {
        self.learner.restore_optimizer(steps, state);
    }
}
