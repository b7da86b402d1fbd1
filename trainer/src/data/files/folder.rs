//! A data set's folder, and where the files of a manifest are in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Result};

/// A data set's folder, whose files are listed once if patterns have to be looked for in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Relative to the folder, in order; hidden files are left out.
    names: OnceLock<Vec<String>>,
}

impl Folder {
    /// A folder, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            names: OnceLock::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a manifest's file is: `None` if it is missing.
    ///
    /// # Errors
    /// It is known by a pattern only, and several files fit.
    pub fn locate(&self, path: &str) -> Result<Option<PathBuf>> {
        let exact = self.path.join(path);
        if !is_pattern(path) {
            return Ok(exact.is_file().then_some(exact));
        }
        match self.matches(path)?[..] {
            [] => Ok(None),
            [only] => Ok(Some(self.path.join(only))),
            ref found => {
                let why = format!(
                    "{} files fit ({}, {}, ..); leave only the one of the data set there",
                    found.len(),
                    found[0],
                    found[1]
                );
                Err(Error::invalid(&exact, why))
            }
        }
    }

    /// The files that fit a pattern, relative to the folder.
    ///
    /// # Errors
    /// It is no pattern.
    pub fn matches(&self, pattern: &str) -> Result<Vec<&str>> {
        let exact = || self.path.join(pattern);
        let pattern = Pattern::new(pattern).map_err(|why| Error::invalid(&exact(), why))?;
        let names = self.names.get_or_init(|| {
            let mut names = Vec::new();
            list(&self.path, "", &mut names);
            names
        });
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let fits = |name: &&str| pattern.matches_with(name, options);
        Ok(names.iter().map(String::as_str).filter(fits).collect())
    }
}

/// Lists a folder's files below `prefix`. What cannot be read, or named in UTF-8, fits no pattern.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        match entry.file_name().to_str() {
            Some(name) if !name.starts_with('.') => match entry.path().is_dir() {
                true => list(&entry.path(), &format!("{prefix}{name}/"), names),
                false => names.push(format!("{prefix}{name}")),
            },
            _ => {}
        }
    }
}

/// Whether a manifest's path is a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '{'])
}
