//! Suites: folders of experiment files beside their golden figures.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::experiment::Experiment;

/// Settings that a folder's experiments share lie in a file of this name; it is no experiment itself.
const COMMON: &str = "common.toml";

/// Suites with a name, and their folders.
const NAMED: [(&str, &[&str]); 3] = [
    ("quick", &["golden/quick"]),
    ("full", &["golden/phantom"]),
    ("paper", &["golden/fed-kits19", "golden/fed-ixi", "golden/prostate-mri"]),
];

/// An experiment of a suite.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its file below the folder of suites, without the ending: `phantom/methods/flap_sam`.
    pub name: String,
    /// What it says.
    pub experiment: Experiment,
}

/// The experiments of a suite, `quick`, `full`, `paper` or a folder, in the order of their files' names.
///
/// # Errors
/// A folder cannot be read or holds no experiment, or a file is none.
pub fn find(suite: &str) -> Result<Vec<Planned>> {
    let folders: Vec<PathBuf> = match NAMED.iter().find(|(name, _)| *name == suite) {
        Some((_, folders)) => folders.iter().map(PathBuf::from).collect(),
        None => vec![suite.into()],
    };
    let mut planned = Vec::new();
    for folder in folders {
        let mut files = Vec::new();
        collect(&folder, &mut files)?;
        files.sort();
        if files.is_empty() {
            let why = "it holds no experiment file (.toml); pass quick, full, paper, or a folder such as golden/quick";
            return Err(Error::invalid(&folder, why));
        }
        let above = folder.parent().unwrap_or(Path::new(""));
        for file in files {
            let name = file.strip_prefix(above).unwrap_or(&file).with_extension("");
            planned.push(Planned {
                name: name.to_string_lossy().into_owned(),
                experiment: Experiment::read(&file)?,
            });
        }
    }
    Ok(planned)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let experiment = path.extension().is_some_and(|extension| extension == "toml");
        if path.is_dir() {
            collect(&path, files)?;
        } else if experiment && path.file_name().is_some_and(|name| name != COMMON) {
            files.push(path);
        }
    }
    Ok(())
}
