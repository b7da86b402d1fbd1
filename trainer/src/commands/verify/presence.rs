//! The data that a suite needs: what is there, what is not, and what can be made.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::phantom;
use crate::data::cases::lock::ready;
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::verification::suite::Planned;

/// A data set that is not there.
#[derive(Debug, Serialize)]
pub(super) struct LeftOut {
    data: String,
    /// How many of the suite's experiments are on it.
    experiments: usize,
}

/// The experiments whose data sets are there, and the data sets that are not.
pub(super) fn with_data(planned: Vec<Planned>, data: &Path) -> Result<(Vec<Planned>, Vec<LeftOut>)> {
    let mut there = Vec::new();
    let mut left_out: Vec<LeftOut> = Vec::new();
    for planned in planned {
        let manifest = Manifest::read(&planned.experiment.manifest(data))?;
        let name = manifest.about.name;
        if data.join(&name).exists() {
            there.push(planned);
        } else if let Some(known) = left_out.iter_mut().find(|known| known.data == name) {
            known.experiments += 1;
        } else {
            let experiments = 1;
            left_out.push(LeftOut {
                data: name,
                experiments,
            });
        }
    }
    for LeftOut {
        data: name,
        experiments,
    } in &left_out
    {
        let path = data.join(name);
        eprintln!(
            "flapsam: {experiments} experiments are left out: there is no {}; 'flapsam data list' says how to get {name}",
            path.display()
        );
    }
    match there.is_empty() {
        true => Err(Error::Message(format!(
            "no data set of the suite is in {}; fetch one, for example with 'flapsam data fetch fed-kits19'",
            data.display()
        ))),
        false => Ok((there, left_out)),
    }
}

/// What a verdict does not cover.
pub(super) fn without(left_out: &[LeftOut]) -> String {
    let sets = left_out
        .iter()
        .map(|left_out| format!("; without {} (not there)", left_out.data));
    sets.collect()
}

/// Refuses a suite whose files are not all there: nothing of it could be judged, and a verdict would mislead.
pub(super) fn all_there(planned: &[Planned], data: &Path) -> Result<()> {
    let mut seen: Vec<PathBuf> = Vec::new();
    for planned in planned {
        let (path, base) = (
            planned.experiment.manifest(data),
            planned.experiment.base_checkpoint(data),
        );
        if !seen.contains(&path) {
            let manifest = ready(&path, data)?;
            let name = &manifest.about.name;
            let folder = data.join(name);
            let files = manifest.cases.iter().flat_map(|case| [&case.image, &case.label]);
            // Cases may share a file.
            let files: BTreeSet<&String> = files.map(|file| &file.path).collect();
            let absent = files.iter().filter(|file| !folder.join(file).is_file()).count();
            if absent > 0 {
                let why = format!(
                    "{absent} files of it are missing, so that nothing was run or judged; 'flapsam data fetch {name}' gets \
                     them, or 'flapsam data list' says how"
                );
                return Err(Error::invalid(&folder, why));
            }
            seen.push(path);
        }
        if !base.is_file() {
            let why = "the base checkpoint is missing, so that nothing was run or judged; docs/src/data.md says \
                       under \"Base checkpoints\" how to get it";
            return Err(Error::invalid(&base, why));
        }
    }
    Ok(())
}

/// Makes the phantom if it is asked for and not there.
pub(super) fn make_phantom(planned: &[Planned], data: &Path) -> Result<()> {
    for planned in planned {
        let manifest = ready(&planned.experiment.manifest(data), data)?;
        if manifest.about.name == "phantom" && !data.join("phantom").exists() {
            phantom::make(data)?;
        }
    }
    Ok(())
}
