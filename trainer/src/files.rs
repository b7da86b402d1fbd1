//! Files: read whole, written beside their place and renamed, so that nothing half-written stays behind.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::{hex, read_safetensors, sha256};
use flapsam_model::parameters::{Array, StateDict};
use pytorch_reader::{DType, PytorchReader};
use safetensors::tensor::{Dtype, View};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read", path))
}

/// How the names of files begin that are not whole yet.
const HALF_WRITTEN: &str = ".half-written-";

/// Writes a whole file, or leaves what was there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_by(path, |file| file.write_all(bytes).map_err(Error::file("write", path)))
}

/// Writes a safetensors file of `f32` as `flapsam_model::checkpoint::write_safetensors` does, tensor by tensor: a large
/// state is not held twice.
pub fn write_state_dict(path: &Path, state: &StateDict, metadata: (&str, String)) -> Result<()> {
    let metadata = HashMap::from([(metadata.0.to_owned(), metadata.1)]);
    let tensors = state.iter().map(|(key, array)| (key, Tensor(array)));
    write_by(path, |file| {
        let written = safetensors::serialize_to_file(tensors, Some(metadata), file.path());
        written.map_err(|why| Error::file("write", path)(std::io::Error::other(why)))
    })
}

/// What a safetensors file takes of an array.
struct Tensor<'a>(&'a Array);

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes: Vec<u8> = self.0.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.into()
    }

    fn data_len(&self) -> usize {
        size_of::<f32>() * self.0.values.len()
    }
}

/// Has a file written beside its place, then puts it there.
fn write_by(path: &Path, fill: impl FnOnce(&mut NamedTempFile) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(folder)?;
    let mut file = tempfile::Builder::new()
        .prefix(HALF_WRITTEN)
        .tempfile_in(folder)
        .map_err(Error::file("write", path))?;
    fill(&mut file)?;
    file.as_file().sync_all().map_err(Error::file("write", path))?;
    // Temporary files are private; results are as open as the user's other files.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o644);
        file.as_file()
            .set_permissions(mode)
            .map_err(Error::file("write", path))?;
    }
    file.persist(path)
        .map_err(|failed| Error::file("write", path)(failed.error))?;
    Ok(())
}

/// Removes what a killed [`write()`] left in a folder and those below it.
pub fn remove_half_written(folder: &Path) -> Result<()> {
    for path in files_in(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            remove_half_written(&path)?;
        } else if name.starts_with(HALF_WRITTEN) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Removes a file that may not be there.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(why)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it; it may not be there.
pub fn remove_folder_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(why)),
        _ => Ok(()),
    }
}

/// What lies in a folder: files and folders, in no particular order.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// All files in a folder and those below it, in the order of their paths; none if it is not there.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if folder.is_dir() {
        for path in files_in(folder)? {
            match path.is_dir() {
                true => files.extend(files_below(&path)?),
                false => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create the folder", path))
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?)
        .map_err(|why| Error::invalid(path, format!("{why}; check the file against its example")))
}

/// Writes a JSON file for people to read.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|why| Error::invalid(path, why))?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Reads a state dict, `.safetensors` or `.pth` by its content, and the sha256 of its file.
/// No pickle code is run: the reader knows tensors and dictionaries, and refuses the rest.
pub fn read_state_dict(path: &Path) -> Result<(StateDict, String)> {
    let bytes = read(path)?;
    let digest = sha256(&bytes);
    // A safetensors file starts with the length of its header and the brace that opens it.
    let state = match bytes.get(8) == Some(&b'{') {
        true => read_safetensors(&bytes).map_err(Error::content(path))?.0,
        false => read_pth(path)?,
    };
    Ok((state, digest))
}

fn read_pth(path: &Path) -> Result<StateDict> {
    let refuse = |why: String| {
        Error::invalid(
            path,
            format!("it cannot be read as a checkpoint: {why}; pass a .pth or .safetensors state dict"),
        )
    };
    let reader = PytorchReader::new(path).map_err(|why| refuse(why.to_string()))?;
    let tensors = reader.tensors().iter().map(|(key, tensor)| {
        if tensor.dtype() != DType::F32 {
            return Err(refuse(format!("'{key}' is {:?}, not F32", tensor.dtype())));
        }
        let bytes = tensor.read().map_err(|why| refuse(why.to_string()))?;
        let values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        Ok((key.clone(), Array::new(tensor.shape(), values.collect())))
    });
    tensors.collect()
}

/// The sha256 of a file, read in pieces.
pub fn sha256_file(path: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    let mut file = fs::File::open(path).map_err(Error::file("read", path))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(Error::file("read", path))? {
            0 => break,
            count => hash.update(&piece[..count]),
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The most memory that the program held at any time, bytes: since it started, or since [`forget_peak_memory`]; `None`
/// where the system does not say.
pub fn peak_memory() -> Option<u64> {
    system_bytes("/proc/self/status", "VmHWM")
}

/// From now on [`peak_memory`] counts anew; false where the system cannot do that.
pub fn forget_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A size in bytes from one of the lists that Linux keeps, such as /proc/meminfo; `None` elsewhere.
pub fn system_bytes(list: &str, entry: &str) -> Option<u64> {
    let text = fs::read_to_string(list).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(entry)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
