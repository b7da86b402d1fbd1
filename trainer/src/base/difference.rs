//! How far two checkpoints are apart.

use flapsam_model::checkpoint::norm_factor;
use flapsam_model::parameters::{Array, StateDict};
use serde::Serialize;

/// Two checkpoints, tensor by tensor.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Tensors that are equal to the bit.
    pub equal: usize,
    /// Those of one shape and other values, the one that is furthest apart first.
    pub different: Vec<Difference>,
    /// Those of other shapes.
    pub other_shapes: Vec<OtherShape>,
    /// Names of those that only the first checkpoint has.
    pub only_first: Vec<String>,
    /// Names of those that only the second one has.
    pub only_second: Vec<String>,
}

/// A tensor of other values.
#[derive(Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// How many values it has.
    pub values: usize,
    /// How many of them differ.
    pub values_different: usize,
    /// The largest difference.
    pub absolute: f64,
    /// The same as a share of the largest magnitude in either checkpoint's tensor.
    pub relative: f64,
}

/// A tensor of two shapes.
#[derive(Debug, PartialEq, Serialize)]
pub struct OtherShape {
    /// Its name.
    pub name: String,
    /// Its shape in the first checkpoint.
    pub first: Vec<usize>,
    /// Its shape in the second one.
    pub second: Vec<usize>,
}

/// Compares two checkpoints.
pub fn compare(first: &StateDict, second: &StateDict) -> Comparison {
    let missing = |from: &StateDict, of: &StateDict| {
        let names = of.keys().filter(|name| !from.contains_key(*name));
        names.cloned().collect()
    };
    let mut comparison = Comparison {
        only_first: missing(second, first),
        only_second: missing(first, second),
        ..Comparison::default()
    };
    for (name, one) in first {
        let Some(other) = second.get(name) else {
            continue;
        };
        if one.shape != other.shape {
            comparison.other_shapes.push(OtherShape {
                name: name.clone(),
                first: one.shape.clone(),
                second: other.shape.clone(),
            });
            continue;
        }
        match difference(name, one, other) {
            None => comparison.equal += 1,
            Some(difference) => comparison.different.push(difference),
        }
    }
    let apart = |one: &Difference, other: &Difference| other.relative.total_cmp(&one.relative);
    comparison.different.sort_by(apart);
    comparison
}

/// How two tensors of one shape differ; `None` if they do not.
fn difference(name: &str, one: &Array, other: &Array) -> Option<Difference> {
    let pairs = || one.values.iter().zip(&other.values);
    let values_different = pairs().filter(|(one, other)| one.to_bits() != other.to_bits()).count();
    if values_different == 0 {
        return None;
    }
    let largest = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
    let absolute = largest(&mut pairs().map(|(one, other)| f64::from(*one) - f64::from(*other)));
    let magnitude = largest(&mut one.values.iter().chain(&other.values).copied().map(f64::from));
    Some(Difference {
        name: name.to_owned(),
        values: one.values.len(),
        values_different,
        absolute,
        // Zeros of either sign differ by nothing.
        relative: if absolute > 0.0 { absolute / magnitude } else { 0.0 },
    })
}

/// A state dict with each batch norm `X.bn` folded into the convolution `X.c` before it, which gets a bias for it: what
/// the network computes, however a file keeps it.
pub fn fold_norms(mut state: StateDict) -> StateDict {
    let layers: Vec<String> = state
        .keys()
        .filter_map(|name| Some(name.strip_suffix(".bn.running_var")?.to_owned()))
        .collect();
    for layer in layers {
        if let Some((weight, bias)) = folded(&state, &layer) {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                state.remove(&format!("{layer}.bn.{part}"));
            }
            state.insert(format!("{layer}.c.weight"), weight);
            state.insert(format!("{layer}.c.bias"), bias);
        }
    }
    state
}

/// Weight and bias of a convolution with its batch norm; `None` if they are not of one number of channels.
fn folded(state: &StateDict, layer: &str) -> Option<(Array, Array)> {
    let weight = state.get(&format!("{layer}.c.weight"))?;
    let channels = *weight.shape.first()?;
    let part = |name: &str| {
        let array = state.get(&format!("{layer}.bn.{name}"))?;
        (array.shape == [channels]).then_some(&array.values)
    };
    let (scale, shift) = (part("weight")?, part("bias")?);
    let (mean, variance) = (part("running_mean")?, part("running_var")?);
    let factors: Vec<f64> = scale
        .iter()
        .zip(variance)
        .map(|(scale, variance)| norm_factor(*scale, *variance))
        .collect();
    let size = (weight.values.len() / channels.max(1)).max(1);
    let of_channel = |(values, factor)| scaled(values, factor);
    let values = weight.values.chunks(size).zip(&factors).flat_map(of_channel);
    let moved = |((shift, mean), factor): ((&f32, &f32), &f64)| (f64::from(*shift) - f64::from(*mean) * factor) as f32;
    let bias = shift.iter().zip(mean).zip(&factors).map(moved);
    Some((
        Array::new(weight.shape.clone(), values.collect()),
        Array::new([channels], bias.collect()),
    ))
}

fn scaled(values: &[f32], factor: &f64) -> impl Iterator<Item = f32> {
    values.iter().map(move |value| (f64::from(*value) * factor) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state<const N: usize>(tensors: [(&str, &[f32]); N]) -> StateDict {
        let array = |values: &[f32]| Array::new([values.len()], values.to_vec());
        tensors.map(|(name, values)| (name.to_owned(), array(values))).into()
    }

    #[test]
    fn tensors_are_told_apart() {
        let first = state([
            ("a", &[1.0, -4.0]),
            ("b", &[1.0]),
            ("c", &[0.0]),
            ("d", &[1.0, 2.0]),
            ("x", &[1.0]),
        ]);
        let second = state([
            ("a", &[1.0, -3.0]),
            ("b", &[1.0]),
            ("c", &[-0.0]),
            ("d", &[1.0]),
            ("y", &[1.0]),
        ]);
        let comparison = compare(&first, &second);
        assert_eq!(comparison.equal, 1);
        let different = |name: &str, values, absolute, relative| Difference {
            name: name.into(),
            values,
            values_different: 1,
            absolute,
            relative,
        };
        assert_eq!(
            comparison.different,
            [different("a", 2, 1.0, 0.25), different("c", 1, 0.0, 0.0)]
        );
        assert_eq!(comparison.other_shapes[0].first, [2]);
        assert_eq!(
            (&comparison.only_first[..], &comparison.only_second[..]),
            (&["x".to_owned()][..], &["y".to_owned()][..])
        );
        let same = compare(&first, &first);
        assert_eq!(
            same,
            Comparison {
                equal: 5,
                ..Comparison::default()
            }
        );
    }

    #[test]
    fn a_norm_is_folded_into_its_convolution() {
        let mut kept = state([
            ("x.bn.weight", &[2.0, 3.0]),
            ("x.bn.bias", &[0.5, -0.5]),
            ("x.bn.running_mean", &[0.0, 2.0]),
            ("x.bn.running_var", &[4.0 - 1e-5, 9.0 - 1e-5]),
            ("other.bn.running_var", &[1.0]),
        ]);
        kept.insert("x.c.weight".into(), Array::new([2, 1, 1, 2], vec![1.0, 2.0, 3.0, 4.0]));
        let mut wanted = state([("x.c.bias", &[0.5, -2.5]), ("other.bn.running_var", &[1.0])]);
        wanted.insert("x.c.weight".into(), kept["x.c.weight"].clone());
        assert_eq!(fold_norms(kept), wanted);
    }
}
