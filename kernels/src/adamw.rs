//! One step of AdamW, for all elements of a parameter at once.

use burn::backend::Flex;
use burn::tensor::Tensor;

use crate::elementary::power;
use crate::operation::{Values, dense, on_cpu};
use crate::threads::{self, Shared};

/// A step's settings, the same for all elements.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Learning rate.
    pub rate: f64,
    /// Decoupled decay, as a share of the rate.
    pub weight_decay: f64,
    /// How much of the mean gradient, and of the mean square, is kept.
    pub betas: [f64; 2],
    /// Keeps small spreads from making large steps.
    pub epsilon: f64,
    /// Steps of this parameter so far, this one included.
    pub count: usize,
}

/// A parameter, and the running means of its gradient and of its square.
#[derive(Debug, Clone)]
pub struct State {
    /// The parameter.
    pub value: Tensor<1>,
    /// Mean gradient.
    pub first: Tensor<1>,
    /// Mean square.
    pub second: Tensor<1>,
}

/// The numbers that elements are multiplied with.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    betas: [f32; 2],
    news: [f32; 2],
    spread: f32,
    epsilon: f32,
    rate: f32,
}

impl Step {
    fn factors(&self) -> Factors {
        let corrections = self.betas.map(|beta| 1.0 - power(beta, self.count));
        Factors {
            keep: (1.0 - self.rate * self.weight_decay) as f32,
            betas: self.betas.map(|beta| beta as f32),
            news: self.betas.map(|beta| (1.0 - beta) as f32),
            spread: 1.0 / corrections[1].sqrt() as f32,
            epsilon: self.epsilon as f32,
            rate: (self.rate / corrections[0]) as f32,
        }
    }
}

/// The state after a step.
pub fn adamw(state: State, gradient: Tensor<1>, step: &Step) -> State {
    let factors = step.factors();
    if !on_cpu(&state.value) {
        return by_operations(state, gradient, factors);
    }
    const HERE: &str = "a tensor on the CPU, of f32";
    let take = |tensor: Tensor<1>| tensor.try_into_primitive::<Flex>().expect(HERE);
    let mut tensors = [state.value, state.first, state.second].map(|tensor| take(tensor).to_contiguous());
    let gradient = take(gradient).to_contiguous();
    let slopes: &[f32] = gradient.storage();
    let [value, first, second] = tensors
        .each_mut()
        .map(|tensor: &mut Values| Shared::new(tensor.storage_mut()));
    threads::ranges(slopes.len(), 16, 8 * slopes.len(), |range| {
        // SAFETY: the ranges are inside all three, which are of the gradient's length, and do not overlap.
        let [value, first, second] = [value, first, second].map(|part| unsafe { part.slice(range.start, range.len()) });
        update(value, first, second, &slopes[range], factors);
    });
    let [value, first, second] = tensors.map(Tensor::from_primitive::<Flex>);
    State { value, first, second }
}

vectorised! {
    fn update(value: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], factors: Factors) {
        let Factors { keep, betas, news, spread, epsilon, rate } = factors;
        let moments = first.iter_mut().zip(second);
        for ((value, (first, second)), &gradient) in value.iter_mut().zip(moments).zip(gradient) {
            *first = *first * betas[0] + gradient * news[0];
            *second = *second * betas[1] + gradient * gradient * news[1];
            *value = *value * keep - *first / (second.sqrt() * spread + epsilon) * rate;
        }
    }
}

/// The first element that is no finite number, of a tensor on the CPU; tensors elsewhere are not looked at.
pub fn not_finite(x: &Tensor<1>) -> Option<f32> {
    if !on_cpu(x) {
        return None;
    }
    let values = x.clone().without_autodiff().try_into_primitive::<Flex>().ok()?;
    let values = dense(&values);
    match all_finite(&values) {
        true => None,
        false => values.iter().copied().find(|value| !value.is_finite()),
    }
}

vectorised! {
    fn all_finite(values: &[f32]) -> bool {
        values.iter().fold(true, |all, value| all & (value.abs() < f32::INFINITY))
    }
}

fn by_operations(state: State, gradient: Tensor<1>, factors: Factors) -> State {
    let Factors {
        keep,
        betas,
        news,
        spread,
        epsilon,
        rate,
    } = factors;
    let first = state.first * betas[0] + gradient.clone() * news[0];
    let second = state.second * betas[1] + gradient.square() * news[1];
    let divisor = second.clone().sqrt() * spread + epsilon;
    State {
        value: state.value * keep - first.clone() / divisor * rate,
        first,
        second,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn a_step_is_that_of_its_definition() {
        let tensor = |values: [f32; 3]| Tensor::<1>::from_floats(values, &Device::flex());
        let state = State {
            value: tensor([1.0, -2.0, 0.5]),
            first: tensor([0.1, 0.0, -0.3]),
            second: tensor([0.01, 0.0, 0.2]),
        };
        let step = Step {
            rate: 0.01,
            weight_decay: 0.1,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            count: 7,
        };
        let after = adamw(state, tensor([0.5, 0.25, 0.0]), &step);
        let values: Vec<f32> = after.value.try_into_vec_as().unwrap();
        let want = |value: f64, first: f64, second: f64, gradient: f64| {
            let (first, second) = (
                0.9 * first + 0.1 * gradient,
                0.999 * second + 0.001 * gradient * gradient,
            );
            let (corrected, spread) = (first / (1.0 - 0.9f64.powi(7)), second / (1.0 - 0.999f64.powi(7)));
            value * (1.0 - 0.001) - 0.01 * corrected / (spread.sqrt() + 1e-8)
        };
        let wants = [
            want(1.0, 0.1, 0.01, 0.5),
            want(-2.0, 0.0, 0.0, 0.25),
            want(0.5, -0.3, 0.2, 0.0),
        ];
        for (value, want) in values.iter().zip(wants) {
            assert!((f64::from(*value) - want).abs() < 1e-6, "{value} for {want}");
        }
    }
}
