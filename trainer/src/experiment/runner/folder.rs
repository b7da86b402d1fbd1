//! A run's folder: what lies in it, whose it is, and what goes before a new run starts.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use serde::Deserialize;

use super::Run;
use super::judging::Model;
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::experiment::trace::TRACE;
use crate::experiment::{Experiment, Provenance};
use crate::federation::ledger::Entry;
use crate::files::{files_in, read_json, remove_folder_if_there, remove_if_there, write};

/// The file that says that a run is done, and what it came to.
pub(super) const RECORD: &str = "metrics.json";
/// The settings that it was made with.
pub(super) const CONFIG: &str = "config.toml";
/// The adapter, if all sites share one.
pub const ADAPTER: &str = "adapter.safetensors";
/// The predicted masks.
pub(super) const MASKS: &str = "predictions";

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

/// Removes what an earlier run left in its folder, so that nothing of it stays beside the new results: the record first,
/// since with it the run counts as done.
pub(super) fn clear_results(out: &Path) -> Result<()> {
    for name in [RECORD, TRACE, "provenance.json", "timing.json", "ledger.csv"] {
        remove_if_there(&out.join(name))?;
    }
    for path in adapters(out)? {
        remove_if_there(&path)?;
    }
    remove_folder_if_there(&out.join(MASKS))
}

/// What tells runs on different data apart.
#[derive(Deserialize)]
struct RunOf {
    data: String,
}

/// Entries of the ledger as a table for people and spreadsheets.
pub(super) fn table(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |why: String| Error::Message(format!("the ledger cannot be written: {why}"));
    for entry in entries {
        table.serialize(entry).map_err(|why| failed(why.to_string()))?;
    }
    table.into_inner().map_err(|why| failed(why.to_string()))
}

impl Run {
    pub(super) fn save_adapters(&self, models: &[Model], out: &Path) -> Result<Vec<String>> {
        let save = |model: &Model| {
            let name = match &model.site {
                None => PathBuf::from(ADAPTER),
                Some(site) => PathBuf::from(format!("adapter-{site}.safetensors")),
            };
            let bytes = model.adapter.to_bytes();
            write(&out.join(name), &bytes)?;
            Ok(sha256(&bytes))
        };
        models.iter().map(save).collect()
    }

    pub(super) fn provenance(&self, device: &OpenDevice) -> Provenance {
        Provenance {
            program: format!("flapsam {}", env!("CARGO_PKG_VERSION")),
            commit: option_env!("FLAPSAM_COMMIT").map(str::to_owned),
            data_sha256: self.manifest.sha256.clone(),
            base_sha256: self.base_sha256.clone(),
            device: device.name.clone(),
            seed: self.seed,
            fingerprint: self.fingerprint(),
        }
    }

    /// Whether a finished run's folder is of this run.
    pub(super) fn made(&self, out: &Path) -> bool {
        let provenance: Result<Provenance> = read_json(&out.join("provenance.json"));
        provenance.is_ok_and(|provenance| provenance.fingerprint == self.fingerprint())
    }

    /// Refuses a folder that holds a run of something else.
    pub(super) fn is_of_the_same_settings(&self, out: &Path) -> Result<()> {
        let config = out.join(CONFIG);
        if !config.exists() {
            return Ok(());
        }
        let mut different = match Experiment::read(&config) {
            Ok(other) => self.experiment.differences(&other),
            Err(why) => vec![why.to_string()],
        };
        let data = read_json::<RunOf>(&out.join(RECORD)).map(|run| run.data);
        different.extend(
            data.is_ok_and(|data| data != self.manifest.about.name)
                .then(|| "data".to_owned()),
        );
        match different.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(
                &config,
                format!(
                    "the folder holds a run with other settings ({}); pass another folder with --out, or --replace it",
                    different.join(", ")
                ),
            )),
        }
    }

    /// sha256 of all that decides what the run leaves behind.
    pub(super) fn fingerprint(&self) -> String {
        let parts = [
            env!("FLAPSAM_SOURCES"),
            &self.device.name,
            &self.manifest.sha256,
            &self.manifest.classes.join(","),
            &self.base_sha256,
            &self.seed.to_string(),
            &self.experiment.save_predictions.to_string(),
            &self.experiment.deciding_settings(),
        ];
        sha256(parts.join("\n").as_bytes())
    }
}
