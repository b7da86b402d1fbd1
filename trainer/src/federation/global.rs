//! The federation's model, as the server has it.

use flapsam_model::parameters::{Array, Layout, StateDict};

use super::ServerAdam;
use super::aggregation::{Aggregation, Sequel};
use super::folding::{cut, fold, joined};

/// What the server keeps between rounds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Global {
    /// What clients have of it; at first what all of them start from. Of folded pairs, what it sent last.
    pub state: StateDict,
    /// FedAdam's mean direction; empty without it.
    pub first: StateDict,
    /// FedAdam's spread; empty without it.
    pub second: StateDict,
    /// What clients have folded into their weights in all rounds so far, as one pair of each projection.
    pub folded: StateDict,
}

impl Global {
    /// Goes on to what the clients' updates come to, and returns what is sent to the clients: the mean, or where the server's
    /// own optimizer steps to from there.
    pub fn advance(
        &mut self,
        mean: StateDict,
        how: Aggregation,
        adam: Option<&ServerAdam>,
        layout: &Layout,
    ) -> StateDict {
        let sent = match adam {
            Some(adam) => self.stepped(&mean, adam),
            None => mean,
        };
        fold(&mut self.folded, &sent, how, layout);
        self.state.extend(match how.sequel() {
            Sequel::RestFolded => cut(sent.clone(), layout),
            _ => sent.clone(),
        });
        sent
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::aggregation::aggregate;
    use crate::federation::aggregation::tests::{A, B, averaged, layout, product, update};

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
        let mut global = Global {
            state: one(1.0),
            ..Global::default()
        };
        let mut combine = |value: f32| {
            global.advance(one(value), Aggregation::MeanOfFactors, Some(&ADAM), &layout());
            global.state["mask_tokens.weight"].values[0] as f64
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

    /// The stacked pairs of three rounds as one pair: the sum of the rounds' mean products, in no more ranks than the
    /// weight has.
    #[test]
    fn stacked_rounds_add_up() {
        let mut global = Global::default();
        let mut expected = [0.0; 20];
        for round in 0..3 {
            let updates = [update(round as f32), update(round as f32 + 0.5)];
            for (place, sum) in expected.iter_mut().enumerate() {
                *sum += 0.25 * product(&updates[0])[place] + 0.75 * product(&updates[1])[place];
            }
            let (stacked, _) = averaged(&updates, &[0.25, 0.75], Aggregation::Stacked, &global.state);
            global.advance(stacked, Aggregation::Stacked, None, &layout());
            assert_eq!(global.state[A].shape, [4, 5]);
        }
        let (a, b) = (&global.folded[A], &global.folded[B]);
        assert_eq!((&a.shape[..], &b.shape[..]), (&[4, 5][..], &[4, 4][..]));
        for (got, want) in product(&global.folded).iter().zip(expected) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }

    /// What FedEx-LoRA's clients have after each round, folded weights and pair together, is the mean of what they had.
    #[test]
    fn what_the_mean_pair_lacks_is_folded() {
        let layout = layout();
        let mut global = Global {
            state: update(3.0),
            ..Global::default()
        };
        let mut folded = [0.0; 20];
        for round in 0..3 {
            let updates = [update(round as f32), update(round as f32 + 0.5)];
            let (all, error) = averaged(&updates, &[0.25, 0.75], Aggregation::FedexLora, &global.state);
            assert!(error.unwrap() < 1e-6);
            let sent = global.advance(all, Aggregation::FedexLora, None, &layout);
            // Two clients' pairs, and the mean twice.
            assert_eq!((sent[A].shape[0], global.state[A].shape[0]), (8, 2));
            let mean = aggregate(&updates, &[0.25, 0.75], Aggregation::MeanOfFactors, &layout);
            for (got, want) in product(&global.state).iter().zip(product(&mean)) {
                assert!((got - want).abs() < 1e-5, "{got} {want}");
            }
            let model = product(&global.model(&layout, Aggregation::FedexLora));
            for place in 0..20 {
                let exact = 0.25 * product(&updates[0])[place] + 0.75 * product(&updates[1])[place];
                assert!((model[place] - folded[place] - exact).abs() < 1e-5, "{round}");
                folded[place] = model[place] - product(&global.state)[place];
            }
        }
    }
}
