//! Base checkpoints from files.

pub mod pickle;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, BufReader, Cursor, ErrorKind, Read, Write};
use std::path::Path;

use flapsam_model::checkpoint::{Floats, official, read_safetensors, sha256};
use flapsam_model::foreign::recognise;
use flapsam_model::parameters::{Array, StateDict};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use safetensors::tensor::SafeTensors;
use tempfile::NamedTempFile;
use zip::result::{ZipError, ZipResult};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::{Error, Result};
use crate::files::{enough_memory, read};

/// Where a tar archive has its mark.
const TAR_MARK_AT: usize = 257;
const TAR_MARK: &[u8] = b"ustar";
/// How an archive begins.
const ZIP_MARK: &[u8] = b"PK";
/// How the entry's name ends that says which tensors there are.
const PICKLE: &str = "data.pkl";
/// How many pickles a file without an archive begins with: before PyTorch 1.6 the last ones say what there is.
const PICKLES: usize = 5;
/// How many values a checkpoint has at most for each of its bytes: tensors may share what they hold, but not without end.
const MOST_VALUES_A_BYTE: u64 = 64;

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

/// Reads a state dict and the sha256 of its file, as [`checkpoint`] does.
///
/// # Errors
/// The file cannot be read, is no checkpoint, or holds two networks.
pub fn read_state_dict(path: &Path) -> Result<(StateDict, String)> {
    let checkpoint = checkpoint(path, &read(path)?)?;
    Ok((checkpoint.state, checkpoint.sha256))
}

/// The checkpoint in the bytes that were read from `path`, `.safetensors` or `.pth` by their content. Weights that were saved
/// within something larger (under `model`, `state_dict`, `module.`) lose what is before SAM's own names.
///
/// No pickle code is run: the reader knows tensors and dictionaries, and refuses the rest.
///
/// # Errors
/// They are no checkpoint, or hold two networks.
pub fn checkpoint(path: &Path, bytes: &[u8]) -> Result<Checkpoint> {
    if let Some(what) = recognise(bytes) {
        return Err(Error::invalid(path, what));
    }
    // A safetensors file starts with the length of its header and the brace that opens it.
    let (state, types, notes) = match bytes.get(8) == Some(&b'{') {
        true => {
            let (state, notes) = read_safetensors(bytes).map_err(Error::content(path))?;
            (state, safetensors_types(bytes), notes.into_iter().collect())
        }
        false => {
            let (state, types) = read_pth(path, bytes)?;
            (state, types, BTreeMap::new())
        }
    };
    Ok(Checkpoint {
        state: official(state).map_err(Error::content(path))?,
        sha256: sha256(bytes),
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
    if bytes.get(TAR_MARK_AT..).is_some_and(|rest| rest.starts_with(TAR_MARK)) {
        let why = "it is a tar archive, as PyTorch before 0.1.10 made them; load and save it with a newer one";
        return Err(Error::invalid(path, why));
    }
    let copy = copy_for_reader(path, bytes)?;
    let reader = PytorchReader::new(copy.path()).map_err(|why| refuse(path, &why))?;
    // In the order of their names, so that of several faults the same one is named every time.
    let tensors: BTreeMap<&String, (&Tensor, Floats)> = reader
        .tensors()
        .iter()
        .filter_map(|(key, tensor)| Some((key, (tensor, floats(tensor.dtype())?))))
        .collect();
    let values = tensors.values().map(|(tensor, _)| tensor.num_elements() as u64);
    let values = values.fold(0, u64::saturating_add);
    let held = copy.as_file().metadata().map_err(Error::file("read", path))?.len();
    if values > held.saturating_mul(MOST_VALUES_A_BYTE) {
        let why = format!("it names {values} values and holds {held} bytes; save the checkpoint again");
        return Err(Error::invalid(path, why));
    }
    // As they are read, and as floats of 32 bits.
    let needed = values.saturating_mul(2 * size_of::<f64>() as u64);
    enough_memory(needed).map_err(|why| Error::invalid(path, why))?;
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

/// The reader opens files only. It gets a copy of what was read, since what lies at the path may be another file by now; and
/// what is packed in it unpacked, once, which the reader would do anew for every tensor.
///
/// # Errors
/// The copy cannot be written, or the file takes more memory than is free: unpacked, or to read what tensors it has.
fn copy_for_reader(path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let failed = |why| Error::file("make a temporary copy of", path)(why);
    let damaged = |why| match why {
        // The archive is in memory: what the system refuses is the copy.
        ZipError::Io(why) if why.raw_os_error().is_some() => failed(why),
        why => refuse(path, &PytorchError::Zip(why)),
    };
    let mut copy = NamedTempFile::new().map_err(failed)?;
    // What does not begin as an archive is none, whatever it ends with; what is not a whole one, the reader refuses.
    let archive = bytes.starts_with(ZIP_MARK).then(|| ZipArchive::new(Cursor::new(bytes)));
    let Some(Ok(mut archive)) = archive else {
        let mut rest = bytes;
        check_memory(path, (0..PICKLES).map(|_| pickle::memory(&mut rest)))?;
        copy.write_all(bytes).map_err(failed)?;
        return Ok(copy);
    };
    let entries = entries(&archive).map_err(damaged)?;
    check_memory(path, entries.iter().map(|entry| entry.size))?;
    let mut pickles = Vec::new();
    for entry in entries.iter().filter(|entry| entry.is_pickle) {
        let file = archive.by_index(entry.index).map_err(damaged)?;
        pickles.push(pickle::memory(&mut BufReader::new(file.take(entry.size))));
    }
    check_memory(path, pickles.into_iter())?;
    match entries.iter().any(|entry| entry.is_packed) {
        true => unpack(&mut archive, &mut copy).map_err(damaged)?,
        false => copy.write_all(bytes).map_err(failed)?,
    }
    Ok(copy)
}

fn check_memory(path: &Path, parts: impl Iterator<Item = u64>) -> Result<()> {
    let needed = parts.fold(0, u64::saturating_add);
    enough_memory(needed).map_err(|why| Error::invalid(path, format!("unpacked, {why}")))
}

/// What an archive's table of contents says of an entry.
struct Entry {
    index: usize,
    /// Bytes, unpacked.
    size: u64,
    /// PyTorch itself packs none.
    is_packed: bool,
    /// Whether it says which tensors there are.
    is_pickle: bool,
}

fn entries(archive: &ZipArchive<Cursor<&[u8]>>) -> ZipResult<Vec<Entry>> {
    let entry = |index| {
        let entry = archive.by_index_data(index)?;
        Ok(Entry {
            index,
            size: entry.size(),
            is_packed: entry.compression() != CompressionMethod::Stored,
            is_pickle: entry.name()?.ends_with(PICKLE),
        })
    };
    (0..archive.len()).map(entry).collect()
}

/// The same archive with its entries as they are.
fn unpack(archive: &mut ZipArchive<Cursor<&[u8]>>, to: &mut NamedTempFile) -> ZipResult<()> {
    let mut copy = ZipWriter::new(to);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        copy.start_file(entry.name()?, options.large_file(true))?;
        let size = entry.size();
        // One byte more shows an entry that lies about its size.
        if io::copy(&mut (&mut entry).take(size.saturating_add(1)), &mut copy)? != size {
            return Err(ZipError::InvalidArchive(
                "an entry's length is not the promised one".into(),
            ));
        }
    }
    copy.finish()?;
    Ok(())
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
