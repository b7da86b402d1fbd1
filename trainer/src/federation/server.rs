//! What the server makes of the clients' updates.

use flapsam_model::parameters::{Array, StateDict};
use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, product_norm, product_svd, stack, weighted_mean};

/// The server's own optimizer: it takes the way from its last state to the clients' mean as a gradient (FedAdam,
/// arXiv 2003.00295, algorithm 2; defaults of its section 5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAdam {
    /// How far a round moves.
    pub rate: f64,
    /// How much of the last rounds' direction is kept.
    #[serde(default = "beta_1")]
    pub beta_1: f64,
    /// How much of the last rounds' spread is kept.
    #[serde(default = "beta_2")]
    pub beta_2: f64,
    /// Keeps small spreads from making large steps.
    #[serde(default = "tau")]
    pub tau: f64,
}

impl ServerAdam {
    /// What makes no sense in it.
    pub fn mistake(&self) -> Option<String> {
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let settings = [
            ("rate", self.rate, above_zero(self.rate), "above 0"),
            ("beta_1", self.beta_1, below_one(self.beta_1), "from 0 to below 1"),
            ("beta_2", self.beta_2, below_one(self.beta_2), "from 0 to below 1"),
            ("tau", self.tau, above_zero(self.tau), "above 0"),
        ];
        let wrong = settings.iter().find(|(_, _, right, _)| !right);
        wrong.map(|(key, value, _, must)| format!("'server_adam.{key}' is {value}; it must be {must}"))
    }
}

fn beta_1() -> f64 {
    0.9
}

fn beta_2() -> f64 {
    0.99
}

fn tau() -> f64 {
    1e-3
}

/// What the server keeps between rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Server {
    /// What it sent last; at first what all clients start from.
    pub state: StateDict,
    /// FedAdam's mean direction; empty without it.
    pub first: StateDict,
    /// FedAdam's spread; empty without it.
    pub second: StateDict,
    /// With stacked pairs: those of all rounds so far as one, which clients have folded into their weights.
    pub folded: StateDict,
}

impl Server {
    /// Takes the clients' updates in; what it sends back is then its state. Returns how far its LoRA pairs are from the
    /// mean of the clients' products, before its own optimizer moves them: see [`lora_error`].
    ///
    /// # Panics
    /// See [`aggregate`].
    pub fn combine(
        &mut self,
        updates: &[StateDict],
        weights: &[f64],
        how: Aggregation,
        adam: Option<&ServerAdam>,
    ) -> Option<f64> {
        let mean = aggregate(updates, weights, how);
        let error = lora_error(updates, weights, &mean);
        self.state = match adam {
            Some(adam) => self.stepped(&mean, adam),
            None => mean,
        };
        if how == Aggregation::Stacked {
            self.fold();
        }
        error
    }

    fn stepped(&mut self, mean: &StateDict, adam: &ServerAdam) -> StateDict {
        let mut next = StateDict::new();
        for (key, mean) in mean {
            let fresh = |value: f64| Array::new(mean.shape.clone(), vec![value as f32; mean.values.len()]);
            let first = self.first.entry(key.clone()).or_insert_with(|| fresh(0.0));
            let second = self
                .second
                .entry(key.clone())
                .or_insert_with(|| fresh(adam.tau * adam.tau));
            let mut state = self.state[key].clone();
            for (place, value) in state.values.iter_mut().enumerate() {
                let way = (mean.values[place] - *value) as f64;
                let direction = adam.beta_1 * first.values[place] as f64 + (1.0 - adam.beta_1) * way;
                let spread = adam.beta_2 * second.values[place] as f64 + (1.0 - adam.beta_2) * way * way;
                first.values[place] = direction as f32;
                second.values[place] = spread as f32;
                *value += (adam.rate * direction / (spread.sqrt() + adam.tau)) as f32;
            }
            next.insert(key.clone(), state);
        }
        next
    }

    /// Adds the last round's stacked pairs to those of the rounds before, in as few ranks as hold them all.
    fn fold(&mut self) {
        let pairs = || self.state.keys().filter_map(|key| Some((key.clone(), partner(key)?)));
        let before = |key: &String| self.folded.get(key).map_or(0, |array| array.shape[0]);
        let together = |(a, _): &(String, String)| before(a) + self.state[a].shape[0];
        let full = |(a, b): &(String, String)| self.state[a].shape[1].min(self.state[b].shape[0]);
        // One rank for all pairs, as adapters have it; where a pair needs less, zeros fill it up.
        let needed = pairs().map(|pair| together(&pair).min(full(&pair))).max().unwrap_or(0);
        let mut folded = StateDict::new();
        for (a, b) in pairs() {
            let mut both = vec![(&self.state[&a], &self.state[&b])];
            if let (Some(old_a), Some(old_b)) = (self.folded.get(&a), self.folded.get(&b)) {
                both.insert(0, (old_a, old_b));
            }
            let (new_a, new_b) = product_svd(&both, &vec![1.0; both.len()], needed);
            folded.insert(a, new_a);
            folded.insert(b, new_b);
        }
        self.folded = folded;
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
        let pair = match (how, partner(key)) {
            (Aggregation::MeanOfFactors, _) => None,
            // It comes with its A.
            (_, None) if key.contains(LORA_B) => continue,
            (_, partner) => partner,
        };
        match pair {
            Some(partner) => {
                let pairs = pairs(updates, key, &partner);
                let (a, b) = match how {
                    Aggregation::Stacked => stack(&pairs, weights),
                    _ => product_svd(&pairs, weights, clients[0].shape[0]),
                };
                global.insert(key.clone(), a);
                global.insert(partner, b);
            }
            None => {
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

/// Whether a parameter is one factor of a LoRA pair.
pub fn is_factor(key: &str) -> bool {
    key.contains(LORA_A) || key.contains(LORA_B)
}

/// Whether a parameter is the B of a LoRA pair.
pub fn is_second_factor(key: &str) -> bool {
    key.contains(LORA_B)
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

    const ADAM: ServerAdam = ServerAdam {
        rate: 0.1,
        beta_1: 0.9,
        beta_2: 0.99,
        tau: 1e-3,
    };

    /// Two rounds of FedAdam beside its own formula, written out for one value.
    #[test]
    fn fed_adam_follows_its_formula() {
        let one = |value: f32| StateDict::from([("mask_tokens.weight".to_owned(), Array::new([1], vec![value]))]);
        let mut server = Server {
            state: one(1.0),
            ..Server::default()
        };
        let mut combine = |value: f32| {
            server.combine(&[one(value)], &[1.0], Aggregation::MeanOfFactors, Some(&ADAM));
            server.state["mask_tokens.weight"].values[0] as f64
        };
        let (got_1, got_2) = (combine(1.5), combine(0.8));
        let (m, v) = (0.1 * 0.5, 0.99 * 1e-6 + 0.01 * 0.25);
        let want_1 = 1.0 + 0.1 * m / (f64::sqrt(v) + 1e-3);
        let way = 0.8 - want_1;
        let (m, v) = (0.9 * m + 0.1 * way, 0.99 * v + 0.01 * way * way);
        let want_2 = want_1 + 0.1 * m / (f64::sqrt(v) + 1e-3);
        assert!(
            (got_1 - want_1).abs() < 1e-6 && (got_2 - want_2).abs() < 1e-6,
            "{got_1} {want_1}, {got_2} {want_2}"
        );
    }

    /// FedAdam's own step is no error of the averaging.
    #[test]
    fn the_error_is_of_the_averaging_alone() {
        let updates = [update(0.0), update(1.0)];
        let weights = [0.25, 0.75];
        let mean = aggregate(&updates, &weights, Aggregation::MeanOfFactors);
        let mut server = Server {
            state: update(0.5),
            ..Server::default()
        };
        let error = server.combine(&updates, &weights, Aggregation::MeanOfFactors, Some(&ADAM));
        assert_eq!(error, lora_error(&updates, &weights, &mean));
        assert_ne!(server.state, mean);
    }

    /// The stacked pairs of three rounds as one pair: the sum of the rounds' mean products, in no more ranks than the
    /// weight has.
    #[test]
    fn stacked_rounds_add_up() {
        let mut server = Server::default();
        let mut expected = [0.0; 20];
        for round in 0..3 {
            let updates = [update(round as f32), update(round as f32 + 0.5)];
            for (place, sum) in expected.iter_mut().enumerate() {
                *sum += 0.25 * product(&updates[0])[place] + 0.75 * product(&updates[1])[place];
            }
            server.combine(&updates, &[0.25, 0.75], Aggregation::Stacked, None);
            assert_eq!(server.state["attn.lora_w_a_q.0.weight"].shape, [4, 5]);
        }
        let (a, b) = (
            &server.folded["attn.lora_w_a_q.0.weight"],
            &server.folded["attn.lora_w_b_q.0.weight"],
        );
        assert_eq!((&a.shape[..], &b.shape[..]), (&[4, 5][..], &[4, 4][..]));
        for (place, want) in expected.iter().enumerate() {
            let (row, column) = (place / 5, place % 5);
            let got: f64 = (0..4)
                .map(|k| b.values[row * 4 + k] as f64 * a.values[k * 5 + column] as f64)
                .sum();
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }
}
