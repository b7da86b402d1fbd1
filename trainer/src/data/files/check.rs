//! What this disk holds of a data set, compared with its manifest.

use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::folder::Folder;
use crate::data::manifest::{DataFile, Manifest};
use crate::files::sha256_file;
use crate::progress::Progress;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its bytes are those of the manifest or of the lock file.
    Right,
    /// They are others.
    Changed,
    /// It is not there.
    Missing,
    /// It is there, and nobody knows its checksum.
    Unpinned,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Right, Self::Changed, Self::Missing, Self::Unpinned];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Unpinned => "unpinned",
        }
    }
}

/// A file and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What became of it.
    pub state: State,
    /// What is wrong with it.
    pub why: Option<String>,
}

/// Reads every file of a data set and compares checksums, several files at a time.
pub fn check(manifest: &Manifest, folder: &Folder) -> Vec<Checked> {
    let files = manifest.data_files();
    let glanced: Vec<Checked> = files.iter().map(|file| before_reading(file, folder)).collect();
    let size = |checked: &Checked| fs::metadata(&checked.path).map_or(0, |facts| facts.len());
    let progress = Progress::of_bytes(glanced.iter().map(size).sum());
    let pairs = files.par_iter().zip(glanced).with_max_len(1);
    let checked = pairs.map(|(file, glanced)| {
        let (bytes, name) = (size(&glanced), &file.path);
        let checked = compare(glanced, file.sha256.as_deref());
        progress.advance(bytes, name);
        checked
    });
    checked.collect()
}

/// The same without reading the files: those whose size is right count as right.
pub fn glance(manifest: &Manifest, folder: &Folder) -> Vec<Checked> {
    let files = manifest.data_files();
    files.iter().map(|file| before_reading(file, folder)).collect()
}

/// Reads a file that seems to be right.
fn compare(checked: Checked, expected: Option<&str>) -> Checked {
    let (State::Right, Some(expected)) = (checked.state, expected) else {
        return checked;
    };
    let why = match sha256_file(&checked.path) {
        Ok(found) if found == expected => return checked,
        Ok(found) => format!("its sha256 is {found}, not {expected}"),
        Err(why) => why.to_string(),
    };
    Checked {
        state: State::Changed,
        why: Some(why),
        ..checked
    }
}

/// What can be said of a file without reading it.
fn before_reading(file: &DataFile, folder: &Folder) -> Checked {
    let missing = |why| Checked {
        path: folder.path().join(&file.path),
        state: State::Missing,
        why,
    };
    let path = match folder.locate(file) {
        Ok(Some(path)) => path,
        Ok(None) => return missing(None),
        Err(why) => return missing(Some(why.to_string())),
    };
    let length = fs::metadata(&path).map_or(0, |facts| facts.len());
    let wrong_size = file.bytes.filter(|bytes| *bytes != length);
    let why = wrong_size.map(|bytes| format!("it has {length} bytes, not {bytes}"));
    let state = match (&why, &file.sha256) {
        (Some(_), _) => State::Changed,
        (None, None) => State::Unpinned,
        (None, Some(_)) => State::Right,
    };
    Checked { path, state, why }
}
