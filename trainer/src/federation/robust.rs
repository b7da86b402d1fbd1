//! Aggregation that a few clients cannot spoil, and how far an update is from where its round began.

use flapsam_model::parameters::{Array, Layout, StateDict, pairs};
use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, aggregate, factors, holds_both};
use super::averaging::{nearest_pair, product_norm, product_svd, weighted_mean, weighted_product};

/// A rule that bounds what single clients can do to the mean. LoRA pairs count by their products: factors are free to turn,
/// so that their coordinates say nothing across clients. The pair that is sent is the nearest one to the result.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Robust {
    /// The median at each coordinate, every client counting alike (arXiv 1803.01498).
    Median,
    /// The mean at each coordinate without this share of the clients at either end, every other one counting alike (arXiv
    /// 1803.01498).
    TrimmedMean {
        /// Above 0, below one half.
        share: f64,
    },
    /// The weighted mean of changes that are cut to so many times the round's median change (arXiv 1911.07963).
    NormClipping {
        /// Above 0.
        times_median: f64,
    },
    /// The one update that is nearest to the others (Krum, arXiv 1703.02757).
    Krum {
        /// How many clients may be bad.
        bad: usize,
    },
}

impl Robust {
    /// What makes no sense in it.
    pub fn mistake(&self) -> Option<String> {
        match *self {
            Self::TrimmedMean { share } if !(share > 0.0 && share < 0.5) => Some(format!(
                "'robust.trimmed_mean.share' is {share}; it must be above 0 and below 0.5"
            )),
            Self::NormClipping { times_median } if !(times_median > 0.0 && times_median.is_finite()) => Some(format!(
                "'robust.norm_clipping.times_median' is {times_median}; it must be above 0"
            )),
            _ => None,
        }
    }

    /// The name in reports.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::TrimmedMean { .. } => "trimmed mean",
            Self::NormClipping { .. } => "clipped changes",
            Self::Krum { .. } => "Krum",
        }
    }

    /// How many updates it takes at least.
    pub fn least_updates(&self) -> usize {
        match *self {
            Self::Krum { bad } => bad.saturating_add(3),
            _ => 1,
        }
    }

    /// The clients' updates as one. `before` is what all of them started from.
    ///
    /// # Panics
    /// See [`aggregate`].
    pub fn aggregate(&self, updates: &[StateDict], weights: &[f64], before: &StateDict, layout: &Layout) -> StateDict {
        match *self {
            Self::Median => by_coordinate(updates, layout, median),
            Self::TrimmedMean { share } => by_coordinate(updates, layout, |values| {
                let cut = (share * values.len() as f64).ceil() as usize;
                // At least one is left in the middle.
                let cut = cut.min((values.len() - 1) / 2);
                mean(&values[cut..values.len() - cut])
            }),
            Self::NormClipping { times_median } => {
                let norms: Vec<f64> = updates.iter().map(|update| change(update, before, layout)).collect();
                let most = times_median * median_of(&norms);
                let kept = |norm: &f64| if *norm > most { most / norm } else { 1.0 };
                let kept: Vec<f64> = norms.iter().map(kept).collect();
                clipped(updates, weights, &kept, before, layout)
            }
            Self::Krum { bad } => {
                let nearest = krum(updates, bad, layout);
                aggregate(&updates[nearest..=nearest], &[1.0], Aggregation::ProductSvd, layout)
            }
        }
    }
}

/// The norm of the way from one state to another as one vector, LoRA pairs by their products.
pub fn change(update: &StateDict, before: &StateDict, layout: &Layout) -> f64 {
    let mut sum = 0.0;
    for pair in pairs(layout).filter(|pair| holds_both(update, &pair.a, &pair.b)) {
        let both = [update, before].map(|state| (&state[&pair.a], &state[&pair.b]));
        sum += product_norm(&both, &[1.0, -1.0]).powi(2);
    }
    for (key, array) in plain(update, layout) {
        let ways = array.values.iter().zip(&before[key].values);
        sum += ways.map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>();
    }
    sum.sqrt()
}

/// The state that lies so many times as far from `before` as the update does; negative on the other side.
pub fn moved(update: &StateDict, before: &StateDict, times: f64, layout: &Layout) -> StateDict {
    clipped(std::slice::from_ref(update), &[1.0], &[times], before, layout)
}

/// The median of numbers; of none it is zero.
pub fn median_of(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => 0.5 * (sorted[count / 2 - 1] + sorted[count / 2]),
    }
}

/// The parameters that count coordinate by coordinate: all that are no pairs of which both factors are there.
fn plain<'a>(state: &'a StateDict, layout: &'a Layout) -> impl Iterator<Item = (&'a String, &'a Array)> {
    state.iter().filter(|(key, _)| {
        let pair = layout.get(*key).and_then(|spec| spec.role.pair());
        !pair.is_some_and(|pair| holds_both(state, &pair.a, &pair.b))
    })
}

/// Each client's way from `before` taken so many times, and their weighted mean.
fn clipped(updates: &[StateDict], weights: &[f64], times: &[f64], before: &StateDict, layout: &Layout) -> StateDict {
    let ways = weights.iter().zip(times);
    let mut shares: Vec<f64> = ways.map(|(weight, times)| weight * times).collect();
    shares.push(weights.iter().sum::<f64>() - shares.iter().sum::<f64>());
    let mut all: Vec<&StateDict> = updates.iter().collect();
    all.push(before);
    let mut global = StateDict::new();
    for pair in pairs(layout).filter(|pair| holds_both(&updates[0], &pair.a, &pair.b)) {
        let rank = updates[0][&pair.a].shape[0];
        let (a, b) = product_svd(&factors(&all, &pair.a, &pair.b), &shares, rank);
        global.insert(pair.a.clone(), a);
        global.insert(pair.b.clone(), b);
    }
    for (key, _) in plain(&updates[0], layout) {
        let arrays: Vec<&Array> = all.iter().map(|state| &state[key]).collect();
        global.insert(key.clone(), weighted_mean(&arrays, &shares));
    }
    global
}

/// One number of the clients' at each coordinate, of their numbers in order of size.
fn by_coordinate(updates: &[StateDict], layout: &Layout, one: impl Fn(&[f32]) -> f64) -> StateDict {
    let all: Vec<&StateDict> = updates.iter().collect();
    let combine = |arrays: &[&Array]| {
        let mut column = vec![0f32; arrays.len()];
        let mut at = |place: usize| {
            column
                .iter_mut()
                .zip(arrays)
                .for_each(|(value, array)| *value = array.values[place]);
            column.sort_by(f32::total_cmp);
            one(&column) as f32
        };
        let values = (0..arrays[0].values.len()).map(&mut at).collect();
        Array::new(arrays[0].shape.clone(), values)
    };
    let mut global = StateDict::new();
    for pair in pairs(layout).filter(|pair| holds_both(&updates[0], &pair.a, &pair.b)) {
        let products = factors(&all, &pair.a, &pair.b);
        let products: Vec<Array> = products.iter().map(|pair| weighted_product(&[*pair], &[1.0])).collect();
        let product = combine(&products.iter().collect::<Vec<_>>());
        let (a, b) = nearest_pair(&product, layout[&pair.a].shape[0]);
        global.insert(pair.a.clone(), a);
        global.insert(pair.b.clone(), b);
    }
    for (key, _) in plain(&updates[0], layout) {
        let arrays: Vec<&Array> = updates.iter().map(|update| &update[key]).collect();
        global.insert(key.clone(), combine(&arrays));
    }
    global
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
}

fn median(sorted: &[f32]) -> f64 {
    let count = sorted.len();
    mean(&sorted[(count - 1) / 2..=count / 2])
}

/// The place of the update whose nearest others, all but the bad ones and two, are nearest.
fn krum(updates: &[StateDict], bad: usize, layout: &Layout) -> usize {
    let near = updates.len().saturating_sub(bad + 2).max(1);
    let score = |update: &StateDict| -> f64 {
        let others = updates.iter().filter(|other| !std::ptr::eq(*other, update));
        let mut squares: Vec<f64> = others.map(|other| change(update, other, layout).powi(2)).collect();
        squares.sort_by(f64::total_cmp);
        squares.iter().take(near).sum()
    };
    let scores: Vec<f64> = updates.iter().map(score).collect();
    let best = (0..scores.len()).min_by(|&one, &other| scores[one].total_cmp(&scores[other]));
    best.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::aggregation::tests::{layout, product, update};

    const EVERY: [Robust; 4] = [
        Robust::Median,
        Robust::TrimmedMean { share: 0.2 },
        Robust::NormClipping { times_median: 1.0 },
        Robust::Krum { bad: 1 },
    ];

    /// Five clients near one state, each a little off.
    fn clients() -> Vec<StateDict> {
        let near = |place: usize| {
            let mut state = update(1.0);
            for array in state.values_mut() {
                let noise = update(place as f32 * 10.0 + 3.0);
                let noise = noise.values().flat_map(|array| array.values.clone());
                array
                    .values
                    .iter_mut()
                    .zip(noise)
                    .for_each(|(value, noise)| *value += 0.01 * noise);
            }
            state
        };
        (0..5).map(near).collect()
    }

    fn apart(one: &StateDict, other: &StateDict) -> f64 {
        change(one, other, &layout())
    }

    /// A sixth client far off, or on the other side, moves none of the rules as it moves the mean.
    #[test]
    fn one_bad_client_of_six_does_not_carry_the_rest_away() {
        let (before, layout) = (update(0.5), layout());
        let good = clients();
        let honest = aggregate(&good, &[0.2; 5], Aggregation::ProductSvd, &layout);
        let size = apart(&honest, &before);
        for times in [1e3, -1.0] {
            let bad = moved(&good[0], &before, times, &layout);
            assert!((apart(&bad, &before) / size - times.abs()).abs() < 0.1 * times.abs());
            let all = [good.clone(), vec![bad]].concat();
            let spoilt = aggregate(&all, &[1.0 / 6.0; 6], Aggregation::ProductSvd, &layout);
            let off = apart(&spoilt, &honest);
            assert!(off > 0.3 * size, "{off} of {size}");
            for rule in EVERY {
                let got = rule.aggregate(&all, &[1.0 / 6.0; 6], &before, &layout);
                // A change that is cut still points the wrong way.
                let most = match (rule, times < 0.0) {
                    (Robust::NormClipping { .. }, _) => 0.4,
                    _ => 0.1,
                };
                let got = apart(&got, &honest) / size;
                assert!(got < most, "{rule:?} with one {times} times as far: {got}");
            }
        }
    }

    /// Of clients that all say the same, every rule says it too.
    #[test]
    fn where_all_agree_nothing_is_changed() {
        let (before, layout) = (update(0.5), layout());
        let all = vec![update(1.0); 5];
        for rule in EVERY {
            let got = rule.aggregate(&all, &[0.2; 5], &before, &layout);
            assert!(apart(&got, &all[0]) < 1e-5, "{rule:?}");
            assert_eq!(got.keys().collect::<Vec<_>>(), all[0].keys().collect::<Vec<_>>());
        }
    }

    #[test]
    fn coordinates_are_taken_in_order_of_size() {
        let states = [3.0, -8.0, 1.0, 2.0, 100.0].map(|value| {
            let array = Array::new([1], vec![value]);
            StateDict::from([("mask_tokens.weight".to_owned(), array)])
        });
        let of = |rule: Robust, count: usize| {
            let state = rule.aggregate(&states[..count], &vec![1.0; count], &states[0], &layout());
            state["mask_tokens.weight"].values[0]
        };
        assert_eq!((of(Robust::Median, 5), of(Robust::Median, 4)), (2.0, 1.5));
        assert_eq!(of(Robust::TrimmedMean { share: 0.2 }, 5), 2.0);
        assert_eq!(of(Robust::TrimmedMean { share: 0.4 }, 5), 2.0);
        assert_eq!(of(Robust::TrimmedMean { share: 0.4 }, 1), 3.0);
        assert_eq!(of(Robust::Krum { bad: 1 }, 5), 2.0);
    }

    #[test]
    fn a_way_taken_twice_is_twice_as_long() {
        let (before, after, layout) = (update(0.0), update(0.7), layout());
        let twice = moved(&after, &before, 2.0, &layout);
        // The way of a pair's product has twice the rank of the pair; what is left is the nearest of its rank.
        let products = [&twice, &after, &before].map(product);
        let lost = products[0].iter().zip(&products[1]).zip(&products[2]);
        let (off, whole) = lost.fold((0.0, 0.0), |(off, whole), ((twice, after), before)| {
            let want = 2.0 * after - before;
            (off + (twice - want).powi(2), whole + want.powi(2))
        });
        assert!(off < 0.3 * whole, "{off} of {whole}");
        let plain = "mask_tokens.weight";
        for place in 0..3 {
            let want = 2.0 * after[plain].values[place] - before[plain].values[place];
            assert!((twice[plain].values[place] - want).abs() < 1e-6);
        }
    }
}
