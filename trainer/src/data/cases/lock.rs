//! The lock file: what a data set's files are on this disk, where its source publishes no checksum.
//!
//! It is a table of cases like the manifest's own, beside the data set's folder, with every pattern replaced by the file
//! that was found and every missing checksum by that file's. Whoever keeps it can tell later whether anything changed.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use flapsam_model::memory::Content;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Volume, VoxelBox};
use glob::Pattern;
use rayon::prelude::*;

use super::dataset::{labels_of, volume_of};
use crate::data::files::folder::Folder;
use crate::data::manifest::{CASE, Case, DataFile, Manifest, parse_cases, table};
use crate::error::{Error, Result};
use crate::files::{read, write};
use crate::progress::Progress;

/// Where the lock file of a data set is.
pub fn path(data: &Path, name: &str) -> PathBuf {
    data.join(format!("{name}.lock.csv"))
}

/// The manifest with the cases of its lock file, if there is one.
///
/// # Errors
/// The lock file cannot be read, or contradicts the manifest.
pub fn locked(manifest: Manifest, data: &Path) -> Result<Manifest> {
    let path = path(data, &manifest.about.name);
    if !path.is_file() {
        return Ok(manifest);
    }
    let bytes = read(&path)?;
    let cases = parse_cases(&path, &bytes)?;
    let allowed = |case: &&Case| match manifest.cases.iter().find(|published| published.id == case.id) {
        Some(published) => agrees(published, case),
        None => manifest.cases.iter().any(|published| agrees(published, case)),
    };
    let strange = cases.iter().find(|case| !allowed(case));
    let lost = manifest.cases.iter().filter(|case| !case.is_template());
    let lost = lost
        .into_iter()
        .find(|published| !cases.iter().any(|case| case.id == published.id));
    if let Some(case) = strange.or(lost) {
        let why = format!(
            "its case '{}' is not as the manifest of {} has it; remove the lock file and run 'flapsam data pin {}'",
            case.id, manifest.about.name, manifest.about.name
        );
        return Err(Error::invalid(&path, why));
    }
    Ok(Manifest {
        cases,
        sha256: sha256(&bytes),
        ..manifest
    })
}

/// A manifest whose every file is known, for training.
///
/// # Errors
/// It cannot be read, has no cases, or some are not pinned yet.
pub fn ready(manifest: &Path, data: &Path) -> Result<Manifest> {
    let found = locked(Manifest::read(manifest)?, data)?;
    if found.cases.is_empty() {
        return Err(Error::invalid(manifest, "it has no cases; choose a data set that has"));
    }
    // Without all checksums, a run's record could not say what it was trained on.
    let vague = |case: &&Case| case.image.sha256.is_none() || case.label.sha256.is_none() || case.slices == 0;
    match found.cases.iter().find(vague) {
        None => Ok(found),
        Some(case) => {
            let name = &found.about.name;
            let why = format!(
                "not everything about the files of its case '{}' is known; run 'flapsam data fetch {name}', or put the data into {} and \
                 run 'flapsam data pin {name}'",
                case.id,
                data.join(name).display()
            );
            Err(Error::invalid(manifest, why))
        }
    }
}

/// What pinning came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The lock file.
    pub path: PathBuf,
    /// Cases whose files are all known now.
    pub cases: usize,
    /// Files that got a checksum now.
    pub files: usize,
    /// Why cases could not be pinned.
    pub refused: Vec<String>,
    /// Cases whose files are missing.
    pub missing: usize,
}

/// Checks the files of unknown checksum against what is known of them (the shape and the place in space of their
/// partner; published checksums), and writes their checksums into the lock file.
///
/// # Errors
/// The lock file contradicts the manifest, or cannot be written.
pub fn pin(manifest: Manifest, data: &Path) -> Result<Pinned> {
    let name = manifest.about.name.clone();
    let (folder, path) = (Folder::new(data.join(&name)), path(data, &name));
    let templates = manifest.cases.iter().filter(|case| case.is_template());
    let templates: Vec<Case> = templates.cloned().collect();
    let before = locked(manifest, data)?.cases;
    // Cases that came since the lock file was written are found by the published templates.
    let forgotten: Vec<Case> = templates
        .into_iter()
        .filter(|template| !before.contains(template))
        .collect();
    let before = [before, forgotten].concat();
    let known = expand(&before, &folder)?;
    let progress = Progress::new(known.len());
    let outcomes: Vec<Outcome> = known
        .par_iter()
        .with_max_len(1)
        .map(|case| {
            let outcome = pin_case(case, &folder);
            progress.step(&case.id);
            outcome
        })
        .collect();
    drop(progress);
    let mut pinned = Pinned {
        path,
        cases: 0,
        files: 0,
        refused: Vec::new(),
        missing: 0,
    };
    let mut cases = Vec::new();
    for (case, outcome) in known.into_iter().zip(outcomes) {
        cases.push(match outcome {
            Outcome::Pinned(now) => {
                let newly = |before: &DataFile| usize::from(before.sha256.is_none());
                pinned.cases += 1;
                pinned.files += newly(&case.image) + newly(&case.label);
                *now
            }
            Outcome::Missing => {
                pinned.missing += 1;
                case
            }
            Outcome::Refused(why) => {
                pinned.refused.push(format!("{}: {why}", case.id));
                case
            }
        });
    }
    if pinned.cases > 0 && cases != before {
        write(&pinned.path, table(&cases).as_bytes())?;
    }
    Ok(pinned)
}

enum Outcome {
    Pinned(Box<Case>),
    Missing,
    Refused(String),
}

fn pin_case(case: &Case, folder: &Folder) -> Outcome {
    let whole = |file: &DataFile| file.sha256.is_some();
    if whole(&case.image) && whole(&case.label) && case.slices > 0 {
        return Outcome::Pinned(Box::new(case.clone()));
    }
    let label = || folder.locate(&case.label);
    let found = folder.locate(&case.image).and_then(|image| Ok(image.zip(label()?)));
    let (image, label) = match found {
        Ok(Some(both)) => both,
        Ok(None) => return Outcome::Missing,
        Err(why) => return Outcome::Refused(why.to_string()),
    };
    match inspect(case, folder.path(), &image, &label) {
        Ok(case) => Outcome::Pinned(Box::new(case)),
        Err(why) => Outcome::Refused(why.to_string()),
    }
}

/// Reads a case's files, and refuses them where they contradict each other or what is published.
fn inspect(case: &Case, folder: &Path, image: &Path, label: &Path) -> Result<Case> {
    let scan = inspect_file(&case.image, folder, image, case.crop.as_ref())?;
    let labels = inspect_file(&case.label, folder, label, case.crop.as_ref())?;
    labels_of(image, &scan.volume, label, labels.volume, case.label_ids.as_ref())?;
    Ok(Case {
        slices: match case.slices {
            0 => scan.volume.axial().dims[0],
            known => known,
        },
        image: scan.file,
        label: labels.file,
        ..case.clone()
    })
}

struct Inspected {
    file: DataFile,
    volume: Volume,
}

fn inspect_file(file: &DataFile, folder: &Path, path: &Path, crop: Option<&VoxelBox>) -> Result<Inspected> {
    let bytes = read(path)?;
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let found = DataFile::new(relative.to_string_lossy().into_owned(), &bytes);
    if let (Some(published), Some(digest)) = (&file.sha256, &found.sha256)
        && published != digest
    {
        let why = format!("its sha256 is {digest}, published is {published}; delete it and fetch it again");
        return Err(Error::invalid(path, why));
    }
    Ok(Inspected {
        volume: volume_of(path, &bytes, None, crop, &Preprocessing::default(), Content::Scan)?,
        file: DataFile {
            url: file.url.clone(),
            ..found
        },
    })
}

/// Templates replaced by the cases that are there, without those that have a row of their own.
///
/// # Errors
/// A path is no pattern.
pub fn expand(cases: &[Case], folder: &Folder) -> Result<Vec<Case>> {
    let own: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    let mut all = Vec::new();
    for case in cases {
        if !case.is_template() {
            all.push(case.clone());
            continue;
        }
        let found = folder.matches(&case.image.path.replace(CASE, "*"))?;
        let names = found.into_iter().filter_map(|path| name_in(&case.image.path, path));
        let expanded = names.map(|name| fill(case, name));
        let expanded: Vec<Case> = expanded.filter(|case| !own.contains(&case.id.as_str())).collect();
        // Nothing there yet: they are still to come.
        if expanded.is_empty() && !cases.iter().any(|other| other != case && agrees(case, other)) {
            all.push(case.clone());
        }
        all.extend(expanded);
    }
    Ok(all)
}

/// Digits in place of `{case}`, as the published names have them.
fn name_in<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let (before, after) = template.split_once(CASE)?;
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

fn fill(case: &Case, name: &str) -> Case {
    let file = |file: &DataFile| DataFile {
        path: file.path.replace(CASE, name),
        ..file.clone()
    };
    Case {
        id: case.id.replace(CASE, name),
        image: file(&case.image),
        label: file(&case.label),
        ..case.clone()
    }
}

/// Whether a locked case is what a published one allows.
fn agrees(published: &Case, locked: &Case) -> bool {
    let published = match published.is_template() && published != locked {
        true => match name_in(&published.id, &locked.id) {
            Some(name) => &fill(published, name),
            None => return false,
        },
        false => published,
    };
    let file = |published: &DataFile, locked: &DataFile| {
        let fits = || Pattern::new(&published.path).is_ok_and(|pattern| pattern.matches(&locked.path));
        let path = published.path == locked.path || published.is_pattern() && fits();
        path && (published.sha256.is_none() || published.sha256 == locked.sha256) && published.url == locked.url
    };
    let part = |case: &Case| (case.crop.clone(), case.label_ids.clone(), case.patient.clone());
    (&published.id, &published.site, published.train) == (&locked.id, &locked.site, locked.train)
        && part(published) == part(locked)
        && (published.slices == 0 || published.slices == locked.slices)
        && file(&published.image, &locked.image)
        && file(&published.label, &locked.label)
}
