//! Folds low-rank updates into the weights that they adapt: the same network, without LoRA.

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::parameters::{Array, StateDict, check};
use crate::sam::Sam;

/// The state dict of an adapted network as that of the same network without LoRA
/// ([`AdapterConfig::without_lora`]): every query and value weight becomes `W + scale * sum_i w_i B_i A_i`, with
/// DoRA each of its columns at the learned magnitude. Computed in `f64`, rounded once.
///
/// # Errors
/// A setting out of range, or the state is not that of a network of this configuration.
pub fn merge(mut state: StateDict, sam: &SamConfig, adapter: &AdapterConfig) -> Result<StateDict, Error> {
    check(
        &state,
        &Sam::layout(sam, Some(adapter))?,
        "network of this configuration",
    )?;
    let merged = Sam::layout(sam, Some(&adapter.without_lora()))?;
    if adapter.rank > 0 {
        for key in merged.keys() {
            let Some((attention, projections)) = adapted(key) else {
                continue;
            };
            for projection in projections {
                let update = Update::read(&state, attention, projection.letter, adapter);
                let mut weight = state[key].clone();
                let part = weight.values.len() / projection.parts;
                update.fold(&mut weight.values[projection.part * part..][..part]);
                state.insert(key.clone(), weight);
            }
        }
    }
    state.retain(|key, _| merged.contains_key(key));
    Ok(state)
}

/// A projection inside a weight: `part` of so many equal `parts`, one below the other.
struct Projection {
    letter: char,
    part: usize,
    parts: usize,
}

/// Whether low-rank updates change the weight of that name, in an attention that has them.
pub fn is_adapted(key: &str) -> bool {
    adapted(key).is_some()
}

/// The attention that a query's or value's weight belongs to, and the projections in that weight.
fn adapted(key: &str) -> Option<(&str, &'static [Projection])> {
    const fn projection(letter: char, part: usize, parts: usize) -> Projection {
        Projection { letter, part, parts }
    }
    const WEIGHTS: [(&str, &[Projection]); 3] = [
        (".qkv.weight", &[projection('q', 0, 3), projection('v', 2, 3)]),
        (".q_proj.weight", &[projection('q', 0, 1)]),
        (".v_proj.weight", &[projection('v', 0, 1)]),
    ];
    let mut weights = WEIGHTS.iter();
    weights.find_map(|(name, projections)| Some((key.strip_suffix(name)?, *projections)))
}

/// What LoRA changes in one projection.
struct Update<'a> {
    /// `(factor, A, B)`: `[rank, in]` and `[out, rank]`.
    pairs: Vec<(f64, &'a Array, &'a Array)>,
    /// DoRA's magnitude of each input column.
    magnitude: Option<&'a Array>,
}

impl<'a> Update<'a> {
    /// Of a state that was checked.
    fn read(state: &'a StateDict, attention: &str, letter: char, adapter: &AdapterConfig) -> Self {
        let get = |name: String| &state[&format!("{attention}.{name}")];
        let weights = match adapter.num_lora {
            1 => vec![1.0],
            _ => mixing(&get("lora_scale".into()).values),
        };
        let pair = |(index, weight): (usize, f64)| {
            let factor = |which| get(format!("lora_w_{which}_{letter}.{index}.weight"));
            (weight * adapter.lora_scale, factor('a'), factor('b'))
        };
        Self {
            pairs: weights.into_iter().enumerate().map(pair).collect(),
            magnitude: adapter.dora.then(|| get(format!("dora_m_{letter}"))),
        }
    }

    /// Changes a weight `[out, in]`.
    fn fold(&self, weight: &mut [f32]) {
        let inputs = self.pairs[0].1.shape[1];
        let mut sums: Vec<f64> = weight.iter().map(|&value| value.into()).collect();
        for (factor, a, b) in &self.pairs {
            let rank = a.shape[0];
            for (row, sums) in sums.chunks_exact_mut(inputs).enumerate() {
                for (&b, a) in b.values[row * rank..][..rank].iter().zip(a.values.chunks_exact(inputs)) {
                    let b = factor * f64::from(b);
                    sums.iter_mut().zip(a).for_each(|(sum, &a)| *sum += b * f64::from(a));
                }
            }
        }
        if let Some(magnitude) = self.magnitude {
            let mut squares = vec![0.0; inputs];
            for row in sums.chunks_exact(inputs) {
                squares
                    .iter_mut()
                    .zip(row)
                    .for_each(|(square, sum)| *square += sum * sum);
            }
            for row in sums.chunks_exact_mut(inputs) {
                let columns = row.iter_mut().zip(&magnitude.values).zip(&squares);
                columns.for_each(|((sum, &magnitude), square)| *sum *= f64::from(magnitude) / square.sqrt());
            }
        }
        weight.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum as f32);
    }
}

/// The weights of several pairs: `softmax(sigmoid(a))`.
fn mixing(learned: &[f32]) -> Vec<f64> {
    let powers = learned
        .iter()
        .map(|&a| libm::exp(1.0 / (1.0 + libm::exp(-f64::from(a)))));
    let powers: Vec<f64> = powers.collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::parameters::{Init, Parameters, initialise, to_vec};
    use crate::random::Random;

    fn logits(state: &StateDict, sam: &SamConfig, adapter: &AdapterConfig) -> Vec<f32> {
        let device = Device::flex();
        let mut random = Random::new(3, "slices");
        let slices = (0..3 * 64 * 64).map(|_| random.uniform(0.0, 1.0) as f32);
        let slices = Tensor::from_data(TensorData::new(slices.collect(), [1, 3, 64, 64]), &device);
        let network = Sam::new(sam, Some(adapter), &Parameters::new(state, &device)).unwrap();
        to_vec(network.logits(slices))
    }

    /// The largest difference, as a share of the largest value.
    fn apart(got: &[f32], want: &[f32]) -> f32 {
        let largest = want.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let pairs = got.iter().zip(want).map(|(got, want)| (got - want).abs());
        pairs.fold(0.0, f32::max) / largest
    }

    #[test]
    fn the_merged_network_computes_what_the_adapted_one_does() {
        let sam = SamConfig::named("nano").unwrap().with_image_size(64);
        let plain = AdapterConfig::lora(2, 4);
        let scaled = AdapterConfig {
            lora_scale: 0.5,
            ..plain.clone()
        };
        let several = AdapterConfig {
            num_lora: 3,
            ..plain.clone()
        };
        let dora = AdapterConfig {
            dora: true,
            ..several.clone()
        };
        for adapter in [plain, scaled, several, dora] {
            let mut layout = Sam::layout(&sam, Some(&adapter)).unwrap();
            let adapted = layout
                .iter_mut()
                .filter(|(key, _)| key.contains("lora") || key.contains("dora"));
            // Updates about as large as the weights.
            adapted.for_each(|(_, spec)| spec.init = Init::Normal { std: 0.2 });
            let state = initialise(&layout, 7);
            let want = logits(&state, &sam, &adapter);

            let merged = merge(state.clone(), &sam, &adapter).unwrap();
            let without = adapter.without_lora();
            check(&merged, &Sam::layout(&sam, Some(&without)).unwrap(), "merged network").unwrap();
            let difference = apart(&logits(&merged, &sam, &without), &want);
            assert!(difference < 1e-5, "{adapter:?}: {difference}");

            // Leaving the pairs out instead is another network.
            let mut dropped = state;
            dropped.retain(|key, _| merged.contains_key(key));
            let difference = apart(&logits(&dropped, &sam, &without), &want);
            assert!(difference > 1e-2, "{adapter:?}: {difference}");
        }
    }

    #[test]
    fn without_pairs_nothing_changes() {
        let sam = SamConfig::named("nano").unwrap().with_image_size(64);
        let adapter = AdapterConfig::lora(2, 4).without_lora();
        let state = initialise(&Sam::layout(&sam, Some(&adapter)).unwrap(), 7);
        assert_eq!(merge(state.clone(), &sam, &adapter).unwrap(), state);
    }

    #[test]
    fn another_networks_state_is_refused() {
        let sam = SamConfig::named("nano").unwrap().with_image_size(64);
        let adapter = AdapterConfig::lora(2, 4);
        let state = initialise(&Sam::layout(&sam, Some(&adapter)).unwrap(), 7);
        let refused = |state: StateDict, adapter: &AdapterConfig| merge(state, &sam, adapter).unwrap_err().to_string();
        assert!(refused(state.clone(), &AdapterConfig::lora(2, 8)).contains("has the shape"));
        assert!(refused(state.clone(), &adapter.without_lora()).contains("has no place"));
        let mut incomplete = state;
        incomplete.pop_last();
        assert!(refused(incomplete, &adapter).contains("is missing"));
    }
}
