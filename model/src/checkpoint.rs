//! Official checkpoints: state dicts in, an adapted network's state dict out.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::foreign::recognise;
use crate::parameters::{Array, Spec, StateDict, initial};
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
    F16,
    BF16,
    F32,
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

/// The parts of a SAM, by which its parameters' names begin.
const PARTS: [&str; 3] = ["image_encoder.", "prompt_encoder.", "mask_decoder."];

/// A state dict under SAM's own names: without what stands before them where the network was saved within something larger,
/// and without what else was saved there. One that has none of SAM's names stays as it is.
///
/// # Errors
/// It holds two networks, or a weight that is no finite number.
pub fn official(state: StateDict) -> Result<StateDict, Error> {
    let mut networks: BTreeMap<String, StateDict> = BTreeMap::new();
    for (key, array) in &state {
        let begins = |part: &&str| key.starts_with(*part) || key.contains(&format!(".{part}"));
        let Some(place) = PARTS
            .iter()
            .filter(|part| begins(part))
            .filter_map(|part| key.find(*part))
            .min()
        else {
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
    serialize(state, Dtype::F32, |value| value.to_le_bytes(), metadata)
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
    let layout = Sam::layout(config, adapter)?;
    let is_drawn = |key: &str| adapter.is_some() && (is_magnitude(key) || is_fresh(key));
    // Before memory is taken for what is drawn.
    for key in layout.keys().filter(|key| !is_drawn(key)) {
        find(official, key)?;
    }
    let state = layout.into_iter().map(|(key, spec)| {
        let array = match adapter {
            Some(_) if is_magnitude(&key) => column_norms(official, &key, &spec)?,
            Some(_) if is_fresh(&key) => initial(&key, &spec, seed),
            _ => fit(official, &key, &spec)?,
        };
        Ok((key, array))
    });
    state.collect()
}

/// What an adapted network does not take from an official checkpoint.
fn is_fresh(key: &str) -> bool {
    let Some(decoder) = key.strip_prefix("mask_decoder.") else {
        return key.contains(".lora_");
    };
    let new_upscaling = decoder
        .strip_prefix("output_upscaling.")
        .is_some_and(|layer| !["0.", "1.", "3."].iter().any(|old| layer.starts_with(old)));
    let fresh = ["mask_tokens.", "output_hypernetworks_mlps.", "iou_prediction_head."];
    new_upscaling || key.contains(".lora_") || fresh.iter().any(|part| decoder.starts_with(part))
}

fn is_magnitude(key: &str) -> bool {
    key.contains(".dora_m_")
}

fn find<'a>(official: &'a StateDict, key: &str) -> Result<&'a Array, Error> {
    official.get(key).ok_or_else(|| Error::MissingParameter {
        key: key.to_owned(),
        network: "SAM checkpoint of this configuration".into(),
    })
}

fn fit(official: &StateDict, key: &str, spec: &Spec) -> Result<Array, Error> {
    let found = find(official, key)?;
    if found.shape == spec.shape {
        return Ok(found.clone());
    }
    let values = match (&found.shape[..], &spec.shape[..]) {
        (&[1, high, wide, dim], &[1, rows, columns, same]) if dim == same && key.ends_with("pos_embed") => {
            resize_table(&found.values, [high, wide, dim], [rows, columns])
        }
        (&[length, dim], &[places, same]) if dim == same && key.contains(".rel_pos_") => {
            resize_table(&found.values, [length, 1, dim], [places, 1])
        }
        _ => {
            return Err(Error::Shape {
                key: key.to_owned(),
                expected: spec.shape.clone(),
                found: found.shape.clone(),
            });
        }
    };
    Ok(Array::new(spec.shape.clone(), values))
}

/// DoRA starts from the base weight: the norm of each of its input columns.
fn column_norms(official: &StateDict, key: &str, spec: &Spec) -> Result<Array, Error> {
    let (attention, letter) = key.rsplit_once(".dora_m_").unwrap_or((key, "q"));
    let fused = format!("{attention}.qkv.weight");
    let weight = match official.get(&fused) {
        Some(weight) => {
            let third = weight.values.len() / 3;
            let part = if letter == "q" { 0 } else { 2 };
            &weight.values[part * third..(part + 1) * third]
        }
        None => &find(official, &format!("{attention}.{letter}_proj.weight"))?.values[..],
    };
    let inputs = spec.count();
    let norms = (0..inputs).map(|column| {
        let squares = weight.iter().skip(column).step_by(inputs).map(|&w| w as f64 * w as f64);
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
