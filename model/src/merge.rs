//! Folds low-rank updates into the weights that they adapt: the same network, without LoRA.

use std::collections::{BTreeMap, BTreeSet};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::parameters::{Array, Layout, Pair, Projection, Role, StateDict, check, pairs};
use crate::sam::Sam;

/// The state dict of an adapted network as that of the same network without LoRA
/// ([`AdapterConfig::without_lora`]): every query and value weight becomes `W + scale * sum_i w_i B_i A_i`, with
/// DoRA each of its columns at the learned magnitude. Computed in `f64`, rounded once.
///
/// # Errors
/// A setting out of range, or the state is not that of a network of this configuration.
pub fn merge(mut state: StateDict, sam: &SamConfig, adapter: &AdapterConfig) -> Result<StateDict, Error> {
    let layout = Sam::layout(sam, Some(adapter))?;
    check(&state, &layout, "network of this configuration")?;
    let merged = Sam::layout(sam, Some(&adapter.without_lora()))?;
    let mut folded = StateDict::new();
    for (projection, update) in updates(&state, &layout, adapter) {
        let weight = &projection.weight;
        let weight = folded.entry(weight.clone()).or_insert_with(|| state[weight].clone());
        update.fold(weight, projection);
    }
    state.extend(folded);
    state.retain(|key, _| merged.contains_key(key));
    Ok(state)
}

/// The names of the weights that low-rank updates change.
pub fn adapted(layout: &Layout) -> BTreeSet<String> {
    pairs(layout).map(|pair| pair.changes.weight.clone()).collect()
}

/// What LoRA changes in one projection.
#[derive(Default)]
struct Update<'a> {
    /// `(factor, A, B)`: `[rank, in]` and `[out, rank]`.
    pairs: Vec<(f64, &'a Array, &'a Array)>,
    /// DoRA's magnitude of each input column.
    magnitude: Option<&'a Array>,
}

/// What LoRA changes in every projection, of a state that was checked.
fn updates<'a>(
    state: &'a StateDict,
    layout: &'a Layout,
    adapter: &AdapterConfig,
) -> BTreeMap<&'a Projection, Update<'a>> {
    let mut updates: BTreeMap<&Projection, Update> = BTreeMap::new();
    let mut ordered: Vec<&Pair> = pairs(layout).collect();
    ordered.sort_by_key(|pair| pair.mixing.as_ref().map(|(_, place)| *place));
    for pair in ordered {
        let share = match &pair.mixing {
            Some((key, place)) => mixing(&state[key].values)[*place],
            None => 1.0,
        };
        let update = updates.entry(&pair.changes).or_default();
        update
            .pairs
            .push((share * adapter.lora_scale, &state[&pair.a], &state[&pair.b]));
    }
    for (key, spec) in layout {
        if let Role::Magnitude { of, .. } = &spec.role {
            updates.entry(of).or_default().magnitude = Some(&state[key]);
        }
    }
    updates
}

impl Update<'_> {
    /// Changes the projection's rows of a weight `[.., in]`.
    fn fold(&self, weight: &mut Array, projection: &Projection) {
        let inputs = weight.shape[1];
        let rows = projection.rows_of(&weight.values, inputs);
        let mut sums: Vec<f64> = rows.flatten().map(|&value| value.into()).collect();
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
        let rows = projection.rows_of_mut(&mut weight.values, inputs);
        for (row, sums) in rows.zip(sums.chunks_exact(inputs)) {
            row.iter_mut().zip(sums).for_each(|(value, &sum)| *value = sum as f32);
        }
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
        let [nano, mobile] = ["nano", "mobile_sam"].map(|name| SamConfig::named(name).unwrap().with_image_size(64));
        let all = [plain, scaled, several, dora];
        for (sam, adapter) in [nano, mobile]
            .iter()
            .flat_map(|sam| all.iter().map(move |adapter| (sam, adapter)))
        {
            let mut layout = Sam::layout(sam, Some(adapter)).unwrap();
            let adapted = layout
                .values_mut()
                .filter(|spec| spec.role.is_lora() || matches!(spec.role, Role::Magnitude { .. }));
            // Updates about as large as the weights.
            adapted.for_each(|spec| spec.init = Init::Normal { std: 0.2 });
            let state = initialise(&layout, 7);
            let want = logits(&state, sam, adapter);

            let merged = merge(state.clone(), sam, adapter).unwrap();
            let without = adapter.without_lora();
            check(&merged, &Sam::layout(sam, Some(&without)).unwrap(), "merged network").unwrap();
            let difference = apart(&logits(&merged, sam, &without), &want);
            assert!(difference < 1e-5, "{adapter:?}: {difference}");

            // Leaving the pairs out instead is another network.
            let mut dropped = state;
            dropped.retain(|key, _| merged.contains_key(key));
            let difference = apart(&logits(&dropped, sam, &without), &want);
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
