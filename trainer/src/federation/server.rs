use flapsam_model::checkpoint::write_safetensors;
use flapsam_model::parameters::{Array, StateDict};
use serde::{Deserialize, Serialize};

use super::aggregation::{product_svd, weighted_mean, weighted_product};

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

/// The clients' updates as one: LoRA pairs by the decomposition of their weighted product, the rest by weighted mean.
///
/// # Panics
/// If there is no update, or the updates hold other parameters than the first (a programming error).
pub fn aggregate(updates: &[StateDict], weights: &[f64]) -> StateDict {
    let mut global = StateDict::new();
    for key in updates[0].keys().filter(|key| !global_has_pair(key)) {
        let clients: Vec<&Array> = updates.iter().map(|update| &update[key]).collect();
        match key.contains(".lora_w_a_") {
            true => {
                let partner = key.replace(".lora_w_a_", ".lora_w_b_");
                let pairs: Vec<_> = clients
                    .into_iter()
                    .zip(updates.iter().map(|update| &update[&partner]))
                    .collect();
                let (a, b) = product_svd(&pairs, weights);
                global.insert(key.clone(), a);
                global.insert(partner, b);
            }
            false => {
                global.insert(key.clone(), weighted_mean(&clients, weights));
            }
        }
    }
    global
}

/// B is set together with its A.
fn global_has_pair(key: &str) -> bool {
    key.contains(".lora_w_b_")
}

/// The norm of all parameters as one vector, LoRA pairs by their products.
pub fn norm(state: &StateDict) -> f64 {
    let squares = |array: &Array| array.values.iter().map(|&value| (value as f64).powi(2)).sum::<f64>();
    let parts = state
        .iter()
        .filter(|(key, _)| !global_has_pair(key))
        .map(|(key, array)| {
            match state
                .get(&key.replace(".lora_w_a_", ".lora_w_b_"))
                .filter(|_| key.contains(".lora_w_a_"))
            {
                Some(b) => squares(&weighted_product(&[(array, b)], &[1.0])),
                None => squares(array),
            }
        });
    parts.sum::<f64>().sqrt()
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
        let global = aggregate(&updates, &[0.25, 0.75]);
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
        let global = aggregate(&updates, &[0.4, 0.6]);
        for (got, want) in product(&global).iter().zip(product(&updates[0])) {
            assert!((got - 1.6 * want).abs() < 1e-5, "{got} {want}");
        }
    }

    #[test]
    fn the_mean_of_factors_is_not_what_is_sent() {
        let updates = [update(0.0), update(2.0)];
        let global = aggregate(&updates, &[0.5, 0.5]);
        let want: Vec<f64> = product(&updates[0])
            .iter()
            .zip(product(&updates[1]))
            .map(|(x, y)| 0.5 * (x + y))
            .collect();
        let naive: StateDict = updates[0]
            .keys()
            .map(|key| {
                (
                    key.clone(),
                    weighted_mean(&[&updates[0][key], &updates[1][key]], &[0.5, 0.5]),
                )
            })
            .collect();
        let error = |state: &StateDict| {
            product(state)
                .iter()
                .zip(&want)
                .map(|(x, y)| (x - y).powi(2))
                .sum::<f64>()
        };
        assert!(
            error(&global) < 0.5 * error(&naive),
            "{} {}",
            error(&global),
            error(&naive)
        );
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
