//! Official checkpoints: state dicts in, an adapted network's state dict out.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::foreign::recognise;
use crate::parameters::{Array, Layout, Part, Role, Spec, Start, StateDict, initial};
use crate::sam::Sam;
use crate::segment::finite;

/// The one metadata entry of a file that `flapsam export` wrote: JSON that says what it is.
pub const EXPORT_KEY: &str = "flapsam_export";

/// Lower-case hexadecimal sha256.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The base checkpoint that a file stands for: the sha256 of the file itself, or, if `flapsam export --format base-f16`
/// made it of another one, of that one. `notes` are the file's metadata; its own sha256 is asked for only if it counts.
pub fn base_sha256(notes: &HashMap<String, String>, own: impl FnOnce() -> String) -> String {
    #[derive(Deserialize)]
    struct Export {
        format: String,
        base_sha256: String,
    }
    let export = notes.get(EXPORT_KEY).and_then(|note| serde_json::from_str(note).ok());
    match export {
        Some(Export { format, base_sha256 }) if format == "base-f16" => base_sha256,
        _ => own(),
    }
}

/// How a file keeps floats, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floats {
    /// Half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl Floats {
    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Floats::F16),
            Dtype::BF16 => Some(Floats::BF16),
            Dtype::F32 => Some(Floats::F32),
            Dtype::F64 => Some(Floats::F64),
            _ => None,
        }
    }

    /// The values, rounded where they have more than 32 bits.
    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        fn values<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            let (whole, _) = bytes.as_chunks::<N>();
            whole.iter().map(|&bytes| value(bytes)).collect()
        }
        match self {
            Floats::F16 => values(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Floats::BF16 => values(bytes, |bytes| {
                f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
            }),
            Floats::F32 => values(bytes, f32::from_le_bytes),
            Floats::F64 => values(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        }
    }
}

/// Reads a safetensors file: its tensors of floats as `f32`, and its metadata. Of a network's parameters none is of
/// another type; counters and the like are left out.
///
/// # Errors
/// The bytes are no safetensors.
pub fn read_safetensors(bytes: &[u8]) -> Result<(StateDict, HashMap<String, String>), Error> {
    let format = |why: String| match recognise(bytes) {
        Some(what) => Error::format("the safetensors file", what),
        None => Error::format("the safetensors file", why),
    };
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|why| format(why.to_string()))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|why| format(why.to_string()))?;
    let state = tensors.iter().filter_map(|(key, view)| {
        let values = Floats::of(view.dtype())?.to_f32(view.data());
        Some((key.to_owned(), Array::new(view.shape(), values)))
    });
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok((state.collect(), metadata))
}

/// A state dict under SAM's own names: without what stands before them where the network was saved within something larger,
/// and without what else was saved there. One that has none of SAM's names stays as it is.
///
/// # Errors
/// It holds two networks, or a weight that is no finite number.
pub fn official(state: StateDict) -> Result<StateDict, Error> {
    let parts = Part::ALL.map(|part| format!("{}.", part.name()));
    let mut networks: BTreeMap<String, StateDict> = BTreeMap::new();
    for (key, array) in &state {
        let begins = |part: &&String| key.starts_with(*part) || key.contains(&format!(".{part}"));
        let places = parts.iter().filter(begins).filter_map(|part| key.find(part));
        let Some(place) = places.min() else {
            continue;
        };
        let (outside, name) = key.split_at(place);
        networks
            .entry(outside.to_owned())
            .or_default()
            .insert(name.to_owned(), array.clone());
    }
    let network = match networks.len() {
        0 => state,
        1 => networks.into_values().next().unwrap_or_default(),
        _ => {
            let names: Vec<String> = networks.keys().map(|name| format!("'{name}'")).collect();
            let why = format!(
                "it holds several networks, whose parameters' names begin with {}; save the one you mean by itself",
                names.join(", ")
            );
            return Err(Error::format("the checkpoint", why));
        }
    };
    for (key, array) in &network {
        finite(&array.values, || format!("a weight of '{key}' in the checkpoint"))?;
    }
    Ok(network)
}

/// Writes a safetensors file of `f32`. The same state and note give the same bytes: at most one metadata entry, since
/// the format does not order them.
pub fn write_safetensors(state: &StateDict, metadata: Option<(&str, String)>) -> Vec<u8> {
    serialize(state, Dtype::F32, f32::to_le_bytes, metadata)
}

/// Writes a safetensors file of `f16`, half as large, for a base checkpoint. Each value is rounded to the nearest.
///
/// # Errors
/// A value is beyond what `f16` holds, or not finite.
pub fn write_safetensors_f16(state: &StateDict, metadata: Option<(&str, String)>) -> Result<Vec<u8>, Error> {
    for (key, array) in state {
        let beyond = array.values.iter().find(|&&value| !f16::from_f32(value).is_finite());
        if let Some(&value) = beyond {
            let key = key.clone();
            return Err(Error::BeyondF16 { key, value });
        }
    }
    let encode = |value| f16::from_f32(value).to_le_bytes();
    Ok(serialize(state, Dtype::F16, encode, metadata))
}

fn serialize<const N: usize>(
    state: &StateDict,
    dtype: Dtype,
    encode: impl Fn(f32) -> [u8; N],
    metadata: Option<(&str, String)>,
) -> Vec<u8> {
    let bytes: Vec<(&String, &Array, Vec<u8>)> = state
        .iter()
        .map(|(key, array)| {
            let bytes = array.values.iter().flat_map(|&value| encode(value));
            (key, array, bytes.collect())
        })
        .collect();
    let views = bytes.iter().map(|(key, array, bytes)| {
        let view = TensorView::new(dtype, array.shape.clone(), bytes);
        (key, view.expect("an array has as many values as its shape says"))
    });
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value)]));
    safetensors::serialize(views, metadata).expect("writing to memory cannot fail")
}

/// Turns an official state dict into that of a network of this configuration, adapted or not.
///
/// Position tables are resized to the image size; what the adapted decoder does not share with the official one, and
/// the low-rank pairs, start fresh from the seed.
///
/// # Errors
/// A parameter is missing or of a shape that resizing cannot explain.
pub fn adapt(
    official: &StateDict,
    config: &SamConfig,
    adapter: Option<&AdapterConfig>,
    seed: u64,
) -> Result<StateDict, Error> {
    start(official, &Sam::layout(config, adapter)?, seed)
}

/// [`adapt`] for a network, or a part of one, of this layout.
///
/// # Errors
/// See there.
pub fn start(official: &StateDict, layout: &Layout, seed: u64) -> Result<StateDict, Error> {
    // Before memory is taken for what is drawn.
    for (key, spec) in layout {
        for needed in needed(key, spec) {
            find(official, &needed)?;
        }
    }
    let state = layout.iter().map(|(key, spec)| {
        let array = match &spec.start {
            Start::Official => same(find(official, key)?, key, spec)?,
            Start::Resized => resized(find(official, key)?, key, spec)?,
            Start::Folded { conv, norm } => folded(official, conv, norm, key, spec)?,
            Start::Norms => column_norms(official, key, spec)?,
            Start::Drawn => initial(key, spec, seed),
        };
        Ok((key.clone(), array))
    });
    state.collect()
}

/// What of a checkpoint a parameter starts from.
fn needed(key: &str, spec: &Spec) -> Vec<String> {
    match &spec.start {
        Start::Official | Start::Resized => vec![key.to_owned()],
        Start::Folded { conv, norm } => {
            let norms = NORM.map(|name| format!("{norm}.{name}"));
            norms.into_iter().chain([conv.clone()]).collect()
        }
        // Of weights that are parameters themselves.
        Start::Norms | Start::Drawn => Vec::new(),
    }
}

fn find<'a>(official: &'a StateDict, key: &str) -> Result<&'a Array, Error> {
    official.get(key).ok_or_else(|| Error::MissingParameter {
        key: key.to_owned(),
        network: "SAM checkpoint of this configuration".into(),
    })
}

fn of_other_shape(key: &str, expected: &[usize], found: &Array) -> Error {
    Error::Shape {
        key: key.to_owned(),
        expected: expected.into(),
        found: found.shape.clone(),
    }
}

fn same(found: &Array, key: &str, spec: &Spec) -> Result<Array, Error> {
    match found.shape == spec.shape {
        true => Ok(found.clone()),
        false => Err(of_other_shape(key, &spec.shape, found)),
    }
}

/// A table of positions: of a square of tokens `[1, row, column, channel]`, or of distances `[distance, channel]`.
fn resized(found: &Array, key: &str, spec: &Spec) -> Result<Array, Error> {
    if found.shape == spec.shape {
        return Ok(found.clone());
    }
    let values = match (&found.shape[..], &spec.shape[..]) {
        (&[1, high, wide, dim], &[1, rows, columns, same]) if dim == same => {
            resize_table(&found.values, [high, wide, dim], [rows, columns])
        }
        (&[length, dim], &[places, same]) if dim == same => resize_table(&found.values, [length, 1, dim], [places, 1]),
        _ => return Err(of_other_shape(key, &spec.shape, found)),
    };
    Ok(Array::new(spec.shape.clone(), values))
}

/// A batch norm's parameters and statistics.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
/// What PyTorch adds to its variance.
const NORM_EPSILON: f64 = 1e-5;

/// What a batch norm multiplies an output with.
pub fn norm_factor(weight: f32, variance: f32) -> f64 {
    f64::from(weight) / (f64::from(variance) + NORM_EPSILON).sqrt()
}

/// A convolution's weight or bias with its batch norm folded in. Computed in `f64`, rounded once.
fn folded(official: &StateDict, conv: &str, norm: &str, key: &str, spec: &Spec) -> Result<Array, Error> {
    let outputs = spec.shape[0];
    let of_norm = |name| {
        let key = format!("{norm}.{name}");
        let found = find(official, &key)?;
        match found.shape == [outputs] {
            true => Ok(&found.values),
            false => Err(of_other_shape(&key, &[outputs], found)),
        }
    };
    let [weight, bias, mean, variance] = NORM.map(of_norm);
    let (weight, bias, mean, variance) = (weight?, bias?, mean?, variance?);
    let factor = |output: usize| norm_factor(weight[output], variance[output]);
    if key != conv {
        let bias = |output: usize| f64::from(bias[output]) - f64::from(mean[output]) * factor(output);
        let values = (0..outputs).map(|output| bias(output) as f32).collect();
        return Ok(Array::new(spec.shape.clone(), values));
    }
    let mut array = same(find(official, conv)?, conv, spec)?;
    let filter = (array.values.len() / outputs).max(1);
    for (output, values) in array.values.chunks_exact_mut(filter).enumerate() {
        let factor = factor(output);
        values
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * factor) as f32);
    }
    Ok(array)
}

/// What an official checkpoint has for a network of this layout: shapes by names.
pub fn official_shapes(layout: &Layout) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    for (key, spec) in layout {
        shapes.insert(key.clone(), spec.shape.clone());
        if let Start::Folded { norm, .. } = &spec.start {
            shapes.extend(NORM.map(|name| (format!("{norm}.{name}"), vec![spec.shape[0]])));
        }
    }
    shapes
}

/// A network's state as an official state dict: where a convolution and its batch norm were folded into one, with a norm
/// beside it that changes nothing more.
pub fn unfolded(mut state: StateDict, layout: &Layout) -> StateDict {
    for spec in layout.values() {
        let Start::Folded { norm, .. } = &spec.start else {
            continue;
        };
        let channels = spec.shape[0];
        for (name, value) in [
            ("weight", 1.0),
            ("running_mean", 0.0),
            ("running_var", (1.0 - NORM_EPSILON) as f32),
        ] {
            let array = Array::new([channels], vec![value; channels]);
            state.insert(format!("{norm}.{name}"), array);
        }
    }
    state
}

/// DoRA starts from the base weight: the norm of each of its input columns.
fn column_norms(official: &StateDict, key: &str, spec: &Spec) -> Result<Array, Error> {
    let Role::Magnitude { of, .. } = &spec.role else {
        return Err(Error::Config(format!(
            "'{key}' has no projection whose norms it could start from"
        )));
    };
    let inputs = spec.count();
    let weight = find(official, &of.weight)?;
    let rows: Vec<&[f32]> = of.rows_of(&weight.values, inputs).collect();
    let norms = (0..inputs).map(|column| {
        let squares = rows.iter().map(|row| f64::from(row[column]) * f64::from(row[column]));
        squares.sum::<f64>().sqrt() as f32
    });
    Ok(Array::new(spec.shape.clone(), norms.collect()))
}

/// Bilinear resizing without aligned corners of a table `[row, column, channel]`.
fn resize_table(table: &[f32], [high, wide, dim]: [usize; 3], to: [usize; 2]) -> Vec<f32> {
    let axis = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
        let place = |index: usize| {
            let centre = (index as f32 + 0.5) * (from as f32 / to as f32) - 0.5;
            let centre = centre.max(0.0);
            let low = (centre as usize).min(from - 1);
            (low, (low + 1).min(from - 1), centre - low as f32)
        };
        (0..to).map(place).collect()
    };
    let (rows, columns) = (axis(high, to[0]), axis(wide, to[1]));
    let mut out = Vec::with_capacity(to[0] * to[1] * dim);
    for &(top, bottom, down) in &rows {
        for &(left, right, across) in &columns {
            for channel in 0..dim {
                let at = |row: usize, column: usize| table[(row * wide + column) * dim + channel];
                let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
                let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
                out.push(upper * (1.0 - down) + lower * down);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_within_something_larger_is_found() {
        let array = |value: f32| Array::new([1], vec![value]);
        let state = |keys: &[&str]| -> StateDict { keys.iter().map(|key| ((*key).to_owned(), array(1.0))).collect() };
        let inner = state(&["image_encoder.neck.0.weight", "mask_decoder.x.image_encoder.y"]);
        assert_eq!(official(inner.clone()).unwrap(), inner);
        for outside in ["model.", "state_dict.", "module.", "model.module.sam."] {
            let mut wrapped: StateDict = inner
                .iter()
                .map(|(key, array)| (format!("{outside}{key}"), array.clone()))
                .collect();
            wrapped.insert("optimizer.state.0.exp_avg".into(), array(2.0));
            assert_eq!(official(wrapped).unwrap(), inner, "{outside}");
        }
        let mut two = inner.clone();
        two.extend(state(&["ema.image_encoder.neck.0.weight"]));
        let refused = official(two).unwrap_err().to_string();
        assert!(refused.contains("'', 'ema.'"), "{refused}");
        assert_eq!(official(state(&["a", "b"])).unwrap(), state(&["a", "b"]));
        let broken = StateDict::from([("mask_decoder.x".to_owned(), array(f32::NAN))]);
        let refused = official(broken).unwrap_err().to_string();
        assert!(
            refused.contains("'mask_decoder.x'") && refused.contains("NaN"),
            "{refused}"
        );
    }

    #[test]
    fn tables_are_resized_between_centres() {
        // Two places to four: the outer ones keep their value, the inner ones lie a quarter and three quarters between.
        assert_eq!(resize_table(&[0.0, 4.0], [2, 1, 1], [4, 1]), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(resize_table(&[0.0, 4.0], [1, 2, 1], [1, 4]), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(resize_table(&[1.0, 2.0, 3.0, 4.0], [4, 1, 1], [2, 1]), [1.5, 3.5]);
    }

    /// A folded convolution does what the convolution and its norm do, and an unfolded one is folded to itself.
    #[test]
    fn batch_norms_are_folded_and_unfolded() {
        let config = SamConfig::named("mobile_sam").unwrap().with_image_size(32);
        let layout = Sam::layout(&config, None).unwrap();
        let network = crate::parameters::initialise(&layout, 1);
        let mut official = unfolded(network.clone(), &layout);
        assert_eq!(adapt(&official, &config, None, 0).unwrap(), network);
        let unit = "image_encoder.layers.0.blocks.1.conv2";
        let set = |official: &mut StateDict, name: &str, value: f32| {
            official.get_mut(&format!("{unit}.bn.{name}")).unwrap().values[3] = value;
        };
        for (name, value) in [
            ("weight", 3.0),
            ("bias", 0.5),
            ("running_mean", 2.0),
            ("running_var", 0.25 - 1e-5),
        ] {
            set(&mut official, name, value);
        }
        let folded = adapt(&official, &config, None, 0).unwrap();
        // Six times as large; and the bias less six times the mean.
        let filter =
            |state: &StateDict, channel: usize| state[&format!("{unit}.c.weight")].values[9 * channel..][..9].to_vec();
        let six_times: Vec<f32> = filter(&network, 3).iter().map(|value| 6.0 * value).collect();
        let apart = filter(&folded, 3)
            .iter()
            .zip(six_times)
            .map(|(got, want)| (got - want).abs())
            .fold(0.0, f32::max);
        assert!(apart < 1e-6, "{apart}");
        assert_eq!(filter(&folded, 2), filter(&network, 2));
        assert!((folded[&format!("{unit}.bn.bias")].values[3] - (0.5 - 6.0 * 2.0)).abs() < 1e-6);
        // What the norm lacks is named, whatever else is there.
        official.remove(&format!("{unit}.bn.running_var"));
        let refused = adapt(&official, &config, None, 0).unwrap_err().to_string();
        assert!(refused.contains("layers.0.blocks.1.conv2.bn.running_var"), "{refused}");
    }

    #[test]
    fn adapting_resizes_keeps_and_draws() {
        let config = SamConfig::named("nano").unwrap().with_image_size(64);
        let official = crate::parameters::initialise(&Sam::layout(&config, None).unwrap(), 1);
        let larger = config.with_image_size(96);
        let adapter = AdapterConfig {
            dora: true,
            ..AdapterConfig::lora(2, 4)
        };
        let state = adapt(&official, &larger, Some(&adapter), 7).unwrap();
        let layout = Sam::layout(&larger, Some(&adapter)).unwrap();
        assert!(layout.iter().all(|(key, spec)| state[key].shape == spec.shape));
        assert_eq!(state["image_encoder.pos_embed"].shape, [1, 6, 6, 96]);
        let kept = "mask_decoder.output_upscaling.3.weight";
        assert_eq!(state[kept], official[kept]);
        // B starts at zero, A does not, and DoRA's magnitude is the column norm of the base weight.
        let pair = |which| &state[&format!("image_encoder.blocks.0.attn.lora_w_{which}_q.0.weight")].values;
        assert!(pair('b').iter().all(|&value| value == 0.0) && pair('a').iter().any(|&value| value != 0.0));
        let weight = &official["image_encoder.blocks.0.attn.qkv.weight"].values;
        let norm = (0..96).map(|row| weight[row * 96 + 5].powi(2)).sum::<f32>().sqrt();
        let magnitude = state["image_encoder.blocks.0.attn.dora_m_q"].values[5];
        assert!((norm - magnitude).abs() < 1e-5, "{norm} {magnitude}");
        assert_ne!(
            state,
            adapt(&official, &larger, Some(&adapter), 8).unwrap(),
            "another seed draws other parts"
        );
    }
}
