//! A data set's folder, and where the files of a manifest are in it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use glob::{MatchOptions, Pattern};

use crate::data::manifest::DataFile;
use crate::error::{Error, Result};
use crate::files::files_below;

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
    pub fn locate(&self, file: &DataFile) -> Result<Option<PathBuf>> {
        let exact = self.path.join(&file.path);
        if !file.is_pattern() {
            return Ok(exact.is_file().then_some(exact));
        }
        match self.matches(&file.path)?[..] {
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
            let below = files_below(&self.path).unwrap_or_default();
            below.iter().filter_map(|path| name(&self.path, path)).collect()
        });
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let fits = |name: &&str| pattern.matches_with(name, options);
        Ok(names.iter().map(String::as_str).filter(fits).collect())
    }
}

/// A file's name relative to the folder. What is hidden, or not named in UTF-8, fits no pattern.
fn name(folder: &Path, path: &Path) -> Option<String> {
    let parts = path.strip_prefix(folder).ok()?.components();
    let parts: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
    let parts = parts.filter(|parts| !parts.iter().any(|part| part.starts_with('.')))?;
    Some(parts.join("/"))
}
