use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use flapsam_model::parameters::{Array, Parameters, StateDict, to_vec};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// AdamW with decoupled weight decay, by name, so that its state can travel with a client.
#[derive(Debug, Clone)]
pub struct AdamW {
    weight_decay: f64,
    steps: i32,
    moments: BTreeMap<String, Moments>,
    proximal: Option<Proximal>,
}

/// A pull back to where the parameters were: `weight / 2` times the squared distance in the loss (FedProx,
/// arXiv 1812.06127).
#[derive(Debug, Clone)]
struct Proximal {
    weight: f64,
    anchor: BTreeMap<String, Tensor<1>>,
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
            proximal: None,
        }
    }

    /// From now on, pulls the trainable parameters back to what they are at this moment.
    pub fn pull_back(&mut self, weight: f64, parameters: &mut Parameters) {
        let trainable = parameters.iter_mut().filter(|(_, one)| one.flat.is_require_grad());
        let anchor = trainable.map(|(key, one)| (key.clone(), one.flat.clone().inner()));
        self.proximal = Some(Proximal {
            weight,
            anchor: anchor.collect(),
        });
    }

    /// The steps done, and by name the moments `(first, second)`.
    pub fn state(&self) -> (usize, [StateDict; 2]) {
        let host = |tensor: &Tensor<1>| {
            let values = to_vec(tensor.clone());
            Array::new([values.len()], values)
        };
        let part = |part: fn(&Moments) -> &Tensor<1>| {
            let moments = self.moments.iter();
            moments
                .map(|(key, moments)| (key.clone(), host(part(moments))))
                .collect()
        };
        (
            self.steps as usize,
            [part(|moments| &moments.first), part(|moments| &moments.second)],
        )
    }

    /// Goes on from a [`AdamW::state`].
    pub fn restore(&mut self, steps: usize, [first, second]: [StateDict; 2], device: &Device) {
        let tensor = |array: Array| Tensor::from_data(TensorData::new(array.values, array.shape), device);
        let pairs = first.into_iter().zip(second.into_values());
        let moments = pairs.map(|((key, first), second)| {
            let (first, second) = (tensor(first), tensor(second));
            (key, Moments { first, second })
        });
        self.moments = moments.collect();
        self.steps = steps as i32;
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
            let gradient = match &self.proximal {
                Some(proximal) => gradient + (value.clone() - proximal.anchor[key].clone()) * proximal.weight,
                None => gradient,
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

#[cfg(test)]
mod tests {
    use flapsam_model::parameters::to_vec;

    use super::*;

    /// Half the squared distance to 1, pulled back to 0 as strongly: the minimum lies halfway.
    #[test]
    fn the_pull_back_moves_the_minimum() {
        let device = Device::flex();
        let minimum = |weight: Option<f64>| {
            let key = "w".to_owned();
            let start = StateDict::from([(key.clone(), Array::new([1], vec![0.0]))]);
            let mut parameters = Parameters::new(&start, &device);
            parameters.require_grad(&[key.clone()].into());
            let mut optimizer = AdamW::new(0.0);
            if let Some(weight) = weight {
                optimizer.pull_back(weight, &mut parameters);
            }
            for step in 0..400 {
                let w = parameters.get(&key).unwrap().flat.clone();
                let mut gradients = ((w - 1.0).square() * 0.5).sum().backward();
                optimizer.step(&mut parameters, &mut gradients, 0.05 * 0.98f64.powi(step));
            }
            to_vec(parameters.get(&key).unwrap().flat.clone().inner())[0]
        };
        let (free, pulled) = (minimum(None), minimum(Some(1.0)));
        assert!(
            (free - 1.0).abs() < 0.01 && (pulled - 0.5).abs() < 0.01,
            "{free} {pulled}"
        );
    }
}
