//! Manifests: what a data set consists of, with the checksum of every file (Croissant JSON-LD).

pub mod croissant;
pub mod label_ids;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use flapsam_model::checkpoint::sha256;
use flapsam_model::volume::VoxelBox;

use crate::error::{Error, Result};
use crate::files::{read, write};
use croissant::{About, Document, FileObject, FileSet, RecordSet, Resource};
use label_ids::LabelIds;
use table::{columns, read_table};
pub use table::{parse_cases, table};

/// One case of a data set: a row of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// The client that holds it.
    pub site: String,
    /// Whether it is for training.
    pub train: bool,
    /// Axial slices; 0 where only the files can tell.
    pub slices: usize,
    /// The scan, relative to the data set's folder.
    pub image: DataFile,
    /// Its labels.
    pub label: DataFile,
    /// Of whom it is, where the table says so.
    pub patient: Option<String>,
    /// The part of both files that it is; all without it.
    pub crop: Option<VoxelBox>,
    /// What of the labels' numbers makes which class; without it a number is a class's own.
    pub label_ids: Option<LabelIds>,
}

impl Case {
    /// Whether it stands for all further cases of its pattern: `{case}` in its name is what tells them apart.
    pub fn is_template(&self) -> bool {
        self.image.sha256.is_none() && self.id.contains(CASE)
    }
}

/// What stands for the part of the name that tells a template's cases apart.
pub const CASE: &str = "{case}";

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the data set's folder. Where the source does not say what its files are called, a pattern: `*` and
    /// `?` as in a shell, and `{case}` for what tells a site's further cases apart.
    pub path: String,
    /// Lower-case hexadecimal; `None` where nobody has published one.
    pub sha256: Option<String>,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
    /// From where it is fetched, where it has an address of its own.
    pub url: Option<String>,
}

impl DataFile {
    /// A file of these bytes.
    pub fn new(path: String, bytes: &[u8]) -> Self {
        Self {
            path,
            sha256: Some(sha256(bytes)),
            bytes: Some(bytes.len() as u64),
            url: None,
        }
    }

    /// Whether its path is a pattern: never that of a file whose checksum is known, whatever its name holds.
    pub fn is_pattern(&self) -> bool {
        self.sha256.is_none() && self.path.contains(['*', '?', '{'])
    }

    /// Writes a file into the data set's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(folder: &Path, path: String, bytes: &[u8]) -> Result<Self> {
        write(&folder.join(&path), bytes)?;
        Ok(Self::new(path, bytes))
    }
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its name, what it is, its licence, where it is from.
    pub about: About,
    /// Single files, such as checkpoints.
    pub files: Vec<FileObject>,
    /// What the cases' files are.
    pub sets: Vec<FileSet>,
    /// From where the cases' files are fetched that have no address of their own.
    pub sources: Vec<Source>,
    /// Where sites differ in it: what each one's files are, under which licence, and whom to credit.
    pub origins: Vec<Origin>,
    /// Names of the classes, background first.
    pub classes: Vec<String>,
    /// All cases.
    pub cases: Vec<Case>,
    /// sha256 of the cases' table, which holds the checksum of every file: it stands for the whole data set.
    pub sha256: String,
}

/// From where a site's files are, and how they may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The site.
    pub site: String,
    /// What its scans and labels are.
    pub source: String,
    /// The licence's address.
    pub licence: String,
    /// Whom to name.
    pub credit: String,
}

/// From where files are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Which files.
    pub part: Part,
    /// Their address; `{case_id}` in it stands for the case's name.
    pub url: String,
}

/// Which files a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every case's scan.
    Image,
    /// Every case's labels.
    Label,
    /// A ZIP archive of all.
    Archive,
}

impl Part {
    const ALL: [Self; 3] = [Self::Image, Self::Label, Self::Archive];

    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Label => "label",
            Self::Archive => "archive",
        }
    }
}

impl Manifest {
    /// Reads `NAME.json` and the table of cases beside it.
    ///
    /// # Errors
    /// A file is missing or is no manifest, or the table is not the one whose checksum the manifest holds.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(path, &read(path)?, |table| read_table(path, table))
    }

    /// The manifest in the bytes that were read from `path`; `table` reads the cases that it names.
    ///
    /// # Errors
    /// They are no manifest, or what `table` says.
    pub fn parse(path: &Path, bytes: &[u8], table: impl FnOnce(&FileObject) -> Result<Vec<Case>>) -> Result<Self> {
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|why| Error::invalid(path, format!("{why}; restore the manifest from the repository")))?;
        let mut files = Vec::new();
        let mut sets = Vec::new();
        for resource in document.distribution {
            match resource {
                Resource::File(file) => files.push(file),
                Resource::Set(set) => sets.push(set),
            }
        }
        let record_set = |id: &str| document.record_sets.iter().find(|set| set.id == id);
        let (cases, classes, sha256) = match files.iter().position(FileObject::is_cases) {
            Some(place) => {
                let classes = record_set("class").and_then(|set| set.column("name")).ok_or_else(|| {
                    let why = "it has no record set 'class' that names the classes; restore the manifest from the \
                               repository";
                    Error::invalid(path, why)
                })?;
                let file = files.remove(place);
                (table(&file)?, classes, file.sha256)
            }
            None => (Vec::new(), Vec::new(), sha256(bytes)),
        };
        let names = std::iter::once(&document.about.name).chain(files.iter().map(|file| &file.id));
        if let Some(name) = names.into_iter().find(|name| !is_plain_name(name)) {
            let why = format!("'{name}' cannot be the name of a file or folder; restore the manifest from its source");
            return Err(Error::invalid(path, why));
        }
        if !cases.is_empty() {
            check_classes(&classes).map_err(|why| Error::invalid(path, why))?;
            check_label_ids(&cases, &classes).map_err(|why| Error::invalid(path, why))?;
        }
        let sources = match record_set("source") {
            Some(set) => sources(set).map_err(|why| Error::invalid(path, why))?,
            None => Vec::new(),
        };
        Ok(Self {
            origins: record_set("site").map(origins).unwrap_or_default(),
            about: document.about,
            files,
            sets,
            sources,
            classes,
            cases,
            sha256,
        })
    }

    /// The manifest and its table of cases, as files' contents.
    pub fn to_files(&self) -> (String, String) {
        let table = table(&self.cases);
        let document = self.document(&sha256(table.as_bytes()));
        let mut text = serde_json::to_string_pretty(&document).expect("a manifest is plain text and numbers");
        text.push('\n');
        (text, table)
    }

    /// The document of the data set. With cases, their table is `NAME.csv` of this checksum.
    fn document(&self, table_sha256: &str) -> Document {
        let mut distribution = Vec::new();
        let mut record_sets = Vec::new();
        if !self.cases.is_empty() {
            distribution.push(Resource::File(FileObject::cases(&self.about.name, table_sha256)));
            let sites: BTreeSet<&str> = self.cases.iter().map(|case| case.site.as_str()).collect();
            let classes = self.classes.iter().map(String::as_str);
            record_sets.extend([
                RecordSet::cases(&columns(&self.cases)),
                self.site_set(sites),
                RecordSet::of_names("split", "What a case is for.", Some("cr:Split"), ["train", "test"]),
                RecordSet::of_names("class", "What the labels mean, counted from 0.", None, classes),
            ]);
        }
        distribution.extend(self.files.iter().cloned().map(Resource::File));
        distribution.extend(self.sets.iter().cloned().map(Resource::Set));
        if !self.sources.is_empty() {
            let description = "From where the files are fetched. {case_id} stands for a case's name; of an archive, no \
                               checksum is published.";
            let rows = self.sources.iter();
            let rows = rows.map(|source| [source.part.name(), source.url.as_str()]);
            record_sets.push(RecordSet::inline("source", description, ["part", "url"], rows));
        }
        Document::new(self.about.clone(), distribution, record_sets)
    }

    /// The sites, and where they differ in it, what their files are.
    fn site_set(&self, sites: BTreeSet<&str>) -> RecordSet {
        let description = "The clients of the federation.";
        if self.origins.is_empty() {
            return RecordSet::of_names("site", description, None, sites);
        }
        let rows = self.origins.iter();
        let rows =
            rows.map(|origin| [&origin.site, &origin.source, &origin.licence, &origin.credit].map(String::as_str));
        RecordSet::inline("site", description, ORIGIN, rows)
    }

    /// Writes `NAME.json` and `NAME.csv` into a folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (document, table) = self.to_files();
        if !self.cases.is_empty() {
            write(&folder.join(format!("{}.csv", self.about.name)), table.as_bytes())?;
        }
        write(&folder.join(format!("{}.json", self.about.name)), document.as_bytes())
    }

    /// Every file once: the single ones, and the cases' scans and labels, of which several cases may share one.
    pub fn data_files(&self) -> Vec<DataFile> {
        let single = self.files.iter().map(|file| DataFile {
            path: file.id.clone(),
            sha256: Some(file.sha256.clone()),
            bytes: file.bytes(),
            url: Some(file.content_url.clone()),
        });
        let cases = self
            .cases
            .iter()
            .flat_map(|case| [case.image.clone(), case.label.clone()]);
        let mut seen = BTreeSet::new();
        single
            .chain(cases)
            .filter(|file| seen.insert(file.path.clone()))
            .collect()
    }

    /// Whether a site has cases for testing.
    pub fn tests(&self, site: &str) -> bool {
        self.cases.iter().any(|case| !case.train && case.site == site)
    }

    /// Each site's share of the training slices, by the site's name.
    pub fn slice_shares(&self) -> BTreeMap<String, f64> {
        let mut slices: BTreeMap<String, usize> = BTreeMap::new();
        for case in self.cases.iter().filter(|case| case.train) {
            *slices.entry(case.site.clone()).or_default() += case.slices;
        }
        let total: usize = slices.values().sum();
        slices
            .into_iter()
            .map(|(site, count)| (site, count as f64 / total as f64))
            .collect()
    }
}

/// The columns of the record set of sites, where these differ in what their files are.
const ORIGIN: [&str; 4] = ["name", "source", "licence", "credit"];

/// What is said of the sites' files; nothing where only names are.
fn origins(set: &RecordSet) -> Vec<Origin> {
    let [sites, sources, licences, credits] = ORIGIN.map(|column| set.column(column).unwrap_or_default());
    let rows = sites.into_iter().zip(sources).zip(licences).zip(credits);
    let origin = |(((site, source), licence), credit)| Origin {
        site,
        source,
        licence,
        credit,
    };
    rows.map(origin).collect()
}

fn sources(set: &RecordSet) -> std::result::Result<Vec<Source>, String> {
    let wanted = "the record set 'source' must have the columns 'part' (image, label or archive) and 'url'";
    let columns = set.column("part").zip(set.column("url"));
    let (parts, urls) = columns.ok_or(wanted)?;
    let source = |(part, url): (String, String)| {
        let known = Part::ALL.into_iter().find(|known| known.name() == part);
        Ok(Source {
            part: known.ok_or(wanted)?,
            url,
        })
    };
    parts.into_iter().zip(urls).map(source).collect()
}

/// Refuses names of classes, the background's first, by which labels could not be told apart.
///
/// # Errors
/// There are too few or too many, one is empty, or two are the same; the message says what to do.
pub fn check_classes(classes: &[String]) -> std::result::Result<(), String> {
    // Labels are bytes, and the background is one of them.
    if !(2..=256).contains(&classes.len()) {
        return Err(format!(
            "it names {} classes; it must name 2 to 256, the background first",
            classes.len()
        ));
    }
    let mut seen = BTreeSet::new();
    for (label, class) in classes.iter().enumerate() {
        if class.trim().is_empty() || class.trim() != class || class.contains(char::is_control) {
            return Err(format!(
                "the class of label {label} has no name, or one with blanks around it ('{class}'); give it one"
            ));
        }
        if !seen.insert(class.to_lowercase()) {
            return Err(format!(
                "the class '{class}' is named twice; name each class once, the background (label 0) as the first"
            ));
        }
        if label > 0 && class.eq_ignore_ascii_case("background") {
            return Err(format!(
                "label {label} is called '{class}', and the background is label 0; leave it out"
            ));
        }
    }
    Ok(())
}

/// Refuses label ids of other classes than there are; `classes` are all names, the background's first.
fn check_label_ids(cases: &[Case], classes: &[String]) -> std::result::Result<(), String> {
    let own = &classes[1..];
    let ids = cases.iter().filter_map(|case| Some((case, case.label_ids.as_ref()?)));
    match ids.into_iter().find(|(_, ids)| ids.classes() != own.len()) {
        None => Ok(()),
        Some((case, ids)) => Err(format!(
            "the label ids '{ids}' of its case '{}' are of {} classes, and there are {} ({}); join the ids of one class by \
             +, and put a blank between classes",
            case.id,
            ids.classes(),
            own.len(),
            own.join(", ")
        )),
    }
}

/// Refuses cases that cannot be told apart, or that are for training and for testing at once.
///
/// # Errors
/// Two cases have the same name, by which files are called (capitals do not tell files apart on every disk), or a name
/// that no file can have; a patient or a scan is in both splits, a scan is of two patients, or a file has two checksums.
pub fn check_cases(path: &Path, cases: &[Case]) -> Result<()> {
    let mut known = Known::default();
    for case in cases {
        known.take_in(case).map_err(|why| Error::invalid(path, why))?;
    }
    Ok(())
}

/// What is known of the cases so far.
#[derive(Default)]
struct Known<'a> {
    /// Without capitals.
    names: BTreeSet<String>,
    /// Of files, by their paths.
    checksums: BTreeMap<&'a str, &'a str>,
    /// The first case of each scan, by the scan's path and checksum.
    scans: BTreeMap<&'a str, &'a Case>,
    /// The first case of each patient.
    patients: BTreeMap<String, &'a Case>,
}

impl<'a> Known<'a> {
    /// Takes in the next case, or says why it does not go with those before.
    fn take_in(&mut self, case: &'a Case) -> std::result::Result<(), String> {
        self.take_name(case)?;
        for file in [&case.image, &case.label] {
            self.take_checksum(case, file)?;
        }
        self.take_scan(case)?;
        self.take_patient(case)
    }

    fn take_name(&mut self, case: &Case) -> std::result::Result<(), String> {
        if let Some(name) = [&case.site, &case.id].into_iter().find(|name| !is_plain_name(name)) {
            return Err(format!(
                "'{name}' cannot be the name of a file or folder on this system; rename it"
            ));
        }
        match self.names.insert(case.id.to_lowercase()) {
            true => Ok(()),
            false => Err(format!(
                "two of its cases are called '{}'; give each a name of its own",
                case.id
            )),
        }
    }

    fn take_checksum(&mut self, case: &Case, file: &'a DataFile) -> std::result::Result<(), String> {
        let Some(sha256) = file.sha256.as_deref() else {
            return Ok(());
        };
        let known = *self.checksums.entry(&file.path).or_insert(sha256);
        match known == sha256 {
            true => Ok(()),
            false => Err(format!(
                "the file '{}' has two checksums, {known} and, at its case '{}', {sha256}; keep the one that it has",
                file.path, case.id
            )),
        }
    }

    fn take_scan(&mut self, case: &'a Case) -> std::result::Result<(), String> {
        // By its place, and by its content, where that is known.
        let scan = std::iter::once(case.image.path.as_str()).chain(case.image.sha256.as_deref());
        for key in scan {
            let twin = *self.scans.entry(key).or_insert(case);
            if twin.train != case.train {
                let (train, test) = sides(twin, case);
                return Err(format!(
                    "'{train}' for training and '{test}' for testing are the same scan ({key}); remove one of them"
                ));
            }
            if let (Some(one), Some(other)) = (&twin.patient, &case.patient)
                && one != other
            {
                return Err(format!(
                    "'{}' of the patient '{one}' and '{}' of '{other}' are the same scan ({key}); name its one patient",
                    twin.id, case.id
                ));
            }
        }
        Ok(())
    }

    fn take_patient(&mut self, case: &'a Case) -> std::result::Result<(), String> {
        let Some(patient) = &case.patient else {
            return Ok(());
        };
        let twin = *self.patients.entry(patient.trim().to_lowercase()).or_insert(case);
        if twin.train == case.train {
            return Ok(());
        }
        let (train, test) = sides(twin, case);
        Err(format!(
            "the patient '{patient}' is for training ('{train}') and for testing ('{test}'); keep all cases of a \
             patient in one split, or give two people two names"
        ))
    }
}

/// The names of two cases of different splits, the one for training first.
fn sides<'a>(one: &'a Case, other: &'a Case) -> (&'a str, &'a str) {
    match one.train {
        true => (&one.id, &other.id),
        false => (&other.id, &one.id),
    }
}

/// Whether a name of a manifest, which may be anybody's, can be that of one file here. Figures and tables have it in a line
/// of theirs, so it neither begins nor ends with a blank.
pub fn is_plain_name(name: &str) -> bool {
    let elsewhere = if cfg!(windows) { ":*?\"<>|" } else { "" };
    let forbidden =
        |character: char| character.is_control() || "/\\".contains(character) || elsewhere.contains(character);
    stays_inside(name)
        && Path::new(name).components().count() == 1
        && !name.contains(forbidden)
        && name.trim() == name
        && !name.starts_with('.')
}

/// Whether a path of a manifest, which may be anybody's, stays in the data set's folder.
fn stays_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}
