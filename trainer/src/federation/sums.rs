//! The weighted sum of clients' updates, one after the other: its memory does not grow with their number.

use std::collections::BTreeMap;

use flapsam_model::parameters::{Array, Layout, Pair, StateDict, pairs};
use rayon::prelude::*;

use super::aggregation::{Aggregation, holds_both};
use super::averaging::Product;

/// The sum so far. Sums of some clients' updates can be merged into that of all, so that one server may have others below
/// it.
#[derive(Debug, Clone)]
pub struct Sums<'a> {
    how: Aggregation,
    layout: &'a Layout,
    /// What all have of the pairs' factors.
    common: &'a StateDict,
    /// What counts number by number: all but pairs whose products alone matter.
    plain: BTreeMap<String, Sum>,
    /// The products of the pairs, by the name of their A.
    products: BTreeMap<&'a str, Product>,
}

/// A weighted sum in double precision.
#[derive(Debug, Clone, PartialEq)]
struct Sum {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Sum {
    fn array(&self) -> Array {
        let values = self.values.iter().map(|&value| value as f32).collect();
        Array::new(self.shape.clone(), values)
    }
}

impl<'a> Sums<'a> {
    /// No update yet. Of a pair of which only one factor travels, the other one is in `common`, or at the clients alone.
    pub fn new(how: Aggregation, layout: &'a Layout, common: &'a StateDict) -> Self {
        Self {
            how,
            layout,
            common,
            plain: BTreeMap::new(),
            products: BTreeMap::new(),
        }
    }

    /// One update more, so many times.
    ///
    /// # Panics
    /// If it holds other parameters than the ones before, or than the network (a programming error).
    pub fn add(&mut self, update: &StateDict, weight: f64) {
        for pair in pairs(self.layout) {
            let [a, b] = [&pair.a, &pair.b].map(|key| update.get(key).or_else(|| self.common.get(key)));
            let travels = update.contains_key(&pair.a) || update.contains_key(&pair.b);
            if let (Some(a), Some(b), true) = (a, b, travels) {
                let zero = || Product::new(b.shape[0], a.shape[1]);
                self.products.entry(&pair.a).or_insert_with(zero).add((a, b), weight);
            }
        }
        let (how, layout) = (self.how, self.layout);
        let product_alone = |key: &str| {
            let pair = layout.get(key).and_then(|spec| spec.role.pair());
            !how.needs_mean_factors() && pair.is_some_and(|pair| holds_both(update, &pair.a, &pair.b))
        };
        for (key, array) in update.iter().filter(|(key, _)| !product_alone(key)) {
            let zero = || Sum {
                shape: array.shape.clone(),
                values: vec![0.0; array.values.len()],
            };
            let sum = self.plain.entry(key.clone()).or_insert_with(zero);
            assert_eq!(sum.shape, array.shape, "{key}");
            let numbers = sum.values.iter_mut().zip(&array.values);
            numbers.for_each(|(sum, &value)| *sum += weight * f64::from(value));
        }
    }

    /// Another sum more.
    ///
    /// # Panics
    /// If it holds other parameters (a programming error).
    pub fn merge(&mut self, other: &Self) {
        for (key, product) in &other.products {
            match self.products.get_mut(key) {
                Some(sum) => sum.merge(product),
                None => drop(self.products.insert(key, product.clone())),
            }
        }
        for (key, more) in &other.plain {
            match self.plain.get_mut(key) {
                Some(sum) => {
                    assert_eq!(sum.shape, more.shape, "{key}");
                    let numbers = sum.values.iter_mut().zip(&more.values);
                    numbers.for_each(|(sum, more)| *sum += more);
                }
                None => drop(self.plain.insert(key.clone(), more.clone())),
            }
        }
    }

    /// Takes all so many times: for sums of parts, whose weights add up to one in each.
    pub fn scale(&mut self, times: f64) {
        self.products.values_mut().for_each(|product| product.scale(times));
        let numbers = self.plain.values_mut().flat_map(|sum| &mut sum.values);
        numbers.for_each(|value| *value *= times);
    }

    /// The updates as one, if their weights add up to one: LoRA pairs by the rule, the rest by weighted mean.
    pub fn mean(&self) -> StateDict {
        let mut mean: StateDict = self.plain.iter().map(|(key, sum)| (key.clone(), sum.array())).collect();
        // Where only one factor travels, its mean is there.
        let whole = |pair: &&Pair| !self.how.needs_mean_factors() || holds_both(&mean, &pair.a, &pair.b);
        let combined = |(pair, product): (&Pair, &Product)| {
            let factors = || (mean[&pair.a].clone(), mean[&pair.b].clone());
            let (a, b) = self.how.combine(product, factors, self.layout[&pair.a].shape[0]);
            [(pair.a.clone(), a), (pair.b.clone(), b)]
        };
        let pairs = self.of_pairs().filter(|(pair, _)| whole(pair));
        let combined: Vec<_> = pairs.collect::<Vec<_>>().into_par_iter().map(combined).collect();
        mean.extend(combined.into_iter().flatten());
        mean
    }

    /// The pairs of which there are products, in their order.
    fn of_pairs(&self) -> impl Iterator<Item = (&Pair, &Product)> {
        pairs(self.layout).filter_map(|pair| Some((pair, self.products.get(pair.a.as_str())?)))
    }

    /// How far LoRA pairs are from the weighted mean of the clients' products, as a share of its norm, over all pairs; `None`
    /// if there are none whose both factors are known.
    pub fn lora_error(&self, mean: &StateDict) -> Option<f64> {
        let squares = |(pair, product): (&Pair, &Product)| {
            let [a, b] = [&pair.a, &pair.b].map(|key| mean.get(key).unwrap_or_else(|| &self.common[key]));
            let mut off = product.clone();
            off.add((a, b), -1.0);
            (off.norm().powi(2), product.norm().powi(2))
        };
        let all: Vec<_> = self.of_pairs().collect();
        let all: Vec<(f64, f64)> = all.into_par_iter().map(squares).collect();
        // In the order of the pairs, whatever the number of threads.
        let (error, whole) = all.iter().fold((0.0, 0.0), |(error, whole), (off, product)| {
            (error + off, whole + product)
        });
        (whole > 0.0).then(|| (error / whole).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::aggregation::tests::{A, B, layout, product, update};

    const RULES: [Aggregation; 6] = [
        Aggregation::ProductSvd,
        Aggregation::MeanOfFactors,
        Aggregation::Stacked,
        Aggregation::FedexLora,
        Aggregation::FfaLora,
        Aggregation::LoraFair,
    ];

    /// Servers of regions, each with the mean of its own clients, and one above them: the same as one server for all, but for
    /// what rounding a sum in another order does.
    #[test]
    fn regions_add_up_to_the_whole() {
        let (layout, nothing) = (layout(), StateDict::new());
        for clients in [6usize, 60] {
            let updates: Vec<StateDict> = (0..clients).map(|place| update(0.37 * place as f32)).collect();
            let slices: Vec<f64> = (0..clients).map(|place| 3.0 + (place % 7) as f64).collect();
            let total: f64 = slices.iter().sum();
            for how in RULES {
                let mut flat = Sums::new(how, &layout, &nothing);
                let mut above = Sums::new(how, &layout, &nothing);
                updates
                    .iter()
                    .zip(&slices)
                    .for_each(|(update, slices)| flat.add(update, slices / total));
                for region in (0..clients).collect::<Vec<_>>().chunks(clients.div_ceil(4)) {
                    let own: f64 = region.iter().map(|&place| slices[place]).sum();
                    let mut sums = Sums::new(how, &layout, &nothing);
                    region
                        .iter()
                        .for_each(|&place| sums.add(&updates[place], slices[place] / own));
                    sums.scale(own / total);
                    above.merge(&sums);
                }
                let (flat_mean, two_levels) = (flat.mean(), above.mean());
                let products = product(&flat_mean).into_iter().zip(product(&two_levels));
                let plain = |mean: &StateDict| mean["mask_tokens.weight"].values.clone();
                let plain = plain(&flat_mean).into_iter().zip(plain(&two_levels));
                let plain = plain.map(|(one, other)| (f64::from(one), f64::from(other)));
                for (one, other) in products.chain(plain) {
                    assert!((one - other).abs() < 2e-6, "{how:?}, {clients} clients: {one} {other}");
                }
                let [one, other] =
                    [(&flat, &flat_mean), (&above, &two_levels)].map(|(sums, mean)| sums.lora_error(mean));
                assert!(
                    (one.unwrap() - other.unwrap()).abs() < 1e-6,
                    "{how:?}: {one:?} {other:?}"
                );
            }
        }
    }

    /// A factor that does not travel is everybody's, and the products are of it.
    #[test]
    fn what_does_not_travel_is_common() {
        let (layout, common) = (layout(), update(5.0));
        let only_b = |seed: f32| {
            let mut update = update(seed);
            update.remove(A);
            update
        };
        let mut sums = Sums::new(Aggregation::FfaLora, &layout, &common);
        sums.add(&only_b(0.0), 0.25);
        sums.add(&only_b(1.0), 0.75);
        let mean = sums.mean();
        assert!(!mean.contains_key(A) && mean.contains_key(B));
        assert!(sums.lora_error(&mean).unwrap() < 1e-6);
    }
}
