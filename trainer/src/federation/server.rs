use flapsam_model::checkpoint::write_safetensors;
use flapsam_model::parameters::{Array, StateDict};
use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, product_norm, product_svd, weighted_mean};

/// Bytes that really travelled: the length of the serialised updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From the clients to the server.
    pub up: u64,
    /// From the server to the clients.
    pub down: u64,
}

impl Traffic {
    /// Counts a round in which every client sends its update and receives the new global state.
    pub fn round(updates: &[StateDict], global: &StateDict) -> Self {
        let bytes = |state: &StateDict| write_safetensors(state, None).len() as u64;
        Self {
            up: updates.iter().map(bytes).sum(),
            down: bytes(global) * updates.len() as u64,
        }
    }
}

/// The clients' updates as one: LoRA pairs as asked, the rest by weighted mean.
///
/// # Panics
/// If there is no update, or the updates hold other parameters than the first (a programming error).
pub fn aggregate(updates: &[StateDict], weights: &[f64], how: Aggregation) -> StateDict {
    let mut global = StateDict::new();
    for key in updates[0].keys() {
        let clients: Vec<&Array> = updates.iter().map(|update| &update[key]).collect();
        match (how, partner(key)) {
            (Aggregation::ProductSvd, Some(partner)) => {
                let (a, b) = product_svd(&pairs(updates, key, &partner), weights);
                global.insert(key.clone(), a);
                global.insert(partner, b);
            }
            // It came with its A.
            (Aggregation::ProductSvd, None) if key.contains(LORA_B) => {}
            _ => {
                global.insert(key.clone(), weighted_mean(&clients, weights));
            }
        }
    }
    global
}

/// How far the server's LoRA pairs are from the weighted mean of the clients' products, as a share of its norm, over all
/// pairs; `None` if there are none.
///
/// # Panics
/// See [`aggregate`].
pub fn lora_error(updates: &[StateDict], weights: &[f64], global: &StateDict) -> Option<f64> {
    let (mut error, mut whole) = (0.0, 0.0);
    for key in updates[0].keys() {
        let Some(partner) = partner(key) else { continue };
        let mut pairs = pairs(updates, key, &partner);
        whole += product_norm(&pairs, weights).powi(2);
        pairs.push((&global[key], &global[&partner]));
        error += product_norm(&pairs, &[weights, &[-1.0]].concat()).powi(2);
    }
    (whole > 0.0).then(|| (error / whole).sqrt())
}

/// The norm of all parameters as one vector, LoRA pairs by their products.
pub fn norm(state: &StateDict) -> f64 {
    let square = |(key, array): (&String, &Array)| match partner(key).and_then(|partner| state.get(&partner)) {
        Some(b) => product_norm(&[(array, b)], &[1.0]).powi(2),
        None if key.contains(LORA_B) => 0.0,
        None => array.values.iter().map(|&value| (value as f64).powi(2)).sum(),
    };
    state.iter().map(square).sum::<f64>().sqrt()
}

const LORA_A: &str = ".lora_w_a_";
const LORA_B: &str = ".lora_w_b_";

/// The name of the B that belongs to an A; `None` for every other parameter.
fn partner(key: &str) -> Option<String> {
    key.contains(LORA_A).then(|| key.replace(LORA_A, LORA_B))
}

/// The clients' pairs `(A, B)` of these names.
fn pairs<'a>(updates: &'a [StateDict], a: &str, b: &str) -> Vec<(&'a Array, &'a Array)> {
    updates.iter().map(|update| (&update[a], &update[b])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(seed: f32) -> StateDict {
        let ramp = |count: usize, step: f32| {
            (0..count)
                .map(|i| libm::sinf(seed + step * i as f32))
                .collect::<Vec<_>>()
        };
        StateDict::from([
            ("attn.lora_w_a_q.0.weight".to_owned(), Array::new([2, 5], ramp(10, 0.7))),
            ("attn.lora_w_b_q.0.weight".to_owned(), Array::new([4, 2], ramp(8, 1.3))),
            ("mask_tokens.weight".to_owned(), Array::new([3], ramp(3, 0.4))),
        ])
    }

    /// `B A` of an update, row by row, without the code under test.
    fn product(update: &StateDict) -> Vec<f64> {
        let (a, b) = (
            &update["attn.lora_w_a_q.0.weight"].values,
            &update["attn.lora_w_b_q.0.weight"].values,
        );
        let entry = |row: usize, column: usize| (0..2).map(|k| b[row * 2 + k] as f64 * a[k * 5 + column] as f64).sum();
        (0..20).map(|place| entry(place / 5, place % 5)).collect()
    }

    #[test]
    fn plain_tensors_are_averaged_by_weight() {
        let updates = [update(0.0), update(1.0)];
        let global = aggregate(&updates, &[0.25, 0.75], Aggregation::ProductSvd);
        for index in 0..3 {
            let of = |client: usize| updates[client]["mask_tokens.weight"].values[index];
            let want = 0.25 * of(0) + 0.75 * of(1);
            assert!((global["mask_tokens.weight"].values[index] - want).abs() < 1e-6);
        }
    }

    #[test]
    fn pairs_of_one_direction_are_averaged_exactly_by_their_product() {
        // Both clients hold multiples of one pair, so that the weighted product still has their rank.
        let mut double = update(0.5);
        double
            .get_mut("attn.lora_w_b_q.0.weight")
            .unwrap()
            .values
            .iter_mut()
            .for_each(|value| *value *= 2.0);
        let updates = [update(0.5), double];
        let global = aggregate(&updates, &[0.4, 0.6], Aggregation::ProductSvd);
        for (got, want) in product(&global).iter().zip(product(&updates[0])) {
            assert!((got - 1.6 * want).abs() < 1e-5, "{got} {want}");
        }
    }

    #[test]
    fn the_mean_of_factors_is_not_what_is_sent() {
        let updates = [update(0.0), update(2.0)];
        let share = |how| {
            let global = aggregate(&updates, &[0.5, 0.5], how);
            // The mean of the products, and how far the pair's own is from it, without the code under test.
            let mean: Vec<f64> = product(&updates[0])
                .iter()
                .zip(product(&updates[1]))
                .map(|(x, y)| 0.5 * (x + y))
                .collect();
            let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
            let difference: Vec<f64> = product(&global).iter().zip(&mean).map(|(x, y)| x - y).collect();
            let expected = norm(&difference) / norm(&mean);
            let got = lora_error(&updates, &[0.5, 0.5], &global).unwrap();
            assert!((got - expected).abs() < 1e-6, "{how:?}: {got} {expected}");
            got
        };
        let (svd, mean) = (share(Aggregation::ProductSvd), share(Aggregation::MeanOfFactors));
        assert!(svd < 0.7 * mean, "{svd} {mean}");
    }

    #[test]
    fn without_pairs_there_is_no_error_of_pairs() {
        let plain = StateDict::from([("mask_tokens.weight".to_owned(), Array::new([1], vec![2.0]))]);
        assert_eq!(lora_error(std::slice::from_ref(&plain), &[1.0], &plain), None);
        assert_eq!(norm(&plain), 2.0);
    }

    #[test]
    fn traffic_is_what_is_serialised() {
        let updates = [update(0.0), update(1.0)];
        let traffic = Traffic::round(&updates, &updates[0]);
        let bytes = write_safetensors(&updates[0], None).len() as u64;
        assert_eq!(
            traffic,
            Traffic {
                up: 2 * bytes,
                down: 2 * bytes
            }
        );
    }
}
