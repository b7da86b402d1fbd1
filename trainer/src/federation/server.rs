//! What the server makes of the clients' updates.

use flapsam_model::parameters::{Array, Layout, Role, Spec, StateDict, pairs};
use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, Sequel, aggregate, lora_error};
use super::averaging::product_svd;

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
    /// What clients have of it; at first what all of them start from. Of folded pairs, what it sent last.
    pub state: StateDict,
    /// FedAdam's mean direction; empty without it.
    pub first: StateDict,
    /// FedAdam's spread; empty without it.
    pub second: StateDict,
    /// What clients have folded into their weights in all rounds so far, as one pair of each projection.
    pub folded: StateDict,
}

/// What a round's averaging came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Averaged {
    /// What is sent to the clients.
    pub sent: StateDict,
    /// How far its LoRA pairs are from the mean of the clients' products, before the server's own optimizer moves them: see
    /// [`lora_error`].
    pub lora_error: Option<f64>,
}

impl Server {
    /// Takes the clients' updates in.
    ///
    /// # Panics
    /// See [`aggregate`].
    pub fn combine(
        &mut self,
        updates: &[StateDict],
        weights: &[f64],
        how: Aggregation,
        adam: Option<&ServerAdam>,
        layout: &Layout,
    ) -> Averaged {
        let mean = aggregate(updates, weights, how, layout);
        let lora_error = self.error(updates, weights, &mean, layout);
        let sent = match adam {
            Some(adam) => self.stepped(&mean, adam),
            None => mean,
        };
        match how.sequel() {
            Sequel::GoOn | Sequel::Turned => self.state.extend(sent.clone()),
            Sequel::Folded => {
                self.state.extend(sent.clone());
                self.fold(&sent, layout);
            }
            Sequel::RestFolded => {
                self.state.extend(cut(sent.clone(), layout));
                self.fold(&beyond(&sent, layout), layout);
            }
        }
        Averaged { sent, lora_error }
    }

    /// [`lora_error`], where a pair's factor that did not travel is the one that all have.
    fn error(&self, updates: &[StateDict], weights: &[f64], mean: &StateDict, layout: &Layout) -> Option<f64> {
        let is_factor = |key: &str| layout.get(key).is_some_and(|spec| spec.role.pair().is_some());
        let common = self
            .state
            .iter()
            .filter(|(key, _)| is_factor(key) && !mean.contains_key(*key));
        let common: StateDict = common.map(|(key, array)| (key.clone(), array.clone())).collect();
        if common.is_empty() {
            return lora_error(updates, weights, mean, layout);
        }
        let whole = |part: &StateDict| {
            let sent = part.iter().filter(|(key, _)| is_factor(key));
            let sent = sent.map(|(key, array)| (key.clone(), array.clone()));
            common.clone().into_iter().chain(sent).collect()
        };
        let updates: Vec<StateDict> = updates.iter().map(whole).collect();
        lora_error(&updates, weights, &whole(mean), layout)
    }

    /// The server's model: what clients have of it, with all that they folded into their weights in the pairs.
    pub fn model(&self, layout: &Layout, how: Aggregation) -> StateDict {
        let mut model = self.state.clone();
        match how.sequel() {
            Sequel::GoOn | Sequel::Turned => (),
            Sequel::Folded => model.extend(self.folded.clone()),
            Sequel::RestFolded => {
                let together = joined(&self.folded, &cut(self.state.clone(), layout), layout);
                model.extend(together);
            }
        }
        model
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

    /// Adds a round's pairs to those of the rounds before.
    fn fold(&mut self, round: &StateDict, layout: &Layout) {
        self.folded = joined(&self.folded, round, layout);
    }
}

/// The sums of both states' pairs, in as few ranks as hold them all: of all pairs alike, as adapters have it; where a pair
/// needs less, zeros fill it up.
fn joined(one: &StateDict, other: &StateDict, layout: &Layout) -> StateDict {
    let both = |a: &str, b: &str| -> Vec<(&Array, &Array)> {
        let states = [one, other].into_iter();
        states
            .filter_map(|state| Some((state.get(a)?, state.get(b)?)))
            .collect()
    };
    let needed = pairs(layout).map(|pair| {
        let both = both(&pair.a, &pair.b);
        let together: usize = both.iter().map(|(a, _)| a.shape[0]).sum();
        let full = both.first().map_or(0, |(a, b)| a.shape[1].min(b.shape[0]));
        together.min(full)
    });
    let rank = needed.max().unwrap_or(0);
    let mut sums = StateDict::new();
    for pair in pairs(layout) {
        let both = both(&pair.a, &pair.b);
        if !both.is_empty() {
            let (a, b) = product_svd(&both, &vec![1.0; both.len()], rank);
            sums.insert(pair.a.clone(), a);
            sums.insert(pair.b.clone(), b);
        }
    }
    sums
}

/// Which ranks of a pair.
#[derive(Debug, Clone, Copy)]
enum Ranks {
    /// So many, from the first on.
    First(usize),
    /// All but so many.
    After(usize),
}

impl Ranks {
    fn of(self, spec: &Spec, array: &Array) -> Array {
        let (rows, columns) = (array.shape[0], array.shape[1]);
        let range = |ranks: usize| match self {
            Ranks::First(count) => 0..count.min(ranks),
            Ranks::After(count) => count.min(ranks)..ranks,
        };
        if let Role::LoraA(_) = spec.role {
            let range = range(rows);
            let values = array.values[range.start * columns..range.end * columns].to_vec();
            return Array::new([range.len(), columns], values);
        }
        let range = range(columns);
        let lines = array.values.chunks_exact(columns.max(1));
        let values = lines.flat_map(|line| line[range.clone()].to_vec()).collect();
        Array::new([rows, range.len()], values)
    }
}

/// The rank that a network has of its pairs' factors.
fn rank(spec: &Spec) -> usize {
    match spec.role {
        Role::LoraA(_) => spec.shape[0],
        _ => spec.shape[1],
    }
}

/// A state as a network of perhaps lower rank takes it: the first ranks of its pairs.
pub fn cut(mut state: StateDict, layout: &Layout) -> StateDict {
    for (key, array) in &mut state {
        if let Some(spec) = layout
            .get(key)
            .filter(|spec| spec.role.pair().is_some() && spec.shape != array.shape)
        {
            *array = Ranks::First(rank(spec)).of(spec, array);
        }
    }
    state
}

/// What of a state's pairs [`cut`] leaves behind.
fn beyond(state: &StateDict, layout: &Layout) -> StateDict {
    let rest = state.iter().filter_map(|(key, array)| {
        let spec = layout.get(key).filter(|spec| spec.role.pair().is_some())?;
        Some((key.clone(), Ranks::After(rank(spec)).of(spec, array)))
    });
    rest.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::aggregation::tests::{A, B, layout, lora_layout, product, update};

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
            server.combine(
                &[one(value)],
                &[1.0],
                Aggregation::MeanOfFactors,
                Some(&ADAM),
                &layout(),
            );
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
        let layout = layout();
        let mean = aggregate(&updates, &weights, Aggregation::MeanOfFactors, &layout);
        let mut server = Server {
            state: update(0.5),
            ..Server::default()
        };
        let averaged = server.combine(&updates, &weights, Aggregation::MeanOfFactors, Some(&ADAM), &layout);
        assert_eq!(averaged.lora_error, lora_error(&updates, &weights, &mean, &layout));
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
            server.combine(&updates, &[0.25, 0.75], Aggregation::Stacked, None, &layout());
            assert_eq!(server.state[A].shape, [4, 5]);
        }
        let (a, b) = (&server.folded[A], &server.folded[B]);
        assert_eq!((&a.shape[..], &b.shape[..]), (&[4, 5][..], &[4, 4][..]));
        for (got, want) in product(&server.folded).iter().zip(expected) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }

    /// What FedEx-LoRA's clients have after each round, folded weights and pair together, is the mean of what they had.
    #[test]
    fn what_the_mean_pair_lacks_is_folded() {
        let layout = layout();
        let mut server = Server {
            state: update(3.0),
            ..Server::default()
        };
        let mut folded = [0.0; 20];
        for round in 0..3 {
            let updates = [update(round as f32), update(round as f32 + 0.5)];
            let averaged = server.combine(&updates, &[0.25, 0.75], Aggregation::FedexLora, None, &layout);
            assert!(averaged.lora_error.unwrap() < 1e-6);
            // Two clients' pairs, and the mean twice.
            assert_eq!((averaged.sent[A].shape[0], server.state[A].shape[0]), (8, 2));
            let mean = aggregate(&updates, &[0.25, 0.75], Aggregation::MeanOfFactors, &layout);
            for (got, want) in product(&server.state).iter().zip(product(&mean)) {
                assert!((got - want).abs() < 1e-5, "{got} {want}");
            }
            let model = product(&server.model(&layout, Aggregation::FedexLora));
            for place in 0..20 {
                let exact = 0.25 * product(&updates[0])[place] + 0.75 * product(&updates[1])[place];
                assert!((model[place] - folded[place] - exact).abs() < 1e-5, "{round}");
                folded[place] = model[place] - product(&server.state)[place];
            }
        }
    }

    #[test]
    fn a_client_of_lower_rank_takes_the_first_ranks() {
        let whole = update(0.5);
        let small = lora_layout(1);
        let taken = cut(whole.clone(), &small);
        assert_eq!((&taken[A].shape[..], &taken[B].shape[..]), (&[1, 5][..], &[4, 1][..]));
        assert_eq!(taken[A].values, whole[A].values[..5]);
        assert_eq!(taken[B].values, [0, 2, 4, 6].map(|place| whole[B].values[place]));
        let rest = beyond(&whole, &small);
        for (place, whole) in product(&whole).into_iter().enumerate() {
            let parts = product(&taken)[place] + product(&rest)[place];
            assert!((parts - whole).abs() < 1e-6);
        }
    }
}
