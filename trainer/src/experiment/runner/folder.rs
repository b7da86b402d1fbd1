//! A run's folder: what lies in it, and whose it is.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use serde::Deserialize;

use super::Run;
use super::judging::Model;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance};
use crate::federation::CHECKPOINTS;
use crate::files::{files_in, is_half_written, read_json, write};
use crate::folder_lock::LOCK;

/// The file that says that a run is done, and what it came to.
pub(super) const RECORD: &str = "metrics.json";
/// Where its figures come from.
pub(super) const PROVENANCE: &str = "provenance.json";
/// The settings that it was made with: the first file of a run.
pub(super) const CONFIG: &str = "config.toml";
/// The adapter, if all sites share one.
pub const ADAPTER: &str = "adapter.safetensors";
/// The file of a client's own adapter, where they differ.
pub fn adapter_of(site: &str) -> String {
    format!("adapter-{site}.safetensors")
}

/// The predicted masks.
pub(super) const MASKS: &str = "predictions";

/// What to do about a folder that is taken.
pub(crate) const CHOICE: &str = "pass another folder with --out, or --replace to move this one aside and start over";

/// The one adapter of a run, for which [`ADAPTER`] is the name; each client's where they differ, in order of their names.
///
/// # Errors
/// The folder cannot be read.
pub fn adapters(run: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_in(run)?;
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("adapter") && name.ends_with(".safetensors")
    });
    files.sort();
    Ok(files)
}

/// The folder itself if a finished run is in it, otherwise those of all such runs below it, in the order of their names.
///
/// # Errors
/// A folder cannot be read.
pub fn run_folders(root: &Path) -> Result<Vec<PathBuf>> {
    if root.join(RECORD).is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut below = files_in(root)?;
    below.sort();
    let mut found = Vec::new();
    for path in below {
        // What was moved aside is no run of this folder.
        let hidden = path.file_name().unwrap_or_default().to_string_lossy().starts_with('.');
        // A link could lead back up.
        if !hidden && path.is_dir() && !path.is_symlink() {
            found.extend(run_folders(&path)?);
        }
    }
    Ok(found)
}

/// The name of a file or folder that lies where a run is to go and that no start of one left there.
fn foreign_file(out: &Path) -> Result<Option<String>> {
    for path in files_in(out)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let empty = || files_in(&path).is_ok_and(|files| files.is_empty());
        if name != LOCK && !is_half_written(&path) && !(name == CHECKPOINTS && empty()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether anything lies where a run is to go that is more than a start without a trace.
pub(super) fn is_taken(out: &Path) -> Result<bool> {
    Ok(foreign_file(out)?.is_some())
}

/// What tells runs on different data apart.
#[derive(Deserialize)]
struct RunOf {
    data: String,
}

/// What travelled.
pub(in crate::experiment) const LEDGER: &str = "ledger.csv";

/// Writes each model's adapter into the folder of a run, and says their checksums.
pub(super) fn save_adapters(models: &[Model], out: &Path) -> Result<Vec<String>> {
    let save = |model: &Model| {
        let name = match &model.site {
            None => PathBuf::from(ADAPTER),
            Some(site) => PathBuf::from(adapter_of(site)),
        };
        let bytes = model.adapter.to_bytes();
        write(&out.join(name), &bytes)?;
        Ok(sha256(&bytes))
    };
    models.iter().map(save).collect()
}

impl Run {
    pub(super) fn provenance(&self) -> Provenance {
        Provenance {
            program: format!("flapsam {}", env!("CARGO_PKG_VERSION")),
            commit: option_env!("FLAPSAM_COMMIT").map(str::to_owned),
            data_sha256: self.manifest.sha256.clone(),
            base_sha256: self.network.base_sha256().to_owned(),
            device: self.device.name.clone(),
            seed: self.seed,
            fingerprint: self.fingerprint(),
        }
    }

    /// Refuses a folder that holds anything else than this run, whole or cut off: nothing of it is ever lost to another.
    pub(super) fn check_folder(&self, out: &Path) -> Result<()> {
        let config = out.join(CONFIG);
        if !config.exists() {
            return match foreign_file(out)? {
                None => Ok(()),
                Some(name) => Err(Error::invalid(
                    out,
                    format!("it holds {name}, which no run left there; {CHOICE}"),
                )),
            };
        }
        let mut different = match Experiment::read(&config) {
            Ok(other) => self.experiment.differences(&other),
            Err(why) => vec![why.to_string()],
        };
        let data = read_json::<RunOf>(&out.join(RECORD)).map(|run| run.data);
        if data.is_ok_and(|data| data != self.manifest.about.name) {
            different.push("data".to_owned());
        }
        if !different.is_empty() {
            let why = format!(
                "the folder holds a run with other settings ({}); {CHOICE}",
                different.join(", ")
            );
            return Err(Error::invalid(&config, why));
        }
        match read_json::<Provenance>(&out.join(PROVENANCE)) {
            Ok(earlier) if earlier.fingerprint != self.fingerprint() => {
                let what = self.parted_from(&earlier);
                Err(Error::invalid(out, format!("the folder holds a run {what}; {CHOICE}")))
            }
            _ => Ok(()),
        }
    }

    /// In what an earlier run of the same settings differs.
    fn parted_from(&self, earlier: &Provenance) -> String {
        let now = self.provenance();
        let differences = [
            ("on other data", earlier.data_sha256 != now.data_sha256),
            ("from another base checkpoint", earlier.base_sha256 != now.base_sha256),
            ("with another seed", earlier.seed != now.seed),
            ("on another device", earlier.device != now.device),
        ];
        let named: Vec<&str> = differences
            .into_iter()
            .filter_map(|(what, differs)| differs.then_some(what))
            .collect();
        match named.is_empty() {
            // All that is left of what decides figures.
            true => format!("of another version of the program ({})", earlier.program),
            false => named.join(" and "),
        }
    }

    /// sha256 of all that decides what the run leaves behind.
    pub(in crate::experiment) fn fingerprint(&self) -> String {
        let parts = [
            env!("FLAPSAM_SOURCES"),
            &self.device.name,
            &self.manifest.sha256,
            &self.manifest.classes.join(","),
            self.network.base_sha256(),
            &self.seed.to_string(),
            &self.experiment.save_predictions.to_string(),
            &self.experiment.deciding_settings(),
        ];
        sha256(parts.join("\n").as_bytes())
    }
}
