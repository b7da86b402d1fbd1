//! Which experiments `--suite` means.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::experiment::suite::{self, Suite, experiment_names};
use crate::shipped::{GOLDEN, shipped};

/// Suites with a name, and their folders.
const NAMED: [(&str, &[&str]); 3] = [
    ("quick", &["golden/phantom/quick"]),
    ("full", &["golden/phantom"]),
    ("paper", &["golden/fed-kits19", "golden/fed-ixi", "golden/prostate-mri"]),
];

/// An experiment of a suite.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What its suite is called: `phantom`, or `phantom/quick` of a suite within another one's folder.
    pub suite: String,
    /// The same with the experiment's own name: `phantom/methods/flap_sam`.
    pub name: String,
    /// What it says.
    pub experiment: Experiment,
}

/// The experiments of a suite, `quick`, `full`, `paper` or a folder, in the order of their names. The folder is a
/// suite's, or one of experiment files.
///
/// # Errors
/// A folder cannot be read or holds no experiment, or a file is none.
pub fn find(suite: &str) -> Result<Vec<Planned>> {
    let folders: Vec<PathBuf> = match NAMED.iter().find(|(name, _)| *name == suite) {
        Some((_, folders)) => folders.iter().map(|folder| shipped(folder)).collect(),
        None => vec![placed(Path::new(suite))],
    };
    let mut planned = Vec::new();
    for folder in folders {
        let names = match Suite::open(&folder)? {
            Some(suite) => {
                suite.refuse_strays()?;
                suite.experiments()?
            }
            None => experiment_names(&folder)?,
        };
        if names.is_empty() {
            let why =
                "it holds no experiment file (.toml); pass quick, full, paper, or a folder such as golden/phantom";
            return Err(Error::invalid(&folder, why));
        }
        let suite = name_of(&folder);
        for name in names {
            planned.push(Planned {
                suite: suite.clone(),
                experiment: Experiment::read(&folder.join(format!("{name}.toml")))?,
                name: format!("{suite}/{name}"),
            });
        }
    }
    Ok(planned)
}

/// A path as it was typed, or below `golden`, which may be left out, where only that has what it begins with.
pub fn placed(path: &Path) -> PathBuf {
    let Some(Component::Normal(first)) = path.components().next() else {
        return path.to_owned();
    };
    let golden = shipped(GOLDEN);
    match (Path::new(first).exists(), golden.join(first).exists()) {
        (true, _) => path.to_owned(),
        (false, true) => golden.join(path),
        // With 'golden' before it, away from the sources.
        (false, false) => path
            .strip_prefix(GOLDEN)
            .map_or(path.to_owned(), |below| golden.join(below)),
    }
}

/// What a folder's suite is called: by the folder's name, behind that of the suite in whose folder it lies.
fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mut name = String::new();
    for folder in whole.ancestors() {
        let own = folder.file_name().unwrap_or_default().to_string_lossy();
        name = if name.is_empty() {
            own.into_owned()
        } else {
            format!("{own}/{name}")
        };
        if !folder.parent().is_some_and(suite::is_suite) {
            break;
        }
    }
    name
}
