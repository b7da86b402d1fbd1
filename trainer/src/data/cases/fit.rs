//! What a table says of the insides of its files, held against them: boxes, and which labels make which class.

use std::collections::BTreeSet;
use std::path::Path;

use flapsam_model::memory::Content;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Volume;

use super::dataset::volume_of;
use super::memory::read_all;
use crate::data::manifest::label_ids::{LabelIds, held};
use crate::data::manifest::{Case, Manifest};
use crate::error::{Error, Result};
use crate::files::read;
use crate::progress::Progress;

/// Whether a table says anything of the insides of its files.
pub fn is_described(manifest: &Manifest) -> bool {
    manifest.cases.iter().any(|case| of_insides(&case))
}

fn of_insides(case: &&Case) -> bool {
    case.crop.is_some() || case.label_ids.is_some()
}

/// Why cases do not fit their files, each by its name: a box that reaches out of one, values that are no label ids, an id
/// that no case holds. All files are there (see [`crate::data::files::check`]).
///
/// # Errors
/// They do not fit into memory.
pub fn misfits(manifest: &Manifest, folder: &Path) -> Result<Vec<String>> {
    let described: Vec<&Case> = manifest.cases.iter().filter(of_insides).collect();
    if described.is_empty() {
        return Ok(Vec::new());
    }
    let progress = Progress::new(described.len());
    let looked = read_all(&described, |case| {
        let found = look(case, folder);
        progress.step(&case.id);
        Ok(found)
    })?;
    drop(progress);
    let mut misfits = Vec::new();
    let mut all: BTreeSet<u32> = BTreeSet::new();
    for (case, found) in described.iter().zip(looked) {
        match found {
            Ok(held) => all.extend(held),
            Err(why) => misfits.push(format!("{}: {why}", case.id)),
        }
    }
    // Without all cases nobody knows what none of them holds.
    if misfits.is_empty() {
        let named: BTreeSet<u32> = described
            .iter()
            .filter_map(|case| case.label_ids.as_ref())
            .flat_map(LabelIds::ids)
            .collect();
        let lost = named.difference(&all);
        misfits.extend(
            lost.map(|id| {
                format!("no case holds the label {id}, which 'label_ids' names; name the ids that are there")
            }),
        );
    }
    Ok(misfits)
}

/// Which ids a case's part of its labels holds.
fn look(case: &Case, folder: &Path) -> Result<BTreeSet<u32>> {
    let [image, label] = [&case.image, &case.label].map(|file| folder.join(&file.path));
    let scan = Volume::claimed(&read(&image)?, None).map_err(Error::content(&image))?;
    if let Some(part) = &case.crop {
        scan.cropped(part).map_err(Error::content(&image))?;
    }
    let mut labels = volume_of(
        &label,
        &read(&label)?,
        None,
        case.crop.as_ref(),
        &Preprocessing::default(),
        Content::Scan,
    )?;
    let held = held(&labels);
    if let Some(ids) = &case.label_ids {
        ids.to_classes(&mut labels).map_err(Error::content(&label))?;
    }
    Ok(held)
}
