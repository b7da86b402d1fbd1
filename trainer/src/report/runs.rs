//! Run folders, read back.

use std::path::{Path, PathBuf};

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::sha256;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance, Record, Timing, adapters, run_folders};
use crate::files::{read, read_json};

/// What a run left behind.
#[derive(Debug, Clone, Serialize)]
pub struct RunFolder {
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// The same from the folder that was asked for; its own name if it is that folder.
    pub name: String,
    /// `metrics.json`.
    pub record: Record,
    /// `provenance.json`.
    pub provenance: Provenance,
    /// `timing.json`, if it is there.
    pub timing: Option<Timing>,
    /// `config.toml`.
    #[serde(skip)]
    pub settings: Experiment,
    /// The same as it was written.
    #[serde(skip)]
    pub config: String,
    /// Its checksum.
    pub config_sha256: String,
    /// How its adapter was made (the first client's of clients alone), or why that is unknown.
    #[serde(skip)]
    pub adapter: std::result::Result<AdapterMetadata, String>,
}

impl RunFolder {
    fn read(path: &Path, name: String) -> Result<Self> {
        let metrics = path.join("metrics.json");
        let record: Record = read_json(&metrics)?;
        check(&record).map_err(|why| Error::invalid(&metrics, why))?;
        let timing = path.join("timing.json");
        let config_path = path.join("config.toml");
        let config = read(&config_path)?;
        Ok(Self {
            path: path.to_owned(),
            name,
            record,
            provenance: read_json(&path.join("provenance.json"))?,
            timing: timing.is_file().then(|| read_json(&timing)).transpose()?,
            settings: Experiment::read(&config_path)?,
            config_sha256: sha256(&config),
            config: String::from_utf8_lossy(&config).into_owned(),
            adapter: adapter(path),
        })
    }

    /// Where the run kept the predicted mask of a case.
    pub fn prediction(&self, site: &str, case: &str) -> PathBuf {
        let site = self.path.join("predictions").join(site);
        site.join(format!("{case}.nii.gz"))
    }

    /// Bytes that the clients sent up in all rounds.
    pub fn bytes_up(&self) -> u64 {
        self.record.rounds.iter().map(|round| round.traffic.up).sum()
    }

    /// Bytes that the server sent down to the clients in all rounds.
    pub fn bytes_down(&self) -> u64 {
        self.record.rounds.iter().map(|round| round.traffic.down).sum()
    }
}

/// Refuses a record whose parts do not belong together, so that no one after this needs to doubt them.
fn check(record: &Record) -> std::result::Result<(), String> {
    let classes = record.classes.len();
    let rounds = record.rounds.iter().filter_map(|round| round.dice.as_ref());
    let cases = record.cases.iter().map(|case| &case.dice);
    // A site without test cases has no mean.
    let by_client = record.dice_by_client.values().flat_map(|by_site| by_site.values());
    let sites = record.dice_by_site.values().chain(by_client);
    let sites = sites.filter(|dice| !dice.is_empty());
    let dice = [&record.dice, &record.untrained_dice]
        .into_iter()
        .chain(rounds)
        .chain(cases)
        .chain(record.alone.values())
        .chain(sites)
        .map(Vec::len);
    let mut dice = dice.filter(|values| values + 1 != classes);
    let mut surfaces = surface_scores(record).filter(|values| values + 1 != classes);
    let wrong = |values: usize, what: &str| {
        format!(
            "it has {classes} classes, background included, and somewhere {values} values of {what}; make the run once \
             more"
        )
    };
    match (dice.next(), surfaces.next()) {
        _ if classes < 2 => Err("it has no foreground class; make the run once more".into()),
        _ if record.cases.is_empty() => Err(
            "nothing of it was judged, since its data set has no test case; keep cases for testing and run it again"
                .into(),
        ),
        (Some(values), _) => Err(wrong(values, "Dice")),
        (None, Some(values)) => Err(wrong(values, "surface scores")),
        (None, None) => Ok(()),
    }
}

/// How many values each of a record's surface scores has; nothing where surfaces were not measured.
fn surface_scores(record: &Record) -> impl Iterator<Item = usize> {
    let means = [
        record.surface_dice.len(),
        record.hausdorff_95_mm.len(),
        record.hausdorff_95_cases.len(),
    ];
    // On a grid whose axes are not at right angles a case has no surface Dice.
    let cases = record.cases.iter().filter(|case| !case.surface_dice.is_empty());
    let cases = cases.flat_map(|case| [case.surface_dice.len(), case.hausdorff_95_mm.len()]);
    let measured = !record.surface_dice.is_empty();
    means.into_iter().chain(cases).filter(move |_| measured)
}

fn adapter(path: &Path) -> std::result::Result<AdapterMetadata, String> {
    let first = adapters(path).ok().and_then(|files| files.into_iter().next());
    let file = first.ok_or("the run's folder holds no adapter")?;
    let bytes = read(&file).map_err(|why| why.to_string())?;
    match Adapter::from_bytes(&bytes) {
        Ok(adapter) => Ok(adapter.metadata),
        Err(why) => Err(format!("the run's adapter cannot be read ({why})")),
    }
}

/// A run that is not shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// Its folder, from the one that was asked for.
    pub name: String,
    /// Why.
    pub why: String,
}

/// The run in a folder, or all runs below it, in the order of their names; and those of several that cannot be shown.
///
/// # Errors
/// There is none, or none can be shown.
pub fn find_runs(root: &Path) -> Result<(Vec<RunFolder>, Vec<LeftOut>)> {
    let found = run_folders(root)?;
    if found.is_empty() {
        let why = "there is no run in it (no metrics.json); pass a folder that 'flapsam run' made";
        return Err(Error::invalid(root, why));
    }
    let (mut runs, mut left_out) = (Vec::new(), Vec::new());
    let alone = found.len() == 1;
    for path in found {
        let name = match path == root {
            true => own_name(&path),
            false => path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned(),
        };
        match RunFolder::read(&path, name.clone()) {
            Ok(run) => runs.push(run),
            Err(why) if alone => return Err(why),
            // Without the folder's own place: a page repeats to the byte wherever the runs are.
            Err(why) => left_out.push(LeftOut {
                name,
                why: why.to_string().replace(&format!("{}/", path.display()), ""),
            }),
        }
    }
    match (runs.is_empty(), left_out.first()) {
        (true, Some(first)) => {
            let why = format!(
                "none of its {} runs can be shown; the first: {}",
                left_out.len(),
                first.why
            );
            Err(Error::invalid(root, why))
        }
        _ => Ok((runs, left_out)),
    }
}

/// A folder's name, even if it was given as `.`.
fn own_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
