use std::collections::BTreeMap;

use burn::tensor::{Gradients, Tensor};
use flapsam_model::parameters::Parameters;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// AdamW with decoupled weight decay, by name, so that its state can travel with a client.
#[derive(Debug, Clone)]
pub struct AdamW {
    weight_decay: f64,
    steps: i32,
    moments: BTreeMap<String, Moments>,
}

#[derive(Debug, Clone)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
}

impl AdamW {
    /// A fresh optimizer.
    pub fn new(weight_decay: f64) -> Self {
        Self {
            weight_decay,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Updates every parameter that has a gradient. Those without one are left alone, weight decay included.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &mut Gradients, rate: f64) {
        self.steps += 1;
        let correction_1 = 1.0 - BETA_1.powi(self.steps);
        let correction_2 = 1.0 - BETA_2.powi(self.steps);
        for (key, parameter) in parameters.iter_mut() {
            let value = parameter.flat.clone().inner();
            let Some(gradient) = parameter.flat.grad_remove(gradients) else {
                // A new leaf all the same: burn keeps what hangs on a living leaf (tracel-ai/burn#4970), so that a
                // parameter outside the loss would hoard a node a step, and slow every later step down.
                if parameter.flat.is_require_grad() {
                    parameter.flat = Tensor::from_inner(value).require_grad();
                }
                continue;
            };
            let value = value * (1.0 - rate * self.weight_decay);
            let moments = self.moments.entry(key.clone()).or_insert_with(|| Moments {
                first: gradient.zeros_like(),
                second: gradient.zeros_like(),
            });
            moments.first = moments.first.clone() * BETA_1 + gradient.clone() * (1.0 - BETA_1);
            moments.second = moments.second.clone() * BETA_2 + gradient.square() * (1.0 - BETA_2);
            let spread = moments.second.clone().sqrt() / correction_2.sqrt() + EPSILON;
            let value = value - moments.first.clone() / spread * (rate / correction_1);
            parameter.flat = Tensor::from_inner(value).require_grad();
        }
    }
}
