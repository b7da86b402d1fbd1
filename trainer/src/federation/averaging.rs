//! The arithmetic of averaging, in double precision: weighted means, and products of LoRA pairs.

use flapsam_model::parameters::Array;
use nalgebra::DMatrix;

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
    let (tall, wide) = stacked(pairs, weights);
    from_matrix(&(tall * wide))
}

/// The Frobenius norm of `sum_i w_i B_i A_i`, from the small triangular factors of the stacked pairs.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn product_norm(pairs: &[(&Array, &Array)], weights: &[f64]) -> f64 {
    let (tall, wide) = stacked(pairs, weights);
    (tall.qr().r() * wide.transpose().qr().r().transpose()).norm()
}

/// The pair `(A, B)` of the given rank whose product is nearest to `sum_i w_i B_i A_i`: `B = U`, `A = S V^T` of its
/// singular value decomposition (method section "Federation").
///
/// The sum is a product of two thin matrices, `[w_1 B_1 .. w_n B_n]` and `[A_1; ..; A_n]`, so only their small
/// triangular factors are decomposed, never the `[out, in]` product.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn product_svd(pairs: &[(&Array, &Array)], weights: &[f64], rank: usize) -> (Array, Array) {
    let (tall, wide) = stacked(pairs, weights);
    let left = tall.qr();
    let right = wide.transpose().qr();
    let core = left.r() * right.r().transpose();
    let (b, a) = nearest(core, rank);
    with_fixed_signs(left.q() * b, a * right.q().transpose())
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

/// The weighted sum of the products as one pair `(A, B)` of all their ranks together, exactly.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn stack(pairs: &[(&Array, &Array)], weights: &[f64]) -> (Array, Array) {
    let (tall, wide) = stacked(pairs, weights);
    (from_matrix(&wide), from_matrix(&tall))
}

/// The B whose product with this A is nearest to `sum_i w_i B_i A_i`, held near a given B: the one that makes the squared
/// distance of the products, and `hold` times the squared distance of the B's, least.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn corrected(pairs: &[(&Array, &Array)], weights: &[f64], (a, b): (&Array, &Array), hold: f64) -> Array {
    let (tall, wide) = stacked(pairs, weights);
    let (a, b) = (matrix(a), matrix(b));
    let off = tall * (wide * a.transpose()) - &b * (&a * a.transpose());
    let square = &a * a.transpose() + DMatrix::identity(a.nrows(), a.nrows()) * hold;
    // The square is symmetric and, with a positive `hold`, never singular.
    match square.cholesky() {
        Some(square) => from_matrix(&(b + square.solve(&off.transpose()).transpose())),
        None => from_matrix(&b),
    }
}

/// `[w_1 B_1 .. w_n B_n]` and `[A_1; ..; A_n]`.
fn stacked(pairs: &[(&Array, &Array)], weights: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
    assert_eq!(pairs.len(), weights.len());
    let ranks: usize = pairs.iter().map(|(a, _)| a.shape[0]).sum();
    let (inputs, outputs) = (pairs[0].0.shape[1], pairs[0].1.shape[0]);
    let mut tall = DMatrix::zeros(outputs, ranks);
    let mut wide = DMatrix::zeros(ranks, inputs);
    let mut first = 0;
    for ((a, b), weight) in pairs.iter().zip(weights) {
        let rank = a.shape[0];
        tall.columns_mut(first, rank).copy_from(&(matrix(b) * *weight));
        wide.rows_mut(first, rank).copy_from(&matrix(a));
        first += rank;
    }
    (tall, wide)
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
        let (tall, wide) = stacked(pairs, weights);
        let (b, a) = nearest(tall * wide, rank);
        with_fixed_signs(b, a)
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

    #[test]
    fn stacked_pairs_are_the_mean_of_the_products() {
        let (pairs, weights) = clients(3, 2, 7, 5);
        let pairs = borrowed(&pairs);
        let (a, b) = stack(&pairs, &weights);
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
        let best = corrected(&pairs, &weights, (&a, &b), hold);
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
