use std::collections::BTreeSet;

use burn::tensor::{Device, Gradients};
use flapsam_kernels::in_turn;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::parameters::{Parameters, StateDict, to_vec};
use flapsam_model::sam::Sam;
use flapsam_model::segment::{finite, to_input};

use super::{AdamW, Loss, OptimizerState, Schedule, loss};
use crate::data::batches::stacks::Batch;
use crate::error::{Error, Result};

/// A network in training: its weights, and the optimizer that goes with them.
#[derive(Debug, Clone)]
pub struct Learner {
    sam: SamConfig,
    adapter: AdapterConfig,
    parameters: Parameters,
    trained: BTreeSet<String>,
    optimizer: AdamW,
    schedule: Schedule,
    step: usize,
    device: Device,
}

impl Learner {
    /// A learner from a whole network's weights on their device, and the names of those it trains. Learners that
    /// start from clones of one [`Parameters`] share what they do not train.
    pub fn new(
        sam: &SamConfig,
        adapter: &AdapterConfig,
        mut parameters: Parameters,
        trained: BTreeSet<String>,
        optimizer: AdamW,
        schedule: Schedule,
        device: &Device,
    ) -> Self {
        parameters.require_grad(&trained);
        Self {
            sam: sam.clone(),
            adapter: adapter.clone(),
            parameters,
            trained,
            optimizer,
            schedule,
            step: 0,
            device: device.clone(),
        }
    }

    /// Side of the image that it trains on, pixels.
    pub fn image_size(&self) -> usize {
        self.sam.image_size
    }

    /// Forward and backward: the loss, and the gradients of the trained parameters.
    ///
    /// # Errors
    /// The weights are not those of the network.
    pub fn backward(&self, batch: &Batch) -> Result<(Loss, Gradients)> {
        let network = Sam::new(&self.sam, Some(&self.adapter), &self.parameters)?;
        let side = self.sam.image_size;
        let input = to_input(batch.slices.clone(), side, &self.device);
        let logits = network.to_image_size(network.logits(input));
        let loss = loss(logits, &batch.labels);
        let gradients = loss.total.backward();
        Ok((loss, gradients))
    }

    /// One optimizer step; returns the loss before it.
    ///
    /// # Errors
    /// See [`Learner::backward`]; or the loss, a gradient or an updated parameter is no finite number.
    pub fn step(&mut self, batch: &Batch) -> Result<f32> {
        in_turn(|| self.step_here(batch))
    }

    fn step_here(&mut self, batch: &Batch) -> Result<f32> {
        let (loss, mut gradients) = self.backward(batch)?;
        let value = to_vec(loss.total)[0];
        self.step += 1;
        let step = self.step;
        let failed = move |why| Error::Message(format!("step {step}: {why}, or lower 'base_lr'"));
        finite(&[value], || "the loss".into()).map_err(failed)?;
        let rate = self.schedule.rate(step - 1);
        let stepped = self.optimizer.step(&mut self.parameters, &mut gradients, rate);
        stepped.map_err(failed)?;
        Ok(value)
    }

    /// The gradient of a parameter, row-major; `None` when the loss does not depend on it.
    pub fn gradient(&self, key: &str, gradients: &Gradients) -> Option<Vec<f32>> {
        let parameter = self.parameters.get(key)?;
        Some(to_vec::<1>(parameter.flat.grad(gradients)?))
    }

    /// The trained parameters.
    pub fn trained(&self) -> StateDict {
        self.parameters.state(&self.trained)
    }

    /// From now on, pulls the trained parameters back to what they are at this moment (FedProx).
    pub fn pull_back(&mut self, weight: f64) {
        self.optimizer.pull_back(weight, &mut self.parameters);
    }

    /// The steps so far, and what the optimizer holds, to go on from later.
    pub fn optimizer_state(&self) -> (usize, OptimizerState) {
        (self.step, self.optimizer.state())
    }

    /// Goes on from an earlier [`Learner::optimizer_state`].
    pub fn restore_optimizer(&mut self, steps: usize, state: OptimizerState) {
        self.optimizer.restore(state, &self.device);
        self.step = steps;
    }

    /// Takes over parameters that are no continuation of its own: the optimizer forgets what it knew of them.
    pub fn begin_anew_with(&mut self, state: &StateDict) {
        self.load(state);
        self.optimizer.forget(state.keys());
    }

    /// Takes over the given parameters; the optimizer's state stays.
    pub fn load(&mut self, state: &StateDict) {
        self.parameters.load(state, &self.device);
        self.parameters.require_grad(&self.trained);
    }

    /// A view of the network for inference, without autodiff.
    ///
    /// # Errors
    /// See [`Learner::backward`].
    pub fn network(&self) -> Result<Sam> {
        let frozen = self.parameters.without_autodiff();
        Ok(Sam::new(&self.sam, Some(&self.adapter), &frozen)?)
    }
}
