//! The arithmetic of averaging, in double precision: weighted means, and products of LoRA pairs.

use flapsam_model::parameters::Array;
use nalgebra::DMatrix;
use rayon::prelude::*;

/// `sum_i w_i x_i` in double precision, in the order of the clients.
///
/// # Panics
/// If there is no client, or shapes differ (a programming error).
pub fn weighted_mean(clients: &[&Array], weights: &[f64]) -> Array {
    assert_eq!(clients.len(), weights.len());
    let mut sum = vec![0f64; clients[0].values.len()];
    for (client, weight) in clients.iter().zip(weights) {
        assert_eq!(client.shape, clients[0].shape);
        sum.iter_mut()
            .zip(&client.values)
            .for_each(|(sum, &value)| *sum += weight * value as f64);
    }
    let values = sum.into_iter().map(|value| value as f32).collect();
    Array::new(clients[0].shape.clone(), values)
}

/// `sum_i w_i B_i A_i`, `[out, in]`, of pairs `(A [rank, in], B [out, rank])`.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn weighted_product(pairs: &[(&Array, &Array)], weights: &[f64]) -> Array {
    from_matrix(&Product::of(pairs, weights).matrix())
}

/// [`Product::norm`] of `sum_i w_i B_i A_i`.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn product_norm(pairs: &[(&Array, &Array)], weights: &[f64]) -> f64 {
    Product::of(pairs, weights).norm()
}

/// [`Product::nearest`] of `sum_i w_i B_i A_i`.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn product_svd(pairs: &[(&Array, &Array)], weights: &[f64], rank: usize) -> (Array, Array) {
    Product::of(pairs, weights).nearest(rank)
}

/// `sum_i w_i B_i A_i`, `[out, in]`, of pairs that come one after the other. Its memory is bounded whatever their number.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    outputs: usize,
    inputs: usize,
    kept: Kept,
}

/// How a product is kept.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    /// As two thin matrices: `[w_1 B_1 .. w_n B_n]`, column by column, and `[A_1; ..; A_n]`, row by row. Then only their
    /// small triangular factors are decomposed, never the `[out, in]` product.
    Thin { tall: Vec<f64>, wide: Vec<f64> },
    /// Itself, row by row, once the thin ones are larger.
    Dense(Vec<f64>),
}

/// How many times as many ranks as directions are kept thin; golden figures rest on it, since the sums round otherwise.
const RANKS_A_DIRECTION: usize = 4;

impl Product {
    /// Zero.
    pub fn new(outputs: usize, inputs: usize) -> Self {
        let (tall, wide) = (Vec::new(), Vec::new());
        Self {
            outputs,
            inputs,
            kept: Kept::Thin { tall, wide },
        }
    }

    /// The sum of these pairs.
    ///
    /// # Panics
    /// If there is no pair, or their shapes do not fit (a programming error).
    pub fn of(pairs: &[(&Array, &Array)], weights: &[f64]) -> Self {
        assert_eq!(pairs.len(), weights.len());
        let mut product = Self::new(pairs[0].1.shape[0], pairs[0].0.shape[1]);
        for (pair, weight) in pairs.iter().zip(weights) {
            product.add(*pair, *weight);
        }
        product
    }

    /// One pair more.
    ///
    /// # Panics
    /// If its shape does not fit (a programming error).
    pub fn add(&mut self, (a, b): (&Array, &Array), weight: f64) {
        assert_eq!((b.shape[0], a.shape[1]), (self.outputs, self.inputs));
        assert_eq!(a.shape[0], b.shape[1]);
        let thick = matrix(b) * weight;
        match &mut self.kept {
            Kept::Thin { tall, wide } => {
                tall.extend(thick.as_slice());
                wide.extend(doubles(a));
            }
            Kept::Dense(sum) => add_product(sum, thick.as_slice(), &doubles(a), self.inputs),
        }
        self.settle();
    }

    /// Another sum more.
    ///
    /// # Panics
    /// If its shape does not fit (a programming error).
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((other.outputs, other.inputs), (self.outputs, self.inputs));
        match (&mut self.kept, &other.kept) {
            (Kept::Thin { tall, wide }, Kept::Thin { tall: more, wide: rows }) => {
                tall.extend(more);
                wide.extend(rows);
            }
            _ => {
                let mut sum = self.rows();
                sum.iter_mut().zip(other.rows()).for_each(|(sum, more)| *sum += more);
                self.kept = Kept::Dense(sum);
            }
        }
        self.settle();
    }

    /// Takes it so many times.
    pub fn scale(&mut self, times: f64) {
        match &mut self.kept {
            Kept::Thin { tall, .. } => tall.iter_mut().for_each(|value| *value *= times),
            Kept::Dense(sum) => sum.iter_mut().for_each(|value| *value *= times),
        }
    }

    /// Multiplies out what has become larger than the product itself.
    fn settle(&mut self) {
        if let Kept::Thin { wide, .. } = &self.kept {
            let ranks = wide.len() / self.inputs.max(1);
            if ranks > RANKS_A_DIRECTION * self.outputs.min(self.inputs) {
                self.kept = Kept::Dense(self.rows());
            }
        }
    }

    /// Both thin matrices.
    fn thin(&self, tall: &[f64], wide: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
        let ranks = wide.len() / self.inputs.max(1);
        (
            DMatrix::from_column_slice(self.outputs, ranks, tall),
            DMatrix::from_row_slice(ranks, self.inputs, wide),
        )
    }

    fn matrix(&self) -> DMatrix<f64> {
        match &self.kept {
            Kept::Thin { tall, wide } => {
                let (tall, wide) = self.thin(tall, wide);
                tall * wide
            }
            Kept::Dense(sum) => DMatrix::from_row_slice(self.outputs, self.inputs, sum),
        }
    }

    /// Itself, row by row.
    fn rows(&self) -> Vec<f64> {
        match &self.kept {
            Kept::Thin { tall, wide } => {
                let mut sum = vec![0.0; self.outputs * self.inputs];
                add_product(&mut sum, tall, wide, self.inputs);
                sum
            }
            Kept::Dense(sum) => sum.clone(),
        }
    }

    /// Its Frobenius norm.
    pub fn norm(&self) -> f64 {
        match &self.kept {
            Kept::Thin { tall, wide } => {
                let (tall, wide) = self.thin(tall, wide);
                (tall.qr().r() * wide.transpose().qr().r().transpose()).norm()
            }
            Kept::Dense(sum) => sum.iter().map(|value| value * value).sum::<f64>().sqrt(),
        }
    }

    /// The pair `(A, B)` of the given rank whose product is nearest to it: `B = U`, `A = S V^T` of its singular value
    /// decomposition (method section "Federation").
    pub fn nearest(&self, rank: usize) -> (Array, Array) {
        match &self.kept {
            Kept::Thin { tall, wide } => {
                let (tall, wide) = self.thin(tall, wide);
                let left = tall.qr();
                let right = wide.transpose().qr();
                let core = left.r() * right.r().transpose();
                let (b, a) = nearest(core, rank);
                with_fixed_signs(left.q() * b, a * right.q().transpose())
            }
            Kept::Dense(_) => {
                let (b, a) = nearest(self.matrix(), rank);
                with_fixed_signs(b, a)
            }
        }
    }

    /// All of it as one pair `(A, B)`: of all ranks that were added, or of as many as it can have.
    pub fn stacked(&self) -> (Array, Array) {
        match &self.kept {
            Kept::Thin { tall, wide } => {
                let (tall, wide) = self.thin(tall, wide);
                (from_matrix(&wide), from_matrix(&tall))
            }
            Kept::Dense(_) => self.nearest(self.outputs.min(self.inputs)),
        }
    }

    /// The B whose product with this A is nearest to it, held near a given B: the one that makes the squared distance of the
    /// products, and `hold` times the squared distance of the B's, least.
    pub fn corrected(&self, (a, b): (&Array, &Array), hold: f64) -> Array {
        let (a, b) = (matrix(a), matrix(b));
        let times_a = match &self.kept {
            Kept::Thin { tall, wide } => {
                let (tall, wide) = self.thin(tall, wide);
                tall * (wide * a.transpose())
            }
            Kept::Dense(_) => self.matrix() * a.transpose(),
        };
        let off = times_a - &b * (&a * a.transpose());
        let square = &a * a.transpose() + DMatrix::identity(a.nrows(), a.nrows()) * hold;
        // The square is symmetric and, with a positive `hold`, never singular.
        match square.cholesky() {
            Some(square) => from_matrix(&(b + square.solve(&off.transpose()).transpose())),
            None => from_matrix(&b),
        }
    }
}

/// The pair `(A, B)` of the given rank whose product is nearest to a matrix.
pub fn nearest_pair(product: &Array, rank: usize) -> (Array, Array) {
    let (b, a) = nearest(matrix(product), rank);
    with_fixed_signs(b, a)
}

/// `(U, S V^T)` of the matrix, cut to the rank; zeros where the matrix has fewer directions.
fn nearest(matrix: DMatrix<f64>, rank: usize) -> (DMatrix<f64>, DMatrix<f64>) {
    let (outputs, inputs) = matrix.shape();
    let svd = matrix.svd(true, true);
    let (Some(u), Some(v_t)) = (svd.u, svd.v_t) else {
        unreachable!("both factors were asked for")
    };
    let mut b = DMatrix::zeros(outputs, rank);
    let mut a = DMatrix::zeros(rank, inputs);
    for direction in 0..rank.min(svd.singular_values.len()) {
        b.set_column(direction, &u.column(direction));
        a.set_row(direction, &(v_t.row(direction) * svd.singular_values[direction]));
    }
    (b, a)
}

/// The sign of a singular pair is free; a fixed choice keeps runs alike.
fn with_fixed_signs(mut b: DMatrix<f64>, mut a: DMatrix<f64>) -> (Array, Array) {
    for (mut column, mut row) in b.column_iter_mut().zip(a.row_iter_mut()) {
        let largest = column
            .iter()
            .copied()
            .fold(0.0, |best: f64, x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            column.neg_mut();
            row.neg_mut();
        }
    }
    (from_matrix(&a), from_matrix(&b))
}

/// Adds the product of `tall`, column by column, and `wide`, row by row, to a matrix, row by row: for each entry in the order
/// of the ranks, whatever the number of threads.
fn add_product(sum: &mut [f64], tall: &[f64], wide: &[f64], inputs: usize) {
    let outputs = sum.len() / inputs.max(1);
    let add = |(row, sum): (usize, &mut [f64])| {
        let ranks = tall[row..].iter().step_by(outputs.max(1));
        for (factor, line) in ranks.zip(wide.chunks_exact(inputs)) {
            sum.iter_mut().zip(line).for_each(|(sum, value)| *sum += factor * value);
        }
    };
    sum.par_chunks_mut(inputs.max(1)).enumerate().for_each(add);
}

fn doubles(array: &Array) -> Vec<f64> {
    array.values.iter().map(|&value| f64::from(value)).collect()
}

fn matrix(array: &Array) -> DMatrix<f64> {
    let values = array.values.iter().map(|&value| value as f64);
    DMatrix::from_row_iterator(array.shape[0], array.shape[1], values)
}

fn from_matrix(matrix: &DMatrix<f64>) -> Array {
    let values = matrix.transpose().iter().map(|&value| value as f32).collect();
    Array::new([matrix.nrows(), matrix.ncols()], values)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use flapsam_model::random::Random;

    use super::*;

    /// Clients' pairs of noise, and their weights.
    fn clients(count: usize, rank: usize, outputs: usize, inputs: usize) -> (Vec<(Array, Array)>, Vec<f64>) {
        let mut random = Random::new(1, "clients");
        let mut noise = |shape: [usize; 2]| {
            let values = (0..shape[0] * shape[1]).map(|_| random.normal() as f32);
            Array::new(shape, values.collect())
        };
        let pairs = (0..count).map(|_| (noise([rank, inputs]), noise([outputs, rank])));
        (pairs.collect(), vec![1.0 / count as f64; count])
    }

    /// The same pair as [`product_svd`]'s, from the `[out, in]` product itself.
    fn dense_product_svd(pairs: &[(&Array, &Array)], weights: &[f64], rank: usize) -> (Array, Array) {
        nearest_pair(&weighted_product(pairs, weights), rank)
    }

    fn borrowed(pairs: &[(Array, Array)]) -> Vec<(&Array, &Array)> {
        pairs.iter().map(|(a, b)| (a, b)).collect()
    }

    /// How far two arrays differ, as a share of the norm of the first.
    fn difference(one: &Array, other: &Array) -> f64 {
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let pairs = || one.values.iter().zip(&other.values);
        let apart = squares(&mut pairs().map(|(&x, &y)| (x - y) as f64));
        apart / squares(&mut one.values.iter().map(|&x| x as f64))
    }

    /// At ViT-B's size with six clients of rank 32: the same pair as from the 768 x 768 product. Both ways are timed, and
    /// the times printed; a busy machine makes no test of them.
    #[test]
    fn the_low_rank_way_equals_the_dense_one() {
        let (pairs, weights) = clients(6, 32, 768, 768);
        let pairs = borrowed(&pairs);
        let start = Instant::now();
        let (dense_a, dense_b) = dense_product_svd(&pairs, &weights, 32);
        let dense = start.elapsed();
        // The shortest of three: other work on the machine only lengthens.
        let timed = || {
            let start = Instant::now();
            let pair = product_svd(&pairs, &weights, 32);
            (start.elapsed(), pair)
        };
        let (fast, (a, b)) = (0..3).map(|_| timed()).min_by_key(|(time, _)| *time).unwrap();
        let product = |a, b| weighted_product(&[(a, b)], &[1.0]);
        let apart = difference(&product(&dense_a, &dense_b), &product(&a, &b));
        println!("dense {dense:.1?}, low rank {fast:.1?}, products apart by {apart:.1e}");
        assert!(apart < 1e-5, "{apart}");
    }

    /// However many pairs there are, the sum takes no more than a few times the memory of the product, and is the same.
    #[test]
    fn many_pairs_add_up_in_bounded_memory() {
        let (pairs, _) = clients(60, 2, 7, 5);
        let pairs = borrowed(&pairs);
        let weights: Vec<f64> = (0..60).map(|place| 0.01 + 0.001 * f64::from(place)).collect();
        let (mut sum, mut want) = (Product::new(7, 5), vec![0.0; 35]);
        for ((a, b), weight) in pairs.iter().zip(&weights) {
            sum.add((a, b), *weight);
            for (place, want) in want.iter_mut().enumerate() {
                let (row, column) = (place / 5, place % 5);
                let rank = |k: usize| f64::from(b.values[2 * row + k]) * f64::from(a.values[5 * k + column]);
                *want += weight * (rank(0) + rank(1));
            }
            let kept = match &sum.kept {
                Kept::Thin { tall, wide } => tall.len() + wide.len(),
                Kept::Dense(rows) => rows.len(),
            };
            assert!(kept <= RANKS_A_DIRECTION * 5 * (7 + 5), "{kept}");
        }
        assert!(matches!(sum.kept, Kept::Dense(_)));
        let norm = want.iter().map(|value| value * value).sum::<f64>().sqrt();
        let apart = |rows: &[f64]| {
            let squares = rows.iter().zip(&want).map(|(got, want)| (got - want).powi(2));
            squares.sum::<f64>().sqrt() / norm
        };
        assert!(apart(&sum.rows()) < 1e-12 && (sum.norm() / norm - 1.0).abs() < 1e-12);
        for (a, b) in [sum.nearest(5), sum.stacked()] {
            assert!(apart(&doubles(&weighted_product(&[(&a, &b)], &[1.0]))) < 1e-6);
        }
        // Sums of parts, of whatever kind, are the sum of all.
        for cut in [1, 30, 59] {
            let [mut one, other] = [0..cut, cut..60].map(|part| Product::of(&pairs[part.clone()], &weights[part]));
            one.merge(&other);
            assert!(apart(&one.rows()) < 1e-12, "{cut}");
        }
        sum.scale(2.0);
        assert!((sum.norm() / norm - 2.0).abs() < 1e-12);
    }

    #[test]
    fn stacked_pairs_are_the_mean_of_the_products() {
        let (pairs, weights) = clients(3, 2, 7, 5);
        let pairs = borrowed(&pairs);
        let (a, b) = Product::of(&pairs, &weights).stacked();
        assert_eq!((a.shape[0], b.shape[1]), (6, 6));
        let apart = difference(
            &weighted_product(&pairs, &weights),
            &weighted_product(&[(&a, &b)], &[1.0]),
        );
        assert!(apart < 1e-6, "{apart}");
    }

    /// At the corrected B no small step brings the sum of both squared distances down.
    #[test]
    fn the_corrected_factor_is_the_minimum() {
        let (pairs, weights) = clients(3, 2, 6, 5);
        let pairs = borrowed(&pairs);
        let [a, b] = [0, 1].map(|factor| {
            let of = |(a, b): &(&Array, &Array)| if factor == 0 { (*a).clone() } else { (*b).clone() };
            let factors: Vec<Array> = pairs.iter().map(of).collect();
            weighted_mean(&factors.iter().collect::<Vec<_>>(), &weights)
        });
        let hold = 0.3;
        let apart = |one: &Array, other: &Array| -> f64 {
            let pairs = one.values.iter().zip(&other.values);
            pairs.map(|(&x, &y)| f64::from(x - y).powi(2)).sum()
        };
        let target = weighted_product(&pairs, &weights);
        let cost = |moved: &Array| apart(&weighted_product(&[(&a, moved)], &[1.0]), &target) + hold * apart(moved, &b);
        let best = Product::of(&pairs, &weights).corrected((&a, &b), hold);
        assert!(cost(&best) < cost(&b));
        for place in 0..best.values.len() {
            for step in [-0.01, 0.01] {
                let mut moved = best.clone();
                moved.values[place] += step;
                assert!(cost(&moved) > cost(&best), "{place}");
            }
        }
    }

    #[test]
    fn more_ranks_than_directions_leave_zeros() {
        let (pairs, weights) = clients(1, 2, 4, 3);
        let pairs = borrowed(&pairs);
        let (a, b) = product_svd(&pairs, &weights, 6);
        assert_eq!((a.shape[0], b.shape[1]), (6, 6));
        assert!(
            difference(
                &weighted_product(&pairs, &weights),
                &weighted_product(&[(&a, &b)], &[1.0])
            ) < 1e-6
        );
        assert!(a.values[3 * 3..].iter().all(|&value| value == 0.0));
    }
}
