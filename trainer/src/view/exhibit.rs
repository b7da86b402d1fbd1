//! What the page shows: its own files, `run.json`, and the run's files under addresses of our own making.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::{base_sha256, read_safetensors, sha256};
use flapsam_model::method::Method;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Packing;
use serde::Serialize;

use crate::data::cases::dataset::read_pair;
use crate::data::cases::lock::ready;
use crate::data::manifest::{Case, DataFile, Manifest};
use crate::error::{Error, Result};
use crate::experiment::{ADAPTER, CaseScores, Setting, adapter_of};
use crate::files::{create_folder, files_in, read, sha256_file, write};
use crate::report::RunFolder;

/// Where everything is that a page is made of.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// Folder of data sets, each in a folder of its own name.
    pub data: PathBuf,
    /// The base checkpoint.
    pub base: PathBuf,
    /// The page's own files, as `viewer/build.sh` leaves them.
    pub page: PathBuf,
}

/// What the page reads first.
const RUN: &str = "run.json";

/// A file under an address.
#[derive(Debug, Clone)]
pub enum Content {
    /// Of the page or of the run. Its sha256, if it is known.
    File { path: PathBuf, sha256: Option<String> },
    /// Made here.
    Bytes(Vec<u8>),
}

/// A run as the page shows it.
#[derive(Debug, Clone)]
pub struct Exhibit {
    /// By address, without the first slash.
    pub contents: BTreeMap<String, Content>,
}

/// `run.json`. Addresses are relative to the page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    name: &'a str,
    title: &'a str,
    data: &'a str,
    data_description: &'a str,
    method: Method,
    setting: Setting,
    seed: u64,
    /// What the native predictions were computed on.
    device: &'a str,
    program: &'a str,
    /// Background first.
    classes: &'a [String],
    resample: Option<[usize; 3]>,
    spacing_mm: Option<[f64; 3]>,
    /// The range of values that the network sees, if it is the same for all scans.
    clip: Option<[f32; 2]>,
    /// The sites that a new scan may be of, if each has intensities of its own.
    sites: Vec<&'a str>,
    base: Linked,
    /// One, or each client's where they differ.
    adapters: Vec<OfSite>,
    /// The runs beside it: what each case's `beside` is of, in this order.
    beside: Vec<Beside<'a>>,
    cases: Vec<Shown<'a>>,
}

/// A run beside the one that is shown.
#[derive(Debug, Serialize)]
struct Beside<'a> {
    name: &'a str,
    title: &'a str,
}

/// What it made of a case.
#[derive(Debug, Serialize)]
struct OfBeside<'a> {
    /// By foreground class.
    dice: &'a [f64],
    prediction: Linked,
}

/// An adapter, and the site whose own it is, where there are several.
#[derive(Debug, Serialize)]
struct OfSite {
    site: Option<String>,
    #[serde(flatten)]
    file: Linked,
}

/// A file that the page fetches and checks.
#[derive(Debug, Serialize)]
struct Linked {
    path: String,
    sha256: String,
    bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    site: &'a str,
    id: &'a str,
    /// By foreground class: of the native prediction, or, of clients alone, the mean over their models.
    dice: &'a [f64],
    /// Likewise; nothing where it was not measured.
    surface_dice: &'a [f64],
    #[serde(rename = "hausdorff95Mm")]
    hausdorff_95_mm: &'a [Option<f64>],
    image: Linked,
    truth: Linked,
    /// None if the run did not keep its masks.
    prediction: Option<Linked>,
    /// What each run beside made of it; none where it kept no mask.
    beside: Vec<Option<OfBeside<'a>>>,
}

impl Exhibit {
    /// Gathers a run's files and the page's. Every checksum is taken from the run and its data set where they have one,
    /// so that the page finds out if a file has changed since.
    ///
    /// # Errors
    /// The data set or the base are not those of the run, a run beside is on other data or classes, a file is missing, or the
    /// page has not been built.
    pub fn gather(run: &RunFolder, beside: &[RunFolder], place: &Place) -> Result<Self> {
        let mut exhibit = Self {
            contents: page_files(&place.page)?,
        };
        let manifest_path = place.manifests.join(format!("{}.json", run.record.data));
        let manifest = run.settings.divided(ready(&manifest_path, &place.data)?)?;
        if manifest.sha256 != run.provenance.data_sha256 {
            let why = format!(
                "the data set is not the one of the run: its table's sha256 is {}, not {}; make the run once more",
                manifest.sha256, run.provenance.data_sha256
            );
            return Err(Error::invalid(&manifest_path, why));
        }
        beside.iter().try_for_each(|other| check_comparable(run, other))?;
        let metadata = run.adapter.as_ref().map_err(|why| Error::invalid(&run.path, why))?;
        let base = exhibit.base(&place.base, &run.provenance.base_sha256)?;
        let adapters = exhibit.adapters(run)?;
        let own_windows = metadata.preprocessing.sites.keys().map(String::as_str);
        let sites: Vec<&str> = match adapters.len() {
            1 => own_windows.collect(),
            // A new scan is segmented by one of the clients' own.
            _ => run.record.weights.keys().map(String::as_str).collect(),
        };
        let cases = run.record.cases.iter().enumerate();
        let cases = cases.map(|(index, scores)| {
            let case = exhibit.case(index, scores, run, &manifest, place)?;
            let others = beside.iter().enumerate();
            let others = others.map(|(other, run)| exhibit.of_beside(index, other, scores, run));
            Ok(Shown {
                beside: others.collect::<Result<_>>()?,
                ..case
            })
        });
        let page = Run {
            cases: cases.collect::<Result<_>>()?,
            name: &run.name,
            title: &run.record.title,
            data: &run.record.data,
            data_description: &run.record.data_description,
            method: run.record.method,
            setting: run.record.setting,
            seed: run.record.seed,
            device: &run.provenance.device,
            program: &run.provenance.program,
            classes: &run.record.classes,
            resample: metadata.preprocessing.resample,
            spacing_mm: metadata.preprocessing.spacing_mm,
            clip: metadata.preprocessing.clip,
            sites,
            base,
            adapters,
            beside: beside.iter().map(Beside::of).collect(),
        };
        let text = serde_json::to_vec_pretty(&page).map_err(|why| Error::invalid(&run.path, why))?;
        exhibit.contents.insert(RUN.into(), Content::Bytes(text));
        Ok(exhibit)
    }

    /// Writes everything into a folder that any web host can serve: a new one, or one that an earlier export left.
    ///
    /// # Errors
    /// The folder holds something else, or a file cannot be read or written.
    pub fn export(&self, folder: &Path) -> Result<()> {
        let taken = folder.is_dir() && !files_in(folder)?.is_empty() && !folder.join(RUN).is_file();
        if taken {
            let why = "it holds other files than an export of this program; choose an empty folder, or a new one";
            return Err(Error::invalid(folder, why));
        }
        for (address, content) in &self.contents {
            let target = folder.join(address);
            match content {
                Content::Bytes(bytes) => write(&target, bytes)?,
                Content::File { path, .. } => {
                    create_folder(target.parent().unwrap_or(folder))?;
                    fs::copy(path, &target).map_err(Error::file("copy", path))?;
                }
            }
        }
        Ok(())
    }

    /// The run's adapter, or each client's own.
    fn adapters(&mut self, run: &RunFolder) -> Result<Vec<OfSite>> {
        let shared = run.path.join(ADAPTER);
        if shared.is_file() {
            let file = self.link("files/adapter.safetensors", &shared, None)?;
            return Ok(vec![OfSite { site: None, file }]);
        }
        // Numbered: the names of sites may hold anything.
        let of_site = |(index, site): (usize, &String)| {
            let path = run.path.join(adapter_of(site));
            let file = self.link(&format!("files/adapters/{index}.safetensors"), &path, None)?;
            Ok(OfSite {
                site: Some(site.clone()),
                file,
            })
        };
        run.record.weights.keys().enumerate().map(of_site).collect()
    }

    /// The run's base checkpoint as a safetensors file, or that in half precision.
    fn base(&mut self, path: &Path, wanted: &str) -> Result<Linked> {
        let bytes = read(path)?;
        let (_, notes) = read_safetensors(&bytes).map_err(Error::content(path))?;
        let own = sha256(&bytes);
        if base_sha256(&notes, || own.clone()) != wanted {
            let why = format!(
                "it is not the base checkpoint of the run, whose sha256 is {wanted}; pass that one as --base, or what \
                 'flapsam export --format base-f16' makes of it"
            );
            return Err(Error::invalid(path, why));
        }
        self.link("files/base.safetensors", path, Some(own))
    }

    fn case<'a>(
        &mut self,
        index: usize,
        scores: &'a CaseScores,
        run: &RunFolder,
        manifest: &Manifest,
        place: &Place,
    ) -> Result<Shown<'a>> {
        let case = find(manifest, scores, &place.manifests)?;
        let folder = place.data.join(&manifest.about.name);
        // Numbered: the names of sites and cases may hold anything.
        let address = |what: &str, path: &str| {
            let packed = if path.ends_with(".gz") { ".gz" } else { "" };
            format!("files/cases/{index}/{what}.nii{packed}")
        };
        let mut of_data = |what, file: &DataFile| {
            let path = folder.join(&file.path);
            self.link(&address(what, &file.path), &path, file.sha256.clone())
        };
        let (image, truth) = match case.crop.is_some() || case.label_ids.is_some() {
            false => (of_data("image", &case.image)?, of_data("truth", &case.label)?),
            // What the network saw of the files: the box alone, at its own place, and classes instead of label ids.
            true => {
                let (scan, labels) = read_pair(&folder, case, manifest.classes.len(), &Preprocessing::default())?;
                let classes: Vec<u8> = labels.voxels.iter().map(|&class| class as u8).collect();
                let image = match case.crop {
                    Some(_) => self.put(&address("image", ".gz"), scan.to_nifti_f32()),
                    None => of_data("image", &case.image)?,
                };
                let truth = labels.mask_to_nifti(&classes, Packing::Gzip);
                (image, self.put(&address("truth", ".gz"), truth))
            }
        };
        let mask = run.prediction(&scores.site, &scores.case);
        let prediction = match mask.is_file() {
            true => Some(self.link(&address("prediction", ".gz"), &mask, None)?),
            false => None,
        };
        Ok(Shown {
            site: &scores.site,
            id: &scores.case,
            dice: &scores.dice,
            surface_dice: &scores.surface_dice,
            hausdorff_95_mm: &scores.hausdorff_95_mm,
            image,
            truth,
            prediction,
            beside: Vec::new(),
        })
    }

    /// What a run beside, the `other`, made of a case.
    fn of_beside<'a>(
        &mut self,
        index: usize,
        other: usize,
        scores: &CaseScores,
        run: &'a RunFolder,
    ) -> Result<Option<OfBeside<'a>>> {
        let mask = run.prediction(&scores.site, &scores.case);
        let same = |own: &&CaseScores| own.site == scores.site && own.case == scores.case;
        let Some(own) = run.record.cases.iter().find(same).filter(|_| mask.is_file()) else {
            return Ok(None);
        };
        let prediction = self.link(&format!("files/cases/{index}/beside-{other}.nii.gz"), &mask, None)?;
        Ok(Some(OfBeside {
            dice: &own.dice,
            prediction,
        }))
    }

    /// Puts bytes under an address.
    fn put(&mut self, address: &str, bytes: Vec<u8>) -> Linked {
        let linked = Linked {
            path: address.to_owned(),
            sha256: sha256(&bytes),
            bytes: bytes.len() as u64,
        };
        self.contents.insert(address.to_owned(), Content::Bytes(bytes));
        linked
    }

    /// Puts a file under an address.
    fn link(&mut self, address: &str, path: &Path, sha256: Option<String>) -> Result<Linked> {
        let bytes = fs::metadata(path).map_err(Error::file("read", path))?.len();
        let sha256 = match sha256 {
            Some(known) => known,
            None => sha256_file(path)?,
        };
        let content = Content::File {
            path: path.to_owned(),
            sha256: Some(sha256.clone()),
        };
        self.contents.insert(address.to_owned(), content);
        Ok(Linked {
            path: address.to_owned(),
            sha256,
            bytes,
        })
    }
}

impl<'a> Beside<'a> {
    fn of(run: &'a RunFolder) -> Self {
        Self {
            name: &run.name,
            title: &run.record.title,
        }
    }
}

/// Refuses runs whose masks say different things: of other data, or of other classes.
fn check_comparable(run: &RunFolder, other: &RunFolder) -> Result<()> {
    let differs = match () {
        () if run.provenance.data_sha256 != other.provenance.data_sha256 => "data",
        () if run.record.classes != other.record.classes => "classes",
        () => return Ok(()),
    };
    let why = format!(
        "its {differs} are not those of {}, beside which it is to be shown",
        run.path.display()
    );
    Err(Error::invalid(&other.path, why))
}

fn find<'a>(manifest: &'a Manifest, scores: &CaseScores, manifests: &Path) -> Result<&'a Case> {
    let mut cases = manifest.cases.iter();
    let found = cases.find(|case| case.id == scores.case && case.site == scores.site);
    found.ok_or_else(|| {
        let path = manifests.join(format!("{}.json", manifest.about.name));
        let (case, site) = (&scores.case, &scores.site);
        Error::invalid(
            &path,
            format!("it has no case '{case}' of site '{site}'; make the run once more"),
        )
    })
}

/// The page's own files by address.
fn page_files(folder: &Path) -> Result<BTreeMap<String, Content>> {
    let mut found = BTreeMap::new();
    if !folder.join("index.html").is_file() {
        let why = "the page has not been built (there is no index.html); run 'bash viewer/build.sh', or pass --page";
        return Err(Error::invalid(folder, why));
    }
    collect(folder, "", &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, below: &str, found: &mut BTreeMap<String, Content>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    for entry in entries {
        let path = entry.map_err(Error::file("read the folder", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link could lead out of the page.
        if path.is_symlink() {
            continue;
        }
        match path.is_dir() {
            true => collect(&path, &format!("{below}{name}/"), found)?,
            false => {
                found.insert(format!("{below}{name}"), Content::File { path, sha256: None });
            }
        }
    }
    Ok(())
}
