//! Base checkpoints from files.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{ErrorKind, Write};
use std::path::Path;

use flapsam_model::checkpoint::{Floats, official, read_safetensors, sha256};
use flapsam_model::foreign::recognise;
use flapsam_model::parameters::{Array, StateDict};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use safetensors::tensor::SafeTensors;

use crate::error::{Error, Result};
use crate::files::{enough_memory, read};

/// A checkpoint's file.
#[derive(Debug)]
pub struct Checkpoint {
    /// The network's weights, under SAM's own names.
    pub state: StateDict,
    /// The sha256 of the file.
    pub sha256: String,
    /// How many tensors it keeps in each type (`f32`, `i64`), those included that are no network's.
    pub types: BTreeMap<String, usize>,
    /// What it says of itself: the metadata of a safetensors file.
    pub notes: BTreeMap<String, String>,
}

/// Reads a state dict and the sha256 of its file, as [`read_checkpoint`] does.
///
/// # Errors
/// The file cannot be read, is no checkpoint, or holds two networks.
pub fn read_state_dict(path: &Path) -> Result<(StateDict, String)> {
    let checkpoint = read_checkpoint(path)?;
    Ok((checkpoint.state, checkpoint.sha256))
}

/// Reads a checkpoint, `.safetensors` or `.pth` by its content. Weights that were saved within something larger (under
/// `model`, `state_dict`, `module.`) lose what is before SAM's own names.
///
/// No pickle code is run: the reader knows tensors and dictionaries, and refuses the rest.
///
/// # Errors
/// The file cannot be read, is no checkpoint, or holds two networks.
pub fn read_checkpoint(path: &Path) -> Result<Checkpoint> {
    let bytes = read(path)?;
    if let Some(what) = recognise(&bytes) {
        return Err(Error::invalid(path, what));
    }
    let sha256 = sha256(&bytes);
    // A safetensors file starts with the length of its header and the brace that opens it.
    let (state, types, notes) = match bytes.get(8) == Some(&b'{') {
        true => {
            let (state, notes) = read_safetensors(&bytes).map_err(Error::content(path))?;
            (state, safetensors_types(&bytes), notes.into_iter().collect())
        }
        false => {
            let (state, types) = read_pth(path, &bytes)?;
            (state, types, BTreeMap::new())
        }
    };
    Ok(Checkpoint {
        state: official(state).map_err(Error::content(path))?,
        sha256,
        types,
        notes,
    })
}

/// Counts the tensors of each type.
fn count_types(types: impl Iterator<Item = impl Debug>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in types {
        *counts.entry(format!("{name:?}").to_lowercase()).or_default() += 1;
    }
    counts
}

fn safetensors_types(bytes: &[u8]) -> BTreeMap<String, usize> {
    match SafeTensors::read_metadata(bytes) {
        Ok((_, header)) => count_types(header.tensors().values().map(|tensor| tensor.dtype)),
        Err(_) => BTreeMap::new(),
    }
}

/// The tensors of floats in a PyTorch file's bytes, and the types of all.
fn read_pth(path: &Path, bytes: &[u8]) -> Result<(StateDict, BTreeMap<String, usize>)> {
    // The reader opens files only. It gets a copy of what was read, since what lies at the path may be another file by now.
    let copied = tempfile::NamedTempFile::new().and_then(|mut file| {
        file.write_all(bytes)?;
        Ok(file)
    });
    let copy = copied.map_err(Error::file("make a temporary copy of", path))?;
    let reader = PytorchReader::new(copy.path()).map_err(|why| refuse(path, &why))?;
    // In the order of their names, so that of several faults the same one is named every time.
    let tensors: BTreeMap<&String, (&Tensor, Floats)> = reader
        .tensors()
        .iter()
        .filter_map(|(key, tensor)| Some((key, (tensor, floats(tensor.dtype())?))))
        .collect();
    let values: usize = tensors.values().map(|(tensor, _)| tensor.num_elements()).sum();
    // As they are read, and as floats of 32 bits.
    let needed = values.saturating_mul(2 * size_of::<f64>());
    enough_memory(needed as u64).map_err(|why| Error::invalid(path, why))?;
    let read = |(key, (tensor, floats)): (&String, (&Tensor, Floats))| {
        let bytes = tensor.read().map_err(|why| refuse(path, &PytorchError::Io(why)))?;
        let values = floats.to_f32(&bytes);
        if values.len() != tensor.num_elements() {
            let why = format!("'{key}' has other values than its shape says; save the checkpoint again");
            return Err(Error::invalid(path, why));
        }
        Ok((key.clone(), Array::new(tensor.shape(), values)))
    };
    let state = tensors.into_iter().map(read).collect::<Result<_>>()?;
    Ok((state, count_types(reader.tensors().values().map(Tensor::dtype))))
}

fn floats(dtype: DType) -> Option<Floats> {
    match dtype {
        DType::F16 => Some(Floats::F16),
        DType::BF16 => Some(Floats::BF16),
        DType::F32 => Some(Floats::F32),
        DType::F64 => Some(Floats::F64),
        _ => None,
    }
}

fn refuse(path: &Path, why: &PytorchError) -> Error {
    let cut_off = match why {
        PytorchError::Zip(_) => true,
        PytorchError::Io(why) => why.kind() == ErrorKind::UnexpectedEof,
        _ => false,
    };
    let what = match cut_off {
        true => "it is cut off or damaged; fetch or save it again",
        false => "it cannot be read as a checkpoint; pass a .pth or .safetensors state dict",
    };
    Error::invalid(path, format!("{what} ({why})"))
}
