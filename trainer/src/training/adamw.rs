use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use flapsam_kernels::{State, Step, adamw, not_finite};
use flapsam_model::Error;
use flapsam_model::parameters::{Array, Parameters, StateDict, to_vec};

const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// AdamW with decoupled weight decay, by name, so that its state can travel with a client.
#[derive(Debug, Clone)]
pub struct AdamW {
    weight_decay: f64,
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
    /// Steps that they are the means of.
    count: usize,
}

/// What an optimizer holds, on the host and by the parameters' names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OptimizerState {
    /// Mean gradients.
    pub first: StateDict,
    /// Mean squares.
    pub second: StateDict,
    /// Steps that they are the means of, `[1]` each.
    pub counts: StateDict,
}

impl AdamW {
    /// A fresh optimizer.
    pub fn new(weight_decay: f64) -> Self {
        Self {
            weight_decay,
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

    /// Forgets the moments of parameters that others have taken the place of.
    pub fn forget<'a>(&mut self, keys: impl Iterator<Item = &'a String>) {
        for key in keys {
            self.moments.remove(key);
        }
    }

    /// What it holds.
    pub fn state(&self) -> OptimizerState {
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
        let count = |(key, moments): (&String, &Moments)| (key.clone(), Array::new([1], vec![moments.count as f32]));
        OptimizerState {
            first: part(|moments| &moments.first),
            second: part(|moments| &moments.second),
            counts: self.moments.iter().map(count).collect(),
        }
    }

    /// Goes on from an [`AdamW::state`].
    pub fn restore(&mut self, state: OptimizerState, device: &Device) {
        let tensor = |array: Array| Tensor::from_data(TensorData::new(array.values, array.shape), device);
        let parts = state
            .first
            .into_iter()
            .zip(state.second.into_values())
            .zip(state.counts.into_values());
        let moments = parts.map(|(((key, first), second), count)| {
            let moments = Moments {
                first: tensor(first),
                second: tensor(second),
                count: count.values[0] as usize,
            };
            (key, moments)
        });
        self.moments = moments.collect();
    }

    /// Updates every parameter that has a gradient. Those without one are left alone, weight decay included.
    ///
    /// # Errors
    /// A gradient or an updated parameter is no finite number. Only the CPU is asked: a graphics adapter would have to
    /// finish each step first.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &mut Gradients, rate: f64) -> Result<(), Error> {
        for (key, parameter) in parameters.iter_mut().filter(|(_, one)| one.flat.is_require_grad()) {
            let gradient = parameter.flat.grad_remove(gradients);
            // Taken out, so that it is changed where it lies.
            let empty = Tensor::empty([0], &parameter.flat.device());
            let value = std::mem::replace(&mut parameter.flat, empty).inner();
            let Some(gradient) = gradient else {
                // A new leaf all the same: burn keeps what hangs on a living leaf (tracel-ai/burn#4970), so that a
                // parameter outside the loss would hoard a node a step, and slow every later step down.
                parameter.flat = Tensor::from_inner(value).require_grad();
                continue;
            };
            let gradient = match &self.proximal {
                Some(proximal) => gradient + (value.clone() - proximal.anchor[key].clone()) * proximal.weight,
                None => gradient,
            };
            let moments = self.moments.remove(key).unwrap_or_else(|| Moments {
                first: gradient.zeros_like(),
                second: gradient.zeros_like(),
                count: 0,
            });
            let count = moments.count + 1;
            let step = Step {
                rate,
                weight_decay: self.weight_decay,
                betas: BETAS,
                epsilon: EPSILON,
                count,
            };
            let state = State {
                value,
                first: moments.first,
                second: moments.second,
            };
            let State { value, first, second } = adamw(state, gradient.clone(), &step);
            check_finite(&gradient, || format!("the gradient of '{key}'"))?;
            check_finite(&value, || format!("the parameter '{key}' after the step"))?;
            parameter.flat = Tensor::from_inner(value).require_grad();
            self.moments.insert(key.clone(), Moments { first, second, count });
        }
        Ok(())
    }
}

fn check_finite(tensor: &Tensor<1>, what: impl FnOnce() -> String) -> Result<(), Error> {
    match not_finite(tensor) {
        Some(value) => Err(Error::NotFinite { what: what(), value }),
        None => Ok(()),
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
                optimizer
                    .step(&mut parameters, &mut gradients, 0.05 * 0.98f64.powi(step))
                    .unwrap();
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
