//! Differential privacy of a client's data: its change of a round is clipped, and noise hides what is left (DP-FedAvg,
//! arXiv 1710.06963, with the noise added by each client before anything leaves it).

use std::fmt;

use flapsam_model::checkpoint::sha256;
use flapsam_model::parameters::{Array, StateDict};
use flapsam_model::random::Random;
use serde::{Deserialize, Serialize};

/// Clipping and noise, the same at all clients.
///
/// What is protected is all of a client's data together: whoever sees every number that all clients ever send, the server
/// too, can hardly tell whether a client trained or sent its start back. Whatever the server makes of noisy updates is as
/// private as they are, so that every rule of aggregation goes with it. Nothing is gained by drawing the clients of a round,
/// since they are drawn by a seed that all know.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// The largest change of a client in a round, over all numbers that it sends as one vector; a larger one is cut to it.
    /// Above 0.
    pub clip: f64,
    /// The noise's standard deviation at each number, as a multiple of `clip`. Above 0.
    pub noise_multiplier: f64,
    /// The chance that the guarantee does not hold; for `epsilon`. Above 0, below 1.
    pub delta: f64,
}

impl Privacy {
    /// What makes no sense in it.
    pub fn mistake(&self) -> Option<String> {
        let positive = [("clip", self.clip), ("noise_multiplier", self.noise_multiplier)];
        if let Some((key, value)) = positive.iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
            return Some(format!("'privacy.{key}' is {value}; it must be above 0"));
        }
        let delta = self.delta;
        (!(delta > 0.0 && delta < 1.0)).then(|| format!("'privacy.delta' is {delta}; it must be above 0 and below 1"))
    }

    /// The epsilon of a client that has taken part in so many rounds.
    pub fn epsilon(&self, rounds: usize) -> f64 {
        epsilon(self.noise_multiplier, rounds, self.delta)
    }

    /// What a client says that has trained a state from another one: its change clipped, and noise upon it.
    pub fn protected(&self, trained: &StateDict, before: &StateDict, secret: &Secret) -> StateDict {
        let change = trained.iter().flat_map(|(key, array)| ways(array, &before[key]));
        let norm = change.map(|way| way * way).sum::<f64>().sqrt();
        let kept = if norm > self.clip { self.clip / norm } else { 1.0 };
        let mut noise = secret.noise(trained);
        let spread = self.noise_multiplier * self.clip;
        let mut noisy = |(key, array): (&String, &Array)| {
            let before = &before[key];
            let ways = before.values.iter().zip(ways(array, before));
            let said = ways.map(|(&from, way)| (f64::from(from) + kept * way + spread * noise.normal()) as f32);
            (key.clone(), Array::new(array.shape.clone(), said.collect()))
        };
        trained.iter().map(&mut noisy).collect()
    }
}

/// The way to each number of an array.
fn ways<'a>(to: &'a Array, from: &'a Array) -> impl Iterator<Item = f64> + 'a {
    let numbers = to.values.iter().zip(&from.values);
    numbers.map(|(&to, &from)| f64::from(to) - f64::from(from))
}

/// Where a client's noise comes from. Who knows it can take the noise away again.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// It is in no message and no log.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// That of a client which has one.
    pub fn of_site(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// That of a client in a run in one process, which protects nobody: everyone can draw it from the experiment's seed.
    pub fn simulated(seed: u64, site: &str) -> Self {
        Self(sha256(format!("simulated/{seed}/{site}").as_bytes()).into_bytes())
    }

    /// The noise for a state. Another state has other noise, or else the difference of two would have none; asked again for
    /// the same one, a client says the same.
    fn noise(&self, trained: &StateDict) -> Random {
        let keys = trained.iter().flat_map(|(key, array)| {
            let values = array.values.iter().flat_map(|value| value.to_le_bytes());
            key.bytes().chain(values)
        });
        let state: Vec<u8> = keys.collect();
        Random::of_secret(&self.0, &state)
    }
}

/// The least epsilon at which so many releases, each with Gaussian noise of this multiple of the largest change, are
/// `(epsilon, delta)`-private. Together they tell as much as one with the root of their number less noise, and for one the
/// formula is exact (Balle and Wang, arXiv 1805.06530, theorem 8).
pub fn epsilon(noise_multiplier: f64, releases: usize, delta: f64) -> f64 {
    let apart = (releases as f64).sqrt() / noise_multiplier;
    let holds = |epsilon: f64| chance_beyond(apart, epsilon) <= delta;
    if releases == 0 || holds(0.0) {
        return 0.0;
    }
    let (mut too_small, mut enough) = (0.0, 1.0);
    while !holds(enough) {
        (too_small, enough) = (enough, 2.0 * enough);
        if enough == f64::INFINITY {
            return enough;
        }
    }
    for _ in 0..100 {
        let middle = 0.5 * (too_small + enough);
        match holds(middle) {
            true => enough = middle,
            false => too_small = middle,
        }
    }
    enough
}

/// The least noise multiplier at which so many releases are `(epsilon, delta)`-private; to 1 in 10^9.
pub fn least_noise(wanted: f64, releases: usize, delta: f64) -> f64 {
    let (mut too_little, mut enough) = (0.0, 1.0);
    while epsilon(enough, releases, delta) > wanted && enough < f64::MAX / 2.0 {
        (too_little, enough) = (enough, 2.0 * enough);
    }
    while enough - too_little > 1e-9 * enough {
        let middle = 0.5 * (too_little + enough);
        match epsilon(middle, releases, delta) <= wanted {
            true => enough = middle,
            false => too_little = middle,
        }
    }
    enough
}

/// The least delta for an epsilon, of one release whose noise is 1 and whose largest change is `apart`.
fn chance_beyond(apart: f64, epsilon: f64) -> f64 {
    let (half, beyond) = (0.5 * apart, epsilon / apart);
    libm::exp(ln_below(half - beyond)) - libm::exp(epsilon + ln_below(-half - beyond))
}

/// The logarithm of the chance that a normal number is below `x`.
fn ln_below(x: f64) -> f64 {
    if x > -30.0 {
        return libm::log(0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2));
    }
    // Where it would be too small for a number: the first terms of its asymptotic series.
    let squared = x * x;
    let series = 1.0 - 1.0 / squared + 3.0 / (squared * squared);
    -0.5 * squared - libm::log(-x) - 0.5 * libm::log(std::f64::consts::TAU) + libm::log(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Google's accountant has it, to 1 %: `tests/python/epsilon.py` wrote its numbers down.
    #[test]
    fn epsilon_is_that_of_dp_accounting() {
        let table = include_str!("epsilon.csv");
        let mut rows = 0;
        for line in table.lines().skip(1) {
            let numbers: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
            let [noise, rounds, delta, want] = numbers[..] else {
                panic!("{line}")
            };
            let got = epsilon(noise, rounds as usize, delta);
            assert!((got / want - 1.0).abs() < 0.01, "{line}: {got}");
            rows += 1;
        }
        assert_eq!(rows, 120);
    }

    /// A number is found where the terms are too small or too large to be written, and more of anything never helps.
    #[test]
    fn epsilon_grows_with_rounds_and_falls_with_noise() {
        let at = |noise: f64, rounds: usize| epsilon(noise, rounds, 1e-5);
        assert_eq!(at(1.0, 0), 0.0);
        for noise in [1e-3, 0.01, 0.1, 1.0, 10.0, 1e3] {
            for rounds in [1, 10, 1000] {
                let (here, later) = (at(noise, rounds), at(noise, rounds + 1));
                assert!(
                    here.is_finite() && here >= 0.0 && later >= here,
                    "{noise} {rounds}: {here} {later}"
                );
                assert!(at(1.1 * noise, rounds) <= here);
            }
        }
        // So much noise that nothing can be told.
        assert_eq!(epsilon(1e9, 1, 1e-5), 0.0);
    }

    /// So much noise is enough, and a little less is not.
    #[test]
    fn the_least_noise_is_the_least() {
        for (wanted, rounds) in [(0.1, 1), (1.0, 6), (8.0, 100), (500.0, 3)] {
            let noise = least_noise(wanted, rounds, 1e-5);
            assert!(epsilon(noise, rounds, 1e-5) <= wanted);
            assert!(
                epsilon(0.999 * noise, rounds, 1e-5) > wanted,
                "{wanted} {rounds}: {noise}"
            );
        }
    }

    fn state(values: &[f32]) -> StateDict {
        let array = |values: &[f32]| Array::new([values.len()], values.to_vec());
        let (one, rest) = values.split_at(1);
        StateDict::from([("a".to_owned(), array(one)), ("b".to_owned(), array(rest))])
    }

    fn change(said: &StateDict, before: &StateDict) -> Vec<f64> {
        said.iter()
            .flat_map(|(key, array)| ways(array, &before[key]).collect::<Vec<_>>())
            .collect()
    }

    /// Over all numbers together the change is at most what it may be, and its direction stays.
    #[test]
    fn a_large_change_is_cut_and_a_small_one_is_not() {
        let privacy = Privacy {
            clip: 1.0,
            noise_multiplier: 1e-9,
            delta: 1e-5,
        };
        let (before, secret) = (state(&[1.0, -1.0, 2.0]), Secret::simulated(1, "A"));
        let large = privacy.protected(&state(&[4.0, -1.0, 6.0]), &before, &secret);
        for (got, want) in change(&large, &before).iter().zip([0.6, 0.0, 0.8]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        let small = privacy.protected(&state(&[1.3, -1.0, 2.4]), &before, &secret);
        for (got, want) in change(&small, &before).iter().zip([0.3, 0.0, 0.4]) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
    }

    /// The noise has the spread that it should have, is the same for the same state, and no other state's or client's.
    #[test]
    fn noise_is_as_large_as_it_says_and_never_used_twice() {
        let privacy = Privacy {
            clip: 0.5,
            noise_multiplier: 2.0,
            delta: 1e-5,
        };
        let before = state(&[0.0; 20_000]);
        let said = |trained: &StateDict, site: &str| {
            let said = privacy.protected(trained, &before, &Secret::simulated(1, site));
            change(&said, &before)
        };
        let noise = said(&before, "A");
        let spread = (noise.iter().map(|x| x * x).sum::<f64>() / noise.len() as f64).sqrt();
        assert!((spread - 1.0).abs() < 0.02, "{spread}");
        assert_eq!(noise, said(&before, "A"));
        let mut other = before.clone();
        other.get_mut("a").unwrap().values[0] = 1e-30;
        for (what, other) in [("client", said(&before, "B")), ("state", said(&other, "A"))] {
            let alike = noise.iter().zip(&other).map(|(x, y)| x * y).sum::<f64>() / noise.len() as f64;
            assert!(alike.abs() < 0.05, "another {what}: {alike}");
        }
    }
}
