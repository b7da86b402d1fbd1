//! What this disk holds of a data set, compared with its manifest.

use std::fs;
use std::path::{Path, PathBuf};

use glob::Pattern;
use rayon::prelude::*;
use serde::Serialize;

use super::manifest::{DataFile, Manifest};
use crate::error::{Error, Result};
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

/// Where a manifest's file is in the data set's folder: `None` if it is missing.
///
/// # Errors
/// It is known by a pattern only, and several files fit.
pub fn locate(folder: &Path, path: &str) -> Result<Option<PathBuf>> {
    let exact = folder.join(path);
    if !is_pattern(path) {
        return Ok(exact.is_file().then_some(exact));
    }
    let mut found = matches(folder, path)?;
    match found.len() {
        0 | 1 => Ok(found.pop()),
        count => {
            let why = format!("{count} files fit; leave only the one of the data set there");
            Err(Error::invalid(&exact, why))
        }
    }
}

/// Whether a manifest's path is a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '{'])
}

/// The files in a folder that fit a pattern, in the order of their names.
///
/// # Errors
/// It is no pattern.
pub fn matches(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let whole = format!("{}/{pattern}", Pattern::escape(&folder.to_string_lossy()));
    let found = glob::glob(&whole).map_err(|why| Error::invalid(&folder.join(pattern), why))?;
    Ok(found
        .filter_map(|entry| entry.ok())
        .filter(|path| path.is_file())
        .collect())
}

/// Reads every file of a data set and compares checksums, several files at a time.
///
/// # Errors
/// A file cannot be read for another reason than being missing.
pub fn check(manifest: &Manifest, folder: &Path) -> Result<Vec<Checked>> {
    let files = manifest.data_files();
    let present = |file: &DataFile| fs::metadata(folder.join(&file.path)).map_or(0, |facts| facts.len());
    let progress = Progress::of_bytes(files.iter().map(present).sum());
    let checked = files.par_iter().with_max_len(1).map(|file| {
        let checked = check_file(file, folder)?;
        progress.advance(present(file), &file.path);
        Ok(checked)
    });
    checked.collect()
}

/// The same without reading the files: those whose size is right count as right.
///
/// # Errors
/// A pattern fits several files.
pub fn glance(manifest: &Manifest, folder: &Path) -> Result<Vec<Checked>> {
    let files = manifest.data_files();
    files.iter().map(|file| before_reading(file, folder)).collect()
}

fn check_file(file: &DataFile, folder: &Path) -> Result<Checked> {
    let checked = before_reading(file, folder)?;
    let (State::Right, Some(expected)) = (checked.state, &file.sha256) else {
        return Ok(checked);
    };
    let found = sha256_file(&checked.path)?;
    Ok(match found == *expected {
        true => checked,
        false => Checked {
            state: State::Changed,
            why: Some(format!("its sha256 is {found}, not {expected}")),
            ..checked
        },
    })
}

/// What can be said of a file without reading it.
fn before_reading(file: &DataFile, folder: &Path) -> Result<Checked> {
    let Some(path) = locate(folder, &file.path)? else {
        return Ok(Checked {
            path: folder.join(&file.path),
            state: State::Missing,
            why: None,
        });
    };
    let length = fs::metadata(&path).map_err(Error::file("read", &path))?.len();
    let wrong_size = file.bytes.filter(|bytes| *bytes != length);
    let why = wrong_size.map(|bytes| format!("it has {length} bytes, not {bytes}"));
    let state = match (&why, &file.sha256) {
        (Some(_), _) => State::Changed,
        (None, None) => State::Unpinned,
        (None, Some(_)) => State::Right,
    };
    Ok(Checked { path, state, why })
}
