//! Archives: a ZIP file unpacked into a folder, whole or not at all, and nowhere else.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use zip::ZipArchive;
use zip::read::ZipFile;

use crate::error::{Error, Result};
use crate::files::create_folder;

/// The bits of a Unix mode that say what an entry is, and those of an ordinary file and of a folder.
const KIND: u32 = 0o170_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many files; folders do not count.
    pub files: usize,
    /// How many bytes all files have together, unpacked.
    pub bytes: u64,
}

/// Unpacks a ZIP archive into a folder; returns the files' paths relative to it, in the archive's order.
///
/// Files that are there already are replaced. On any error in the archive, the folder is left as it was. `progress` is
/// told how many files are unpacked, and how many there are.
pub fn unpack(
    archive: &Path,
    folder: &Path,
    limits: Limits,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<PathBuf>> {
    let file = File::open(archive).map_err(Error::file("read", archive))?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|why| damaged(archive, &why))?;
    let entries = list(archive, &zip, limits)?;
    for (_, path) in &entries {
        check_place(archive, folder, path)?;
    }
    let room = room_beside(folder)?;
    let mut left = limits.bytes;
    for (done, (index, path)) in entries.iter().enumerate() {
        progress(done, entries.len());
        let entry = zip.by_index(*index).map_err(|why| damaged(archive, &why))?;
        left -= extract(archive, entry, &room.path().join(path), left, limits)?;
    }
    progress(entries.len(), entries.len());
    let paths: Vec<PathBuf> = entries.into_iter().map(|(_, path)| path).collect();
    for path in &paths {
        move_into_place(&room.path().join(path), &folder.join(path))?;
    }
    Ok(paths)
}

fn damaged(archive: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::invalid(
        archive,
        format!("it is not a whole ZIP archive: {why}; delete it and fetch it again"),
    )
}

fn unsafe_entry(archive: &Path, name: &str, why: &str) -> Error {
    Error::invalid(
        archive,
        // Quoted with escapes: a hostile name must not write to the terminal.
        format!("the entry {name:?} {why}; do not trust this archive, and ask its publisher for another"),
    )
}

/// The files of an archive and their safe paths, from its table of contents, before anything is written.
fn list(archive: &Path, zip: &ZipArchive<BufReader<File>>, limits: Limits) -> Result<Vec<(usize, PathBuf)>> {
    if zip.has_duplicate_names() {
        return Err(damaged(archive, &"two entries have the same name"));
    }
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..zip.len() {
        let entry = zip.by_index_data(index).map_err(|why| damaged(archive, &why))?;
        let name = entry.name().map_err(|why| damaged(archive, &why))?;
        let path = safe_path(&name).map_err(|why| unsafe_entry(archive, &name, why))?;
        // Whatever system the archive claims to be from: no other program is to make a link of it either.
        let kind = (entry.external_attributes() >> 16) & KIND;
        if ![0, FILE, FOLDER].contains(&kind) {
            return Err(unsafe_entry(archive, &name, "is a link or a device, not a file"));
        }
        if entry.encrypted() {
            let why = format!("the entry {name:?} is encrypted; unpack it with its password, and use the folder");
            return Err(Error::invalid(archive, why));
        }
        if entry.is_dir() {
            continue;
        }
        if path == Path::new("") {
            return Err(unsafe_entry(archive, &name, "has no name"));
        }
        if !seen.insert(path.clone()) {
            return Err(unsafe_entry(archive, &name, "is there twice"));
        }
        entries.push((index, path));
        if entries.len() > limits.files {
            let why = format!(
                "it holds more than {} files; check that it is the right archive",
                limits.files
            );
            return Err(Error::invalid(archive, why));
        }
    }
    let through = entries
        .iter()
        .find(|(_, path)| path.ancestors().skip(1).any(|above| seen.contains(above)));
    match through {
        Some((_, path)) => Err(unsafe_entry(
            archive,
            &path.to_string_lossy(),
            "lies within another entry, a file",
        )),
        None => Ok(entries),
    }
}

/// The path that a name stands for, if on no system it leads out of the folder it is joined to.
fn safe_path(name: &str) -> std::result::Result<PathBuf, &'static str> {
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    if name.contains(['\\', '\0']) {
        return Err("has a backslash or a zero byte in its name");
    }
    let mut path = PathBuf::new();
    for part in name.split('/') {
        match part.as_bytes() {
            b"" | b"." => {}
            b".." => return Err("leads out of its folder"),
            [letter, b':', ..] if letter.is_ascii_alphabetic() => return Err("names a drive"),
            _ => path.push(part),
        }
    }
    Ok(path)
}

/// Refuses a path that goes through a link or a file in the folder, or that would replace anything but a file.
fn check_place(archive: &Path, folder: &Path, path: &Path) -> Result<()> {
    let refuse = |place: &Path, what: &str| {
        let why = format!(
            "{what} is in the way of an entry of {}; move it away, or unpack into an empty folder",
            archive.display()
        );
        Err(Error::invalid(place, why))
    };
    let mut place = folder.to_owned();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        let Ok(there) = fs::symlink_metadata(&place) else {
            return Ok(());
        };
        match parts.peek() {
            _ if there.is_symlink() => return refuse(&place, "a link"),
            Some(_) if !there.is_dir() => return refuse(&place, "a file"),
            None if !there.is_file() => return refuse(&place, "a folder"),
            _ => {}
        }
    }
    Ok(())
}

/// A temporary folder on the same disk as `folder`, so that files move by renaming; deleted when dropped.
fn room_beside(folder: &Path) -> Result<TempDir> {
    // One that exists may be a link to another disk.
    let real = match folder.canonicalize() {
        Ok(real) => real,
        Err(_) => std::path::absolute(folder).map_err(Error::file("find", folder))?,
    };
    let parent = real.parent().unwrap_or(&real);
    create_folder(parent)?;
    tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(parent)
        .map_err(Error::file("create a temporary folder in", parent))
}

/// Writes one entry, and returns its length. What comes out is counted: an archive can say that it is small.
fn extract(
    archive: &Path,
    mut entry: ZipFile<'_, BufReader<File>>,
    to: &Path,
    left: u64,
    limits: Limits,
) -> Result<u64> {
    create_folder(to.parent().unwrap_or(to))?;
    // Not replaced: on some systems, names that differ in case only are the same.
    let mut file = File::create_new(to).map_err(Error::file("write", to))?;
    let mut piece = vec![0; 1 << 17];
    let mut written = 0;
    loop {
        let count = match entry.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(why) => return Err(damaged_entry(archive, &entry, &why)),
        };
        written += count as u64;
        if written > left {
            let why = format!(
                "unpacked, it has more than {} bytes; check that it is the right archive",
                limits.bytes
            );
            return Err(Error::invalid(archive, why));
        }
        file.write_all(&piece[..count]).map_err(Error::file("write", to))?;
    }
    if written != entry.size() {
        return Err(damaged_entry(archive, &entry, &"its length is not the promised one"));
    }
    file.sync_all().map_err(Error::file("write", to))?;
    Ok(written)
}

fn damaged_entry(archive: &Path, entry: &ZipFile<'_, BufReader<File>>, why: &dyn std::fmt::Display) -> Error {
    let name = String::from_utf8_lossy(entry.name_raw());
    damaged(archive, &format!("the entry {name:?} is damaged: {why}"))
}

fn move_into_place(from: &Path, to: &Path) -> Result<()> {
    create_folder(to.parent().unwrap_or(to))?;
    fs::rename(from, to).map_err(Error::file("write", to))
}
