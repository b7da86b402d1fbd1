//! Averaging: plain tensors by weighted mean, LoRA pairs by their product.

use flapsam_model::parameters::Array;
use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

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

/// How the server makes one LoRA pair of the clients' pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The nearest pair to the weighted mean of the products (the reference).
    #[default]
    ProductSvd,
    /// The weighted means of A and of B. Their product is not the mean of the products.
    MeanOfFactors,
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

/// The pair `(A, B)` of the pairs' own rank whose product is nearest to `sum_i w_i B_i A_i`: `B = U`, `A = S V^T` of
/// its singular value decomposition (method section "Federation").
///
/// The sum is a product of two thin matrices, `[w_1 B_1 .. w_n B_n]` and `[A_1; ..; A_n]`, so only their small
/// triangular factors are decomposed, never the `[out, in]` product.
///
/// # Panics
/// If there is no pair (a programming error).
pub fn product_svd(pairs: &[(&Array, &Array)], weights: &[f64]) -> (Array, Array) {
    let rank = pairs[0].0.shape[0];
    let (tall, wide) = stacked(pairs, weights);
    let (outputs, inputs) = (tall.nrows(), wide.ncols());
    let left = tall.qr();
    let right = wide.transpose().qr();
    let core = left.r() * right.r().transpose();
    let svd = core.svd(true, true);
    let (Some(u), Some(v_t)) = (svd.u, svd.v_t) else {
        unreachable!("both factors were asked for")
    };
    // Fewer directions than the rank: the rest of the pair stays zero.
    let kept = rank.min(svd.singular_values.len());
    let mut b = DMatrix::zeros(outputs, rank);
    let mut a = DMatrix::zeros(rank, inputs);
    let new_b = left.q() * u.columns(0, kept);
    let new_a = v_t.rows(0, kept) * right.q().transpose();
    for direction in 0..kept {
        // The sign of a singular pair is free; a fixed choice keeps runs alike.
        let column = new_b.column(direction);
        let largest = column
            .iter()
            .copied()
            .fold(0.0, |best: f64, x| if x.abs() > best.abs() { x } else { best });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        b.set_column(direction, &(column * sign));
        a.set_row(
            direction,
            &(new_a.row(direction) * (sign * svd.singular_values[direction])),
        );
    }
    (from_matrix(&a), from_matrix(&b))
}

/// `[w_1 B_1 .. w_n B_n]` and `[A_1; ..; A_n]`.
fn stacked(pairs: &[(&Array, &Array)], weights: &[f64]) -> (DMatrix<f64>, DMatrix<f64>) {
    assert_eq!(pairs.len(), weights.len());
    let rank = pairs[0].0.shape[0];
    let (inputs, outputs) = (pairs[0].0.shape[1], pairs[0].1.shape[0]);
    let mut tall = DMatrix::zeros(outputs, rank * pairs.len());
    let mut wide = DMatrix::zeros(rank * pairs.len(), inputs);
    for (client, ((a, b), weight)) in pairs.iter().zip(weights).enumerate() {
        tall.columns_mut(client * rank, rank).copy_from(&(matrix(b) * *weight));
        wide.rows_mut(client * rank, rank).copy_from(&matrix(a));
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
