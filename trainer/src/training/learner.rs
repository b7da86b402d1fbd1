use std::collections::BTreeSet;

use burn::tensor::{Device, Gradients, Tensor};
use flapsam_kernels::in_turn;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::parameters::{Parameters, Part, StateDict, to_vec};
use flapsam_model::sam::Sam;
use flapsam_model::segment::{finite, to_input};

use super::embeddings::Embeddings;
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
    /// Those of them that are trained at this time.
    moving: BTreeSet<String>,
    optimizer: AdamW,
    schedule: Schedule,
    step: usize,
    device: Device,
    /// What the image encoder made of the slices so far, where that is kept.
    embeddings: Option<Embeddings>,
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
            moving: trained.clone(),
            trained,
            optimizer,
            schedule,
            step: 0,
            device: device.clone(),
            embeddings: None,
        }
    }

    /// From now on, keeps what the image encoder makes of each slice, if the encoder stays as it is: worth its memory
    /// where slices come again as they were.
    pub fn keep_embeddings(&mut self) {
        if self.embeddings.is_none() && !self.trained.iter().any(|key| Part::ImageEncoder.holds(key)) {
            self.embeddings = Some(Embeddings::default());
        }
    }

    /// How many classes it tells apart, the background included.
    pub fn classes(&self) -> usize {
        self.adapter.num_classes + 1
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
        let network = self.network_in_training()?;
        let embedding = network.image_encoder.forward(self.input(batch.slices.clone()));
        Ok(backward_from(&network, embedding, &batch.labels))
    }

    /// The same, with the embeddings that are kept.
    fn backward_from_kept(&self, embeddings: &mut Embeddings, batch: &Batch) -> Result<(Loss, Gradients)> {
        let encoder = self.network()?.image_encoder;
        let side = self.sam.image_size;
        let encode = |slices| encoder.forward(self.input(slices).without_autodiff());
        let embedding = embeddings.of(&batch.slices, side * side, encode).autodiff();
        Ok(backward_from(&self.network_in_training()?, embedding, &batch.labels))
    }

    fn input(&self, slices: Vec<f32>) -> Tensor<4> {
        to_input(slices, self.sam.image_size, &self.device)
    }

    /// One optimizer step; returns the loss before it.
    ///
    /// # Errors
    /// See [`Learner::backward`]; or the loss, a gradient or an updated parameter is no finite number.
    pub fn step(&mut self, batch: &Batch) -> Result<f32> {
        in_turn(|| self.step_here(batch))
    }

    fn step_here(&mut self, batch: &Batch) -> Result<f32> {
        let (loss, mut gradients) = match self.embeddings.take() {
            None => self.backward(batch)?,
            Some(mut embeddings) => {
                let result = self.backward_from_kept(&mut embeddings, batch)?;
                self.embeddings = Some(embeddings);
                result
            }
        };
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
        if let Some(embeddings) = self
            .embeddings
            .as_mut()
            .filter(|_| state.keys().any(|key| Part::ImageEncoder.holds(key)))
        {
            *embeddings = Embeddings::default();
        }
        self.parameters.load(state, &self.device);
        self.parameters.require_grad(&self.moving);
    }

    /// From now on, trains only these of the parameters that it trains at all; the others keep their optimizer's state.
    pub fn train_only(&mut self, trained: impl Fn(&str) -> bool) {
        self.moving = self.trained.iter().filter(|key| trained(key)).cloned().collect();
        self.parameters.require_grad(&self.moving);
    }

    /// A view of the network for inference, without autodiff.
    ///
    /// # Errors
    /// See [`Learner::backward`].
    pub fn network(&self) -> Result<Sam> {
        let frozen = self.parameters.without_autodiff();
        Ok(Sam::new(&self.sam, Some(&self.adapter), &frozen)?)
    }

    fn network_in_training(&self) -> Result<Sam> {
        Ok(Sam::new(&self.sam, Some(&self.adapter), &self.parameters)?)
    }
}

/// The loss of a network whose image encoder gave this embedding, and its gradients.
fn backward_from(network: &Sam, embedding: Tensor<4>, labels: &[i32]) -> (Loss, Gradients) {
    let (logits, _) = network.predict(embedding, &[]);
    let loss = loss(network.to_image_size(logits), labels);
    let gradients = loss.total.backward();
    (loss, gradients)
}

#[cfg(test)]
mod tests {
    use flapsam_model::method::Method;
    use flapsam_model::parameters::initialise;
    use flapsam_model::random::Random;

    use super::*;

    /// Steps on kept embeddings end in the same bits as steps that compute them, also after the network was loaded anew.
    #[test]
    fn kept_embeddings_change_nothing() {
        let device = Device::flex();
        let sam = SamConfig::named("nano").unwrap().with_image_size(32);
        let adapter = AdapterConfig::lora(1, 4).without_lora();
        let layout = Sam::layout(&sam, Some(&adapter)).unwrap();
        let learner = |method: Method| {
            let schedule = Schedule {
                base_lr: 1e-2,
                warmup_period: 1,
                max_iterations: 10,
                lr_exp: 1,
            };
            let (weights, trained) = (initialise(&layout, 1), method.trained(&layout));
            let parameters = Parameters::new(&weights, &device);
            Learner::new(&sam, &adapter, parameters, trained, AdamW::new(0.1), schedule, &device)
        };
        let batch = |seed: &[u64]| {
            let slices = seed.iter().flat_map(|&seed| {
                let mut random = Random::new(seed, "slice");
                (0..32 * 32).map(move |_| random.unit() as f32)
            });
            Batch {
                slices: slices.collect(),
                labels: (0..32 * 32 * seed.len())
                    .map(|place| i32::from(place % 3 == 0))
                    .collect(),
            }
        };
        for method in [Method::DecoderFt, Method::FullFt] {
            let (mut plain, mut keeping) = (learner(method), learner(method));
            keeping.keep_embeddings();
            assert_eq!(keeping.embeddings.is_some(), method == Method::DecoderFt);
            for seeds in [&[1, 2, 2][..], &[3, 2], &[1]] {
                let losses = [&mut plain, &mut keeping].map(|learner| learner.step(&batch(seeds)).unwrap());
                assert_eq!(losses[0], losses[1]);
            }
            assert_eq!(plain.trained(), keeping.trained());
            let other = initialise(&layout, 2);
            for learner in [&mut plain, &mut keeping] {
                learner.load(&other);
                learner.step(&batch(&[2, 3])).unwrap();
            }
            assert_eq!(plain.trained(), keeping.trained());
        }
    }
}
