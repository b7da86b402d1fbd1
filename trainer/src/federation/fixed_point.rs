//! Numbers as integers, for secure aggregation: there a server learns the sum of what clients say and nothing else, and sums of
//! integers are the same in every order.

use flapsam_model::Error as ModelError;
use flapsam_model::parameters::{Array, StateDict};

/// What one is as an integer. Its steps are a millionth.
const ONE: f64 = 1_048_576.0;
/// Numbers must stay below it: then an addend, and the sum of all, is below 2^23, which 32-bit floats hold exactly and Flower's
/// SecAgg+ carries for up to 255 clients.
const LIMIT: f64 = 8.0;

/// A client's part of the weighted mean, to the nearest integer: as floats, which hold it exactly.
///
/// # Errors
/// A number is too large, or not finite.
pub fn addend(state: &StateDict, share: f64) -> Result<StateDict, ModelError> {
    let of_tensor = |(key, array): (&String, &Array)| {
        let part = |&value: &f32| match f64::from(value) {
            value if value.abs() < LIMIT => Ok(((value * share * ONE).round() / ONE) as f32),
            value => Err(ModelError::Format {
                what: "the update",
                why: format!("'{key}' holds {value}, and secure aggregation carries numbers below {LIMIT}"),
            }),
        };
        let values = array.values.iter().map(part).collect::<Result<_, _>>()?;
        Ok((key.clone(), Array::new(array.shape.clone(), values)))
    };
    state.iter().map(of_tensor).collect()
}

/// The integers of an addend, in the order of its tensors' names: 32 bits each, the lowest byte first.
pub fn to_bytes(addend: &StateDict) -> Vec<u8> {
    let values = addend.values().flat_map(|array| &array.values);
    values
        .flat_map(|&value| ((f64::from(value) * ONE) as i32).to_le_bytes())
        .collect()
}

/// The way back from [`to_bytes`], for a sum of addends with the names and shapes of `like`.
///
/// # Errors
/// There are more or fewer integers, or one is too large for a sum.
pub fn from_bytes(bytes: &[u8], like: &StateDict) -> Result<StateDict, ModelError> {
    let refuse = |why: String| ModelError::Format { what: "the sum", why };
    let expected = like.values().map(|array| array.values.len()).sum::<usize>();
    let (integers, rest) = bytes.as_chunks::<4>();
    if integers.len() != expected || !rest.is_empty() {
        return Err(refuse(format!(
            "it has {} bytes, and {expected} integers take {}",
            bytes.len(),
            4 * expected
        )));
    }
    let mut integers = integers.iter().map(|&integer| i32::from_le_bytes(integer));
    let mut value = || {
        let integer = integers.next().map_or(0.0, f64::from);
        match integer.abs() < LIMIT * ONE {
            true => Ok((integer / ONE) as f32),
            false => Err(refuse(format!("it holds {integer}, beyond what a sum can come to"))),
        }
    };
    let of_tensor = |(key, array): (&String, &Array)| {
        let values = array.values.iter().map(|_| value()).collect::<Result<_, _>>()?;
        Ok((key.clone(), Array::new(array.shape.clone(), values)))
    };
    like.iter().map(of_tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(values: &[f32]) -> StateDict {
        StateDict::from([("a".to_owned(), Array::new([values.len()], values.to_vec()))])
    }

    #[test]
    fn a_sum_is_the_weighted_mean_to_half_a_step_for_each_client() {
        let (one, other) = (state(&[0.3, -7.9, 1e-7]), state(&[0.5, -7.99, 0.0]));
        let shares = [0.3, 0.7];
        let addends = [(&one, shares[0]), (&other, shares[1])].map(|(state, share)| addend(state, share).unwrap());
        let integers = addends.each_ref().map(to_bytes);
        let [a, b] = integers
            .each_ref()
            .map(|bytes| bytes.as_chunks::<4>().0.iter().map(|&four| i32::from_le_bytes(four)));
        let summed: Vec<u8> = a.zip(b).flat_map(|(a, b)| (a + b).to_le_bytes()).collect();
        let sum = from_bytes(&summed, &one).unwrap();
        for (place, &sum) in sum["a"].values.iter().enumerate() {
            let exact = shares[0] * f64::from(one["a"].values[place]) + shares[1] * f64::from(other["a"].values[place]);
            assert!((f64::from(sum) - exact).abs() <= 2.0 * 0.5 / ONE, "{sum} for {exact}");
            // Floats hold it exactly: the same as the sum of the addends themselves.
            let of_floats = f64::from(addends[0]["a"].values[place]) + f64::from(addends[1]["a"].values[place]);
            assert_eq!(f64::from(sum), of_floats);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for value in [8.0, -9.5, f32::NAN, f32::INFINITY] {
            let why = addend(&state(&[value]), 0.5).unwrap_err().to_string();
            assert!(why.contains("'a'") && why.contains("below 8"), "{why}");
        }
        let like = state(&[0.0, 0.0]);
        assert!(
            from_bytes(&[0; 7], &like)
                .unwrap_err()
                .to_string()
                .contains("2 integers take 8")
        );
        assert!(from_bytes(&[0; 12], &like).is_err());
        let why = from_bytes(&i64::from(i32::MAX).to_le_bytes(), &like).unwrap_err();
        assert!(why.to_string().contains("beyond"), "{why}");
    }
}
