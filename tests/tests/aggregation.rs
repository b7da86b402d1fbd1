//! What must hold of averages, whatever the clients send.

use flapsam::federation::averaging::{Product, product_norm, product_svd, weighted_mean, weighted_product};
use flapsam_model::parameters::Array;
use proptest::prelude::*;

/// A client's pair `(A [rank, in], B [out, rank])`, its plain tensor, and its weight.
#[derive(Debug, Clone)]
struct Client {
    a: Array,
    b: Array,
    plain: Array,
    weight: f64,
}

/// Two to five clients, each of its own rank, between the same spaces of odd sizes.
fn clients() -> impl Strategy<Value = Vec<Client>> {
    (1usize..12, 1usize..12, 2usize..6).prop_flat_map(|(inputs, outputs, count)| {
        let values = |count: usize| prop::collection::vec(-2.0f32..2.0, count);
        let client = (1usize..5).prop_flat_map(move |rank| {
            (values(rank * inputs), values(outputs * rank), values(7), 0.05..1.0f64).prop_map(
                move |(a, b, plain, weight)| Client {
                    a: Array::new([rank, inputs], a),
                    b: Array::new([outputs, rank], b),
                    plain: Array::new([7], plain),
                    weight,
                },
            )
        });
        prop::collection::vec(client, count)
    })
}

fn pairs(clients: &[Client]) -> Vec<(&Array, &Array)> {
    clients.iter().map(|client| (&client.a, &client.b)).collect()
}

/// The clients' weights, which sum to 1.
fn weights(clients: &[Client]) -> Vec<f64> {
    let sum: f64 = clients.iter().map(|client| client.weight).sum();
    clients.iter().map(|client| client.weight / sum).collect()
}

fn norm(array: &Array) -> f64 {
    array
        .values
        .iter()
        .map(|&value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The norm of their difference.
fn apart(one: &Array, other: &Array) -> f64 {
    assert_eq!(one.shape, other.shape);
    let pairs = one.values.iter().zip(&other.values);
    let differences = pairs.map(|(&one, &other)| one - other).collect();
    norm(&Array::new(one.shape.clone(), differences))
}

/// `sum_i w_i B_i A_i`, written out.
fn product_by_hand(clients: &[Client]) -> Array {
    let (inputs, outputs) = (clients[0].a.shape[1], clients[0].b.shape[0]);
    let mut sum = vec![0f64; outputs * inputs];
    for (client, weight) in clients.iter().zip(weights(clients)) {
        let rank = client.a.shape[0];
        for row in 0..outputs {
            for column in 0..inputs {
                for direction in 0..rank {
                    let b = f64::from(client.b.values[row * rank + direction]);
                    sum[row * inputs + column] += weight * b * f64::from(client.a.values[direction * inputs + column]);
                }
            }
        }
    }
    Array::new([outputs, inputs], sum.into_iter().map(|value| value as f32).collect())
}

proptest! {
    /// Enough ranks hold all of it, of clients of different ranks; the norm is known without making it.
    #[test]
    fn a_pair_of_all_directions_is_the_mean_of_the_products(clients in clients()) {
        let (pairs, weights) = (pairs(&clients), weights(&clients));
        let want = product_by_hand(&clients);
        let close = |got: &Array| apart(got, &want) <= 1e-5 * (1.0 + norm(&want));
        prop_assert!(close(&weighted_product(&pairs, &weights)));
        let (a, b) = Product::of(&pairs, &weights).stacked();
        prop_assert!(close(&weighted_product(&[(&a, &b)], &[1.0])));
        let directions = want.shape[0].min(want.shape[1]);
        let (a, b) = product_svd(&pairs, &weights, directions);
        prop_assert!(close(&weighted_product(&[(&a, &b)], &[1.0])));
        prop_assert!((product_norm(&pairs, &weights) - norm(&want)).abs() <= 1e-5 * (1.0 + norm(&want)));
    }

    /// Each further rank brings the pair nearer, and none brings it past the mean.
    #[test]
    fn more_ranks_are_nearer(clients in clients()) {
        let (pairs, weights) = (pairs(&clients), weights(&clients));
        let want = product_by_hand(&clients);
        let mut before = norm(&want);
        for rank in 1..=want.shape[0].min(want.shape[1]) {
            let (a, b) = product_svd(&pairs, &weights, rank);
            prop_assert_eq!((&a.shape[..], &b.shape[..]), (&[rank, want.shape[1]][..], &[want.shape[0], rank][..]));
            let now = apart(&weighted_product(&[(&a, &b)], &[1.0]), &want);
            prop_assert!(now <= before + 1e-5 * (1.0 + norm(&want)), "{} after {}", now, before);
            before = now;
        }
    }

    /// In which order the clients answer changes the average by no more than rounding.
    #[test]
    fn the_order_of_clients_does_not_matter(clients in clients(), first in 0usize..5) {
        let mut other = clients.clone();
        other.rotate_left(first % clients.len());
        other.reverse();
        let rank = clients[0].a.shape[0];
        let (want, one) = (product_by_hand(&clients), product_svd(&pairs(&clients), &weights(&clients), rank));
        let two = product_svd(&pairs(&other), &weights(&other), rank);
        let product = |(a, b): &(Array, Array)| weighted_product(&[(a, b)], &[1.0]);
        // Where two directions are nearly as strong, either may be cut off: as near to the mean, if not the same.
        let distance = |pair| apart(&product(pair), &want);
        prop_assert!((distance(&one) - distance(&two)).abs() <= 1e-4 * (1.0 + norm(&want)));
        let plain = |clients: &[Client]| {
            let all: Vec<&Array> = clients.iter().map(|client| &client.plain).collect();
            weighted_mean(&all, &weights(clients))
        };
        prop_assert!(apart(&plain(&clients), &plain(&other)) < 1e-5);
    }

    /// Clients that agree are told what they said; an average lies between the clients.
    #[test]
    fn agreement_is_kept(clients in clients()) {
        let same: Vec<Client> = clients
            .iter()
            .map(|client| Client { weight: client.weight, ..clients[0].clone() })
            .collect();
        let alone = product_by_hand(&clients[..1]);
        let (a, b) = product_svd(&pairs(&same), &weights(&same), clients[0].a.shape[0]);
        prop_assert!(apart(&weighted_product(&[(&a, &b)], &[1.0]), &alone) <= 1e-5 * (1.0 + norm(&alone)));
        let plain: Vec<&Array> = clients.iter().map(|client| &client.plain).collect();
        let mean = weighted_mean(&plain, &weights(&clients));
        for (place, value) in mean.values.iter().enumerate() {
            let said = || plain.iter().map(|array| array.values[place]);
            let (least, most) = (said().fold(f32::INFINITY, f32::min), said().fold(f32::NEG_INFINITY, f32::max));
            prop_assert!((least - 1e-6..=most + 1e-6).contains(value));
        }
    }
}
