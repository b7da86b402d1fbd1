//! Files: read whole, written beside their place and renamed, so that nothing half-written stays behind.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::hex;
use flapsam_model::parameters::{Array, StateDict};
use safetensors::tensor::{Dtype, View};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads a whole file.
///
/// # Errors
/// It cannot be read, is a device, which may never end, or is larger than the memory that is free.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let facts = fs::metadata(path).map_err(Error::file("read", path))?;
    if is_device(&facts) {
        return Err(Error::invalid(path, "it is a device; pass a file"));
    }
    enough_memory(facts.len()).map_err(|why| Error::invalid(path, why))?;
    fs::read(path).map_err(Error::file("read", path))
}

fn is_device(facts: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        facts.file_type().is_char_device() || facts.file_type().is_block_device()
    }
    #[cfg(not(unix))]
    {
        let _ = facts;
        false
    }
}

/// Bytes as people read them of memory.
pub fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 30)
}

/// Refuses to take more memory than is free, as far as the system says how much that is.
///
/// # Errors
/// So many bytes are more; the message says how many there are, and what to do.
pub fn enough_memory(needed: u64) -> std::result::Result<(), String> {
    match system_bytes("/proc/meminfo", "MemAvailable") {
        Some(free) if needed > free => Err(format!(
            "it would take about {:.1} GiB of memory, and {:.1} GiB are free; check the file, or use a machine with more",
            gibibytes(needed),
            gibibytes(free)
        )),
        _ => Ok(()),
    }
}

/// How the names of files begin that are not whole yet.
const HALF_WRITTEN: &str = ".half-written-";

/// Writes a whole file, or leaves what was there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_then(path, bytes, settle)
}

/// Writes a whole file that nobody but its owner can read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<()> {
    // Files are made like that.
    write_then(path, bytes, fs::File::sync_all)
}

fn write_then(path: &Path, bytes: &[u8], settle: impl Fn(&fs::File) -> std::io::Result<()>) -> Result<()> {
    let failed = |why| Error::file("write", path)(why);
    let mut file = half_written().tempfile_in(folder_of(path)?).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    settle(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|refused| failed(refused.error))?;
    Ok(())
}

/// Writes a safetensors file of `f32` as `flapsam_model::checkpoint::write_safetensors` does, tensor by tensor: a large
/// state is not held twice.
pub fn write_state_dict(path: &Path, state: &StateDict, metadata: (&str, String)) -> Result<()> {
    let metadata = HashMap::from([(metadata.0.to_owned(), metadata.1)]);
    let tensors = state.iter().map(|(key, array)| (key, Tensor(array)));
    // In a folder of its own beside the place: the writer makes files under names of its choice.
    let failed = |why| Error::file("write", path)(why);
    let room = half_written().tempdir_in(folder_of(path)?).map_err(failed)?;
    let whole = room.path().join("tensors");
    safetensors::serialize_to_file(tensors, Some(metadata), &whole)
        .map_err(|why| failed(std::io::Error::other(why)))?;
    let file = fs::File::open(&whole).map_err(failed)?;
    settle(&file).map_err(failed)?;
    fs::rename(&whole, path).map_err(failed)
}

/// How what is not whole yet is called.
fn half_written() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(HALF_WRITTEN);
    builder
}

/// The folder that a file is to lie in; it is made if it is not there.
fn folder_of(path: &Path) -> Result<&Path> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(folder)?;
    Ok(folder)
}

/// Has a whole file on the disk. Temporary files are private; results are as open as the user's other files.
fn settle(file: &fs::File) -> std::io::Result<()> {
    file.sync_all()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
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

/// Removes what a killed [`write()`] left in a folder and those below it.
pub fn remove_half_written(folder: &Path) -> Result<()> {
    for path in files_in(folder)? {
        // A link could lead to a folder that is not ours.
        let folder = path.is_dir() && !path.is_symlink();
        let removed = match (is_half_written(&path), folder) {
            (true, true) => fs::remove_dir_all(&path),
            (true, false) => fs::remove_file(&path),
            (false, true) => {
                remove_half_written(&path)?;
                Ok(())
            }
            (false, false) => Ok(()),
        };
        removed.map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

/// Whether a file is one that [`write()`] did not finish.
pub fn is_half_written(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(HALF_WRITTEN)
}

/// Puts a folder out of the way of a new one: into `.replaced` beside it, under its name and the time. Returns where it
/// is then; `None` if there is none.
///
/// # Errors
/// It cannot be moved.
pub fn move_aside(folder: &Path) -> Result<Option<PathBuf>> {
    if !folder.exists() {
        return Ok(None);
    }
    let whole = folder.canonicalize().map_err(Error::file("read the folder", folder))?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return Err(Error::invalid(
            folder,
            "it cannot be moved aside; choose a folder that is not the root",
        ));
    };
    let aside = parent.join(".replaced");
    create_folder(&aside)?;
    let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H%M%S");
    let name = format!("{}-{time}", name.to_string_lossy());
    let free = |number: usize| match number {
        0 => aside.join(&name),
        number => aside.join(format!("{name}-{number}")),
    };
    let target = (0..).map(free).find(|path| !path.exists()).unwrap_or_default();
    fs::rename(&whole, &target).map_err(Error::file("move aside", folder))?;
    Ok(Some(target))
}

/// Refuses to write to a file that is also read, under whatever name or link.
///
/// # Errors
/// It is one of the inputs.
pub fn refuse_input(out: &Path, inputs: &[&Path]) -> Result<()> {
    // What is not there yet is nobody's input.
    if !out.exists() {
        return Ok(());
    }
    let same = |input: &&&Path| same_file::is_same_file(out, input).unwrap_or(false);
    match inputs.iter().find(same) {
        None => Ok(()),
        Some(input) => {
            let why = format!(
                "it is {}, which is read; write to another file with --out",
                input.display()
            );
            Err(Error::invalid(out, why))
        }
    }
}

/// What lies in a folder: files and folders, in no particular order.
pub fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// All files in a folder and those below it, in the order of their paths; none if it is not there.
///
/// A link to a folder is followed where it leads out of this one, and each such folder once: so no link leads in circles.
///
/// # Errors
/// A folder cannot be read.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if folder.is_dir() {
        let root = folder.canonicalize().map_err(Error::file("read the folder", folder))?;
        walk(folder, &root, &mut BTreeSet::new(), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, root: &Path, followed: &mut BTreeSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    for path in files_in(folder)? {
        if !path.is_dir() {
            files.push(path);
            continue;
        }
        if path.is_symlink() {
            let target = path.canonicalize().map_err(Error::file("read the folder", &path))?;
            let here = target.starts_with(root) || root.starts_with(&target);
            if here || !followed.insert(target) {
                continue;
            }
        }
        walk(&path, root, followed, files)?;
    }
    Ok(())
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

/// Rows as a CSV table: of structures, whose names become its first row, or of lists of cells.
///
/// # Errors
/// A row is none, or of another length than those before.
pub fn csv_table(rows: impl IntoIterator<Item = impl serde::Serialize>) -> Result<Vec<u8>> {
    let failed = |why: &dyn std::fmt::Display| Error::Message(format!("a table cannot be encoded: {why}"));
    let mut table = csv::Writer::from_writer(Vec::new());
    for row in rows {
        table.serialize(row).map_err(|why| failed(&why))?;
    }
    table.into_inner().map_err(|why| failed(&why))
}

/// Writes a JSON file for people to read.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|why| Error::invalid(path, why))?;
    text.push('\n');
    write(path, text.as_bytes())
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

/// How many bytes the disk of a folder has free for this user; `None` where the system does not say.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let facts = rustix::fs::statvfs(folder).ok()?;
        Some(facts.f_bavail * facts.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
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
