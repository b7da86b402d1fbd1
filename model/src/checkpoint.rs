//! Official checkpoints: state dicts in, an adapted network's state dict out.

use std::collections::HashMap;

use burn::tensor::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::parameters::{Array, Spec, StateDict, initial};
use crate::sam::Sam;

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

/// Reads a safetensors file: its tensors as `f32`, and its metadata.
///
/// # Errors
/// The bytes are no safetensors, or a tensor is not of floats.
pub fn read_safetensors(bytes: &[u8]) -> Result<(StateDict, HashMap<String, String>), Error> {
    let format = |why| Error::format("the safetensors file", why);
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|why| format(why.to_string()))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|why| format(why.to_string()))?;
    let state = tensors.iter().map(|(key, view)| {
        let values = floats(view.dtype(), view.data());
        let values = values.ok_or_else(|| format(format!("'{key}' is of type {:?}, not of floats", view.dtype())))?;
        Ok((key.to_owned(), Array::new(view.shape(), values)))
    });
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok((state.collect::<Result<_, Error>>()?, metadata))
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let two = |bytes: &[u8]| [bytes[0], bytes[1]];
    Some(match dtype {
        Dtype::F32 => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Dtype::F16 => bytes
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes(two(b)).to_f32())
            .collect(),
        Dtype::BF16 => bytes
            .chunks_exact(2)
            .map(|b| f32::from_bits((u16::from_le_bytes(two(b)) as u32) << 16))
            .collect(),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        _ => return None,
    })
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
