//! Pairs that clients fold into their weights, and what of a pair a network of lower rank takes.

use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::merge::{adapted, merge};
use flapsam_model::parameters::{Array, Layout, Role, Spec, StateDict, initial, pairs};

use super::aggregation::{Aggregation, Sequel};
use super::averaging::product_svd;
use crate::error::Result;

/// What clients need to fold pairs into their weights.
#[derive(Debug)]
pub struct Folding {
    /// The network's weights as they were before the first round.
    pub weights: StateDict,
    /// Its shape.
    pub sam: SamConfig,
    /// Its pairs, of one client's rank.
    pub adapter: AdapterConfig,
}

impl Folding {
    /// The attentions' weights with the folded pairs in them.
    ///
    /// # Errors
    /// The pairs do not fit the network (a programming error).
    pub fn weights(&self, folded: &StateDict, layout: &Layout) -> Result<StateDict> {
        let mut whole = self.weights.clone();
        whole.extend(folded.clone());
        let rank = pairs(layout).find_map(|pair| Some(folded.get(&pair.a)?.shape[0]));
        let adapter = AdapterConfig {
            rank: rank.unwrap_or_default(),
            ..self.adapter.clone()
        };
        let mut weights = merge(whole, &self.sam, &adapter)?;
        let adapted = adapted(layout);
        weights.retain(|key, _| adapted.contains(key));
        Ok(weights)
    }
}

/// The pairs that clients start anew with after a round: A drawn again, B zero.
pub fn fresh_pairs(round: usize, layout: &Layout, seed: u64) -> StateDict {
    let factors = layout.iter().filter(|(_, spec)| spec.role.pair().is_some());
    let fresh = factors.map(|(key, spec)| {
        let mut array = initial(&format!("{key}/round {round}"), spec, seed);
        if let Role::LoraB(_) = spec.role {
            array.values.fill(0.0);
        }
        (key.clone(), array)
    });
    fresh.collect()
}

/// Adds to the pairs that clients have folded into their weights in all rounds so far what they fold of a round's.
pub fn fold(folded: &mut StateDict, sent: &StateDict, how: Aggregation, layout: &Layout) {
    match how.sequel() {
        Sequel::GoOn | Sequel::Turned => (),
        Sequel::Folded => *folded = joined(folded, sent, layout),
        Sequel::RestFolded => *folded = joined(folded, &beyond(sent, layout), layout),
    }
}

/// The sums of both states' pairs, in as few ranks as hold them all: of all pairs alike, as adapters have it; where a pair
/// needs less, zeros fill it up.
pub fn joined(one: &StateDict, other: &StateDict, layout: &Layout) -> StateDict {
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
    use crate::federation::aggregation::tests::{A, B, lora_layout, product, update};

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
