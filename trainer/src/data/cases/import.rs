//! A manifest for a folder of one's own: pairs of scans and masks, sites by subfolder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flapsam_model::memory::Content;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::random::Random;
use flapsam_model::volume::Volume;
use jiff::Timestamp;
use rayon::prelude::*;

use super::dataset::{labels_of, volume_of};
use crate::data::manifest::croissant::{About, FileSet, Licence};
use crate::data::manifest::label_ids::{LabelIds, held};
use crate::data::manifest::{Case, DataFile, Manifest, check_cases, check_classes, is_plain_name};
use crate::error::{Error, Result};
use crate::files::{files_below, read};
use crate::progress::Progress;

/// What the folder does not say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names of the classes, without the background.
    pub classes: Vec<String>,
    /// Which numbers in the masks make each of them; without it a number is a class's own.
    pub label_ids: Option<LabelIds>,
    /// The share of each site's cases that is kept for testing.
    pub test_share: f64,
    /// Decides which cases those are.
    pub seed: u64,
    /// Leave out scans without a mask and masks without a scan, instead of refusing them.
    pub skip_unpaired: bool,
    /// The licence's address.
    pub licence: String,
}

/// Words that end a mask's name, or name a folder of masks.
const MASK: [&str; 10] = [
    "mask",
    "masks",
    "seg",
    "segmentation",
    "segmentations",
    "label",
    "labels",
    "labelstr",
    "labelsts",
    "gt",
];
/// Words that end a scan's name, or name a folder of scans.
const SCAN: [&str; 8] = [
    "image", "images", "imagestr", "imagests", "img", "imaging", "scan", "scans",
];

/// Makes the manifest of a folder `SITE/..`, whose name becomes the data set's.
///
/// A mask is told from its scan by its name (`x_mask.nii.gz` and `x.nii.gz`, `segmentation.nii.gz` and
/// `imaging.nii.gz`) or by its folder (`labels/x.nii.gz` and `images/x.nii.gz`).
///
/// # Errors
/// The classes cannot be told apart, or no mask holds one of them or of their ids; the folder has no sites or no pairs, a
/// file has no partner or several, a pair does not belong together, or one scan would be for training and for testing.
pub fn import(folder: &Path, settings: &Settings) -> Result<Manifest> {
    let classes = std::iter::once("background".to_owned()).chain(settings.classes.iter().cloned());
    let classes: Vec<String> = classes.collect();
    check_classes(&classes)
        .map_err(|why| Error::Message(format!("--classes {}: {why}", settings.classes.join(","))))?;
    let name = name_of(folder)?;
    let (mut cases, held) = cases_of(folder, settings)?;
    check_held(folder, settings, &held)?;
    split(&mut cases, settings);
    check_cases(folder, &cases)?;
    Ok(Manifest {
        about: About {
            name: name.to_owned(),
            description: format!(
                "Imported from a folder of its owner's by 'flapsam data import': {} cases.",
                cases.len()
            ),
            license: Licence::One(settings.licence.clone()),
            url: None,
            version: "1.0.0".into(),
            date_published: newest(folder, &cases)?,
            cite_as: "unpublished".into(),
        },
        files: Vec::new(),
        sets: vec![
            FileSet::nifti("images", "The scans.", "**/*"),
            FileSet::nifti(
                "labels",
                "The masks; which file is which is in the table of cases.",
                "**/*",
            ),
        ],
        sources: Vec::new(),
        origins: Vec::new(),
        classes,
        cases,
        sha256: String::new(),
    })
}

/// The data set's name.
fn name_of(folder: &Path) -> Result<&str> {
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| is_plain_name(name));
    name.ok_or_else(|| {
        let why =
            "its name becomes the data set's; give it one that every file may have, without a dot or blank at its ends";
        Error::invalid(folder, why)
    })
}

/// The cases of a folder, before any is for testing, and which labels their masks hold.
fn cases_of(folder: &Path, settings: &Settings) -> Result<(Vec<Case>, BTreeSet<u32>)> {
    let mut pairs = Vec::new();
    for (site, files) in files_by_site(folder)? {
        pairs.extend(pairs_of(folder, &site, files, settings.skip_unpaired)?);
    }
    if pairs.is_empty() {
        let why = "it holds no pairs of a scan and a mask in a subfolder for each site (SITE/x.nii.gz and \
                   SITE/x_mask.nii.gz)";
        return Err(Error::invalid(folder, why));
    }
    let progress = Progress::new(pairs.len());
    let cases = pairs.par_iter().with_max_len(1).map(|pair| {
        let case = pair.case(folder, settings)?;
        progress.step(&case.0.id);
        Ok(case)
    });
    let cases: Vec<(Case, BTreeSet<u32>)> = cases.collect::<Result<_>>()?;
    let (cases, held): (Vec<Case>, Vec<BTreeSet<u32>>) = cases.into_iter().unzip();
    Ok((cases, held.into_iter().flatten().collect()))
}

/// The day (UTC) on which the newest of the files was last changed.
fn newest(folder: &Path, cases: &[Case]) -> Result<String> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for file in cases.iter().flat_map(|case| [&case.image, &case.label]) {
        let path = folder.join(&file.path);
        let changed = fs::metadata(&path).and_then(|facts| facts.modified());
        newest = newest.max(changed.map_err(Error::file("read", &path))?);
    }
    let day = Timestamp::try_from(newest).map_err(|why| Error::invalid(folder, format!("its files' dates: {why}")))?;
    Ok(day.strftime("%Y-%m-%d").to_string())
}

/// A scan and its mask.
struct Pair {
    site: String,
    key: String,
    scan: PathBuf,
    mask: PathBuf,
}

/// Refuses classes, or ids of them, that no mask holds.
fn check_held(folder: &Path, settings: &Settings, held: &BTreeSet<u32>) -> Result<()> {
    let missing = |id: &u32| !held.contains(id);
    let lost = match &settings.label_ids {
        Some(ids) => ids
            .ids()
            .find(missing)
            .map(|id| format!("{id}, which --label-ids names; name the ids that are there")),
        None => (1..)
            .zip(&settings.classes)
            .find(|(label, _)| missing(label))
            .map(|(label, class)| format!("{label}, which --classes calls '{class}'; name the classes that are there")),
    };
    match lost {
        Some(lost) => Err(Error::invalid(folder, format!("no mask in it holds the label {lost}"))),
        None => Ok(()),
    }
}

impl Pair {
    /// The case, and which labels its mask holds.
    fn case(&self, folder: &Path, settings: &Settings) -> Result<(Case, BTreeSet<u32>)> {
        let (image, scan) = read_file(folder, &self.scan)?;
        let (label, labels) = read_file(folder, &self.mask)?;
        let (held, ids, classes) = (held(&labels), &settings.label_ids, settings.classes.len());
        labels_of(&self.scan, &scan, &self.mask, labels, ids.as_ref())?;
        let unnamed = held
            .last()
            .filter(|&&highest| ids.is_none() && highest as usize > classes);
        if let Some(highest) = unnamed {
            let why = format!(
                "it holds the label {highest}, and {classes} classes were named; name them all, or say by --label-ids which \
                 labels make which class"
            );
            return Err(Error::invalid(&self.mask, why));
        }
        let case = Case {
            id: format!("{}_{}", self.site, self.key),
            site: self.site.clone(),
            train: true,
            slices: scan.axial().dims[0],
            image,
            label,
            patient: None,
            crop: None,
            label_ids: settings.label_ids.clone(),
        };
        Ok((case, held))
    }
}

fn read_file(folder: &Path, path: &Path) -> Result<(DataFile, Volume)> {
    let bytes = read(path)?;
    let relative = path.strip_prefix(folder).unwrap_or(path);
    let relative = relative
        .to_str()
        .ok_or_else(|| Error::invalid(path, "its name is not UTF-8; rename it"))?;
    let volume = volume_of(path, &bytes, None, None, &Preprocessing::default(), Content::Scan)?;
    Ok((DataFile::new(relative.to_owned(), &bytes), volume))
}

/// Every NIfTI file by the folder in which it lies, directly or deeper; hidden ones count for nothing.
fn files_by_site(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut sites: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in files_below(folder)?.into_iter().filter(|path| stem(path).is_some()) {
        let mut names = Vec::new();
        for part in path.strip_prefix(folder).unwrap_or(&path).components() {
            let name = part.as_os_str().to_str();
            names.push(name.ok_or_else(|| Error::invalid(&path, "its name is not UTF-8; rename it"))?);
        }
        let hidden = names.iter().any(|name| name.starts_with('.'));
        if let [site, _, ..] = names[..]
            && !hidden
        {
            sites.entry(site.to_owned()).or_default().push(path);
        }
    }
    Ok(sites)
}

/// A NIfTI file's name without its endings.
fn stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_suffix(".gz").unwrap_or(&lower);
    let stem = &name[..lower.strip_suffix(".nii")?.len()];
    (!stem.starts_with('.')).then_some(stem)
}

/// What the files of one case have in common, and whether this one is its mask.
fn classify(site: &Path, path: &Path) -> (String, bool) {
    let is = |words: &[&str], word: &str| words.contains(&word.to_lowercase().as_str());
    let (mut mask, mut numbered) = (false, false);
    let mut parts = Vec::new();
    let folders = path
        .strip_prefix(site)
        .ok()
        .and_then(Path::parent)
        .into_iter()
        .flat_map(Path::components);
    for folder in folders {
        let folder = folder.as_os_str().to_string_lossy().into_owned();
        mask |= is(&MASK, &folder);
        // nnU-Net's folders of scans, in which a name ends in the number of its channel.
        numbered |= is(&["imagestr", "imagests"], &folder);
        if !is(&MASK, &folder) && !is(&SCAN, &folder) {
            parts.push(folder);
        }
    }
    let stem = stem(path).unwrap_or_default();
    let cut = stem.rfind(['_', '-', '.']).map_or(0, |at| at + 1);
    let (rest, last) = stem.split_at(cut);
    mask |= is(&MASK, last);
    parts.push(match is(&MASK, last) || is(&SCAN, last) || numbered && last == "0000" {
        true => rest.trim_end_matches(['_', '-', '.']).to_owned(),
        false => stem.to_owned(),
    });
    parts.retain(|part| !part.is_empty());
    (parts.join("_"), mask)
}

fn pairs_of(folder: &Path, site: &str, files: Vec<PathBuf>, skip_unpaired: bool) -> Result<Vec<Pair>> {
    let home = folder.join(site);
    let mut by_key: BTreeMap<String, [Vec<PathBuf>; 2]> = BTreeMap::new();
    for path in files {
        let (key, mask) = classify(&home, &path);
        by_key.entry(key).or_default()[usize::from(mask)].push(path);
    }
    let mut pairs = Vec::new();
    for (key, [mut scans, mut masks]) in by_key {
        match (scans.len(), masks.len()) {
            (1, 1) => pairs.push(Pair {
                site: site.to_owned(),
                key,
                scan: scans.remove(0),
                mask: masks.remove(0),
            }),
            _ if skip_unpaired => {}
            (scan_count, mask_count) => {
                let first = scans.first().or(masks.first()).unwrap_or(&home);
                let why = format!(
                    "of its case '{key}' there are {scan_count} scans and {mask_count} masks instead of one each; name \
                     them x.nii.gz and x_mask.nii.gz, or pass --skip-unpaired"
                );
                return Err(Error::invalid(first, why));
            }
        }
    }
    Ok(pairs)
}

/// Of each site, a share for testing, chosen by the seed: at least one case if there are two, and never all.
fn split(cases: &mut [Case], settings: &Settings) {
    let sites: BTreeSet<String> = cases.iter().map(|case| case.site.clone()).collect();
    for site in sites {
        let mut own: Vec<&mut Case> = cases.iter_mut().filter(|case| case.site == site).collect();
        Random::new(settings.seed, &format!("split/{site}")).shuffle(&mut own);
        let wanted = (settings.test_share * own.len() as f64).round() as usize;
        let most = own.len() - 1;
        let test = wanted.max(usize::from(settings.test_share > 0.0)).min(most);
        own.iter_mut().take(test).for_each(|case| case.train = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_and_masks_find_each_other() {
        let site = Path::new("/data/set/A");
        let key = |path: &str| classify(site, &site.join(path));
        let pairs = [
            ("p1.nii.gz", "p1_mask.nii.gz"),
            ("p1_image.nii", "p1_Segmentation.nii.gz"),
            ("p1/imaging.nii.gz", "p1/segmentation.nii.gz"),
            ("images/p1.nii.gz", "labels/p1.nii.gz"),
            ("imagesTr/p1_0000.nii.gz", "labelsTr/p1.nii.gz"),
            ("p1-ct.nii.gz", "p1-ct-seg.nii.gz"),
            ("case_0000.nii.gz", "case_0000_mask.nii.gz"),
            ("P1.NII.GZ", "P1_mask.nii.gz"),
        ];
        for (scan, mask) in pairs {
            let (scan, mask) = (key(scan), key(mask));
            assert_eq!(scan.0, mask.0);
            assert_eq!((scan.1, mask.1), (false, true), "{}", scan.0);
        }
        assert_ne!(key("p1.nii.gz").0, key("p2.nii.gz").0);
    }
}
