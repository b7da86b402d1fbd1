//! How the server makes one LoRA pair of the clients' pairs: all that tells one rule from another stands here.

use flapsam_model::parameters::{Array, Layout, Role, StateDict};
use serde::{Deserialize, Serialize};

use super::Sums;
use super::averaging::{Product, product_norm};

/// A rule of aggregation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The nearest pair to the weighted mean of the products (the reference).
    #[default]
    ProductSvd,
    /// The weighted means of A and of B. Their product is not the mean of the products.
    MeanOfFactors,
    /// The weighted mean of the products itself, as one pair of as many ranks as all clients have together. Clients fold
    /// it into their weights and start the next round with fresh pairs (FLoRA, arXiv 2409.05976).
    Stacked,
    /// A stays as it was drawn, for all alike, and only B is trained and averaged: then the mean of the factors is that of
    /// the products (FFA-LoRA, arXiv 2403.12313).
    FfaLora,
    /// Both are trained and only A is averaged; every client keeps a B of its own, and so a model of its own (FedSA-LoRA,
    /// arXiv 2410.01463).
    FedsaLora,
    /// The weighted means of A and of B, and what they lack of the mean of the products is folded into the weights
    /// (FedEx-LoRA, arXiv 2410.09432).
    FedexLora,
    /// B is trained and averaged in the first round, A in the second, and so on, the other one standing still (RoLoRA,
    /// arXiv 2502.01755).
    Rolora,
    /// The weighted means of A and of B, with B corrected towards the mean of the products (LoRA-FAIR, arXiv 2411.14961).
    /// The paper measures likeness by the cosine and finds the correction step by step; here it is the least squared
    /// distance, which has a formula.
    LoraFair,
}

/// Which factors of the pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factors {
    /// A and B.
    Both,
    /// A alone.
    A,
    /// B alone.
    B,
}

impl Factors {
    /// Whether a parameter is among them; whatever is no factor of a pair always is.
    pub fn have(self, role: &Role) -> bool {
        match role {
            Role::LoraA(_) => self != Factors::B,
            Role::LoraB(_) => self != Factors::A,
            _ => true,
        }
    }

    /// Which parameters of a network are among them.
    pub fn among(self, layout: &Layout) -> impl Fn(&str) -> bool {
        move |key| layout.get(key).is_none_or(|spec| self.have(&spec.role))
    }
}

/// What becomes of a pair after the server has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequel {
    /// Clients go on from it, in the same coordinates as before: differences and optimizers carry over.
    GoOn,
    /// Clients go on from it, but the server has turned it: it has no coordinates in common with the one before.
    Turned,
    /// Clients fold it into their weights and start with fresh pairs.
    Folded,
    /// Clients go on from its first ranks, as many as theirs, in the same coordinates, and fold the others into their
    /// weights.
    RestFolded,
}

/// LoRA-FAIR's weight of the correction's size (its section 5).
const FAIR_HOLD: f64 = 0.01;

impl Aggregation {
    /// The name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProductSvd => "product_svd",
            Self::MeanOfFactors => "mean_of_factors",
            Self::Stacked => "stacked",
            Self::FfaLora => "ffa_lora",
            Self::FedsaLora => "fedsa_lora",
            Self::FedexLora => "fedex_lora",
            Self::Rolora => "rolora",
            Self::LoraFair => "lora_fair",
        }
    }

    /// The name in reports.
    pub fn title(self) -> &'static str {
        match self {
            Self::ProductSvd => "product SVD",
            Self::MeanOfFactors => "mean of factors",
            Self::Stacked => "stacked",
            Self::FfaLora => "FFA-LoRA",
            Self::FedsaLora => "FedSA-LoRA",
            Self::FedexLora => "FedEx-LoRA",
            Self::Rolora => "RoLoRA",
            Self::LoraFair => "LoRA-FAIR",
        }
    }

    /// The factors that clients train in a round (from 1).
    pub fn trained(self, round: usize) -> Factors {
        match self {
            Self::ProductSvd
            | Self::MeanOfFactors
            | Self::Stacked
            | Self::FedsaLora
            | Self::FedexLora
            | Self::LoraFair => Factors::Both,
            Self::FfaLora => Factors::B,
            Self::Rolora if round % 2 == 1 => Factors::B,
            Self::Rolora => Factors::A,
        }
    }

    /// The factors that travel in a round, both ways.
    pub fn sent(self, round: usize) -> Factors {
        match self {
            Self::FedsaLora => Factors::A,
            _ => self.trained(round),
        }
    }

    /// The factors that clients train in some round or other.
    pub fn ever_trained(self) -> Factors {
        match self {
            Self::FfaLora => Factors::B,
            Self::ProductSvd
            | Self::MeanOfFactors
            | Self::Stacked
            | Self::FedsaLora
            | Self::FedexLora
            | Self::Rolora
            | Self::LoraFair => Factors::Both,
        }
    }

    /// The factors that travel in some round or other.
    pub fn ever_sent(self) -> Factors {
        match self {
            Self::FedsaLora => Factors::A,
            _ => self.ever_trained(),
        }
    }

    /// Whether the next state follows from the weighted sum of what clients send, number by number. The other rules need each
    /// client's product.
    pub fn needs_sums_alone(self) -> bool {
        match self {
            Self::MeanOfFactors | Self::FfaLora | Self::FedsaLora | Self::Rolora => true,
            Self::ProductSvd | Self::Stacked | Self::FedexLora | Self::LoraFair => false,
        }
    }

    /// What becomes of a pair that was sent.
    pub fn sequel(self) -> Sequel {
        match self {
            Self::ProductSvd => Sequel::Turned,
            Self::Stacked => Sequel::Folded,
            Self::FedexLora => Sequel::RestFolded,
            Self::MeanOfFactors | Self::FfaLora | Self::FedsaLora | Self::Rolora | Self::LoraFair => Sequel::GoOn,
        }
    }

    /// Whether clients fold anything of what they are sent into their weights.
    pub fn folds(self) -> bool {
        matches!(self.sequel(), Sequel::Folded | Sequel::RestFolded)
    }

    /// Whether a parameter keeps its coordinates from round to round.
    pub fn lasting(self, role: &Role) -> bool {
        role.pair().is_none() || matches!(self.sequel(), Sequel::GoOn | Sequel::RestFolded)
    }

    /// Whether clients keep a part of each pair, and so have models of their own.
    pub fn is_personal(self) -> bool {
        self == Self::FedsaLora
    }

    /// Whether the server's pair rests on the means of A and of B, besides the mean of the products.
    pub(super) fn needs_mean_factors(self) -> bool {
        match self {
            Self::ProductSvd | Self::Stacked => false,
            Self::MeanOfFactors | Self::FfaLora | Self::FedsaLora | Self::FedexLora | Self::Rolora | Self::LoraFair => {
                true
            }
        }
    }

    /// One pair `(A, B)`, of the weighted sum of the clients' products and, where they are needed, of their factors. With a
    /// rank that is the pair's own, clients of less take the first ranks of it; only [`Aggregation::ProductSvd`] has them in
    /// order of size.
    pub(super) fn combine(
        self,
        product: &Product,
        mean: impl FnOnce() -> (Array, Array),
        rank: usize,
    ) -> (Array, Array) {
        match self {
            Self::ProductSvd => product.nearest(rank),
            Self::MeanOfFactors | Self::FfaLora | Self::FedsaLora | Self::Rolora => mean(),
            Self::Stacked => product.stacked(),
            Self::FedexLora => {
                let (a, b) = mean();
                // The mean pair first, then what it lacks: the clients' pairs, less itself.
                let mut all = Product::of(&[(&a, &b)], &[1.0]);
                all.merge(product);
                all.add((&a, &b), -1.0);
                all.stacked()
            }
            Self::LoraFair => {
                let (a, b) = mean();
                let b = product.corrected((&a, &b), FAIR_HOLD);
                (a, b)
            }
        }
    }
}

/// The clients' updates as one: LoRA pairs by the rule, the rest by weighted mean.
///
/// # Panics
/// If there is no update, or the updates hold other parameters than the first or than the network (a programming error).
pub fn aggregate(updates: &[StateDict], weights: &[f64], how: Aggregation, layout: &Layout) -> StateDict {
    let nothing = StateDict::new();
    let mut sums = Sums::new(how, layout, &nothing);
    for (update, weight) in updates.iter().zip(weights) {
        sums.add(update, *weight);
    }
    sums.mean()
}

pub(super) fn holds_both(state: &StateDict, a: &str, b: &str) -> bool {
    state.contains_key(a) && state.contains_key(b)
}

/// The clients' pairs `(A, B)` of these names.
pub(super) fn factors<'a>(updates: &[&'a StateDict], a: &str, b: &str) -> Vec<(&'a Array, &'a Array)> {
    updates.iter().map(|update| (&update[a], &update[b])).collect()
}

/// The norm of all parameters as one vector, LoRA pairs by their products.
pub fn norm(state: &StateDict, layout: &Layout) -> f64 {
    let square = |(key, array): (&String, &Array)| match layout.get(key).map(|spec| &spec.role) {
        Some(Role::LoraA(pair)) if state.contains_key(&pair.b) => {
            product_norm(&[(array, &state[&pair.b])], &[1.0]).powi(2)
        }
        Some(Role::LoraB(pair)) if state.contains_key(&pair.a) => 0.0,
        _ => array.values.iter().map(|&value| (value as f64).powi(2)).sum(),
    };
    state.iter().map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
pub(super) mod tests {
    use flapsam_model::config::AdapterConfig;
    use flapsam_model::lora::QueryValueLora;
    use flapsam_model::parameters::{Part, Projection, Source};

    use super::*;

    pub const A: &str = "mask_decoder.lora_w_a_q.0.weight";
    pub const B: &str = "mask_decoder.lora_w_b_q.0.weight";
    const PLAIN: &str = "mask_tokens.weight";

    /// An attention of five channels in and four out, with pairs of the rank.
    pub fn lora_layout(rank: usize) -> Layout {
        let mut layout = Layout::new();
        let mut source = Source::declare(&mut layout);
        let projection = |name: &str| Projection::new(name.into(), 0, 4);
        let (query, value) = (projection("q_proj.weight"), projection("v_proj.weight"));
        let adapter = AdapterConfig::lora(1, rank);
        QueryValueLora::new(&mut source.part(Part::MaskDecoder), &adapter, 5, query, value).unwrap();
        layout
    }

    pub fn layout() -> Layout {
        lora_layout(2)
    }

    /// A query's pair, and a plain tensor.
    pub fn update(seed: f32) -> StateDict {
        let ramp = |count: usize, step: f32| {
            (0..count)
                .map(|i| libm::sinf(seed + step * i as f32))
                .collect::<Vec<_>>()
        };
        StateDict::from([
            (A.to_owned(), Array::new([2, 5], ramp(10, 0.7))),
            (B.to_owned(), Array::new([4, 2], ramp(8, 1.3))),
            (PLAIN.to_owned(), Array::new([3], ramp(3, 0.4))),
        ])
    }

    /// `B A` of an update, row by row, without the code under test.
    pub fn product(update: &StateDict) -> Vec<f64> {
        let (a, b, rank) = (&update[A].values, &update[B].values, update[A].shape[0]);
        let entry = |row: usize, column: usize| {
            let ranks = 0..rank;
            ranks.map(|k| b[row * rank + k] as f64 * a[k * 5 + column] as f64).sum()
        };
        (0..20).map(|place| entry(place / 5, place % 5)).collect()
    }

    /// The updates as one, and how far its pairs are from the mean of the products.
    pub fn averaged(
        updates: &[StateDict],
        weights: &[f64],
        how: Aggregation,
        common: &StateDict,
    ) -> (StateDict, Option<f64>) {
        let layout = layout();
        let mut sums = Sums::new(how, &layout, common);
        for (update, weight) in updates.iter().zip(weights) {
            sums.add(update, *weight);
        }
        let mean = sums.mean();
        let error = sums.lora_error(&mean);
        (mean, error)
    }

    #[test]
    fn plain_tensors_are_averaged_by_weight() {
        let updates = [update(0.0), update(1.0)];
        let global = aggregate(&updates, &[0.25, 0.75], Aggregation::ProductSvd, &layout());
        for index in 0..3 {
            let of = |client: usize| updates[client][PLAIN].values[index];
            let want = 0.25 * of(0) + 0.75 * of(1);
            assert!((global[PLAIN].values[index] - want).abs() < 1e-6);
        }
    }

    #[test]
    fn pairs_of_one_direction_are_averaged_exactly_by_their_product() {
        // Both clients hold multiples of one pair, so that the weighted product still has their rank.
        let mut double = update(0.5);
        let b = double.get_mut(B).unwrap();
        b.values.iter_mut().for_each(|value| *value *= 2.0);
        let updates = [update(0.5), double];
        let global = aggregate(&updates, &[0.4, 0.6], Aggregation::ProductSvd, &layout());
        for (got, want) in product(&global).iter().zip(product(&updates[0])) {
            assert!((got - 1.6 * want).abs() < 1e-5, "{got} {want}");
        }
    }

    /// Of rules that send both factors: how far each is from the mean of the products. The truncated product is the nearest
    /// of its rank, so nothing of that rank is nearer, and a correction of B brings the means nearer.
    #[test]
    fn rules_differ_in_how_far_they_are_from_the_mean_of_products() {
        let updates = [update(0.0), update(2.0)];
        let share = |how| {
            let global = aggregate(&updates, &[0.5, 0.5], how, &layout());
            // The mean of the products, and how far the pair's own is from it, without the code under test.
            let mean: Vec<f64> = product(&updates[0])
                .iter()
                .zip(product(&updates[1]))
                .map(|(x, y)| 0.5 * (x + y))
                .collect();
            let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
            let difference: Vec<f64> = product(&global).iter().zip(&mean).map(|(x, y)| x - y).collect();
            let expected = norm(&difference) / norm(&mean);
            let (_, got) = averaged(&updates, &[0.5, 0.5], how, &StateDict::new());
            let got = got.unwrap();
            assert!((got - expected).abs() < 1e-6, "{how:?}: {got} {expected}");
            got
        };
        let (svd, fair) = (share(Aggregation::ProductSvd), share(Aggregation::LoraFair));
        let mean = share(Aggregation::MeanOfFactors);
        assert!(svd < fair && fair < 0.9 * mean, "{svd} {fair} {mean}");
        for exact in [Aggregation::Stacked, Aggregation::FedexLora] {
            assert!(share(exact) < 1e-6, "{exact:?}");
        }
    }

    /// With one A for all, the mean of the factors is that of the products: in whichever round, FFA-LoRA and RoLoRA have no
    /// error.
    #[test]
    fn one_factor_at_a_time_is_averaged_exactly() {
        for (how, round, sent, other) in [
            (Aggregation::FfaLora, 2, B, A),
            (Aggregation::Rolora, 1, B, A),
            (Aggregation::Rolora, 2, A, B),
        ] {
            let only = |seed: f32| {
                let mut update = update(seed);
                update.retain(|key, _| how.sent(round).among(&layout())(key));
                update
            };
            let updates = [only(0.0), only(2.0)];
            assert!(updates[0].contains_key(sent) && !updates[0].contains_key(other));
            let common = update(5.0);
            let (mean, error) = averaged(&updates, &[0.25, 0.75], how, &common);
            assert!(error.unwrap() < 1e-6, "{how:?}");
            assert!(!mean.contains_key(other));
        }
    }

    #[test]
    fn without_pairs_there_is_no_error_of_pairs() {
        let plain = StateDict::from([(PLAIN.to_owned(), Array::new([1], vec![2.0]))]);
        let (_, nothing) = averaged(
            std::slice::from_ref(&plain),
            &[1.0],
            Aggregation::ProductSvd,
            &StateDict::new(),
        );
        assert_eq!(nothing, None);
        assert_eq!(norm(&plain, &layout()), 2.0);
    }
}
