//! Manifests: what a data set consists of, with the checksum of every file (Croissant JSON-LD).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::croissant::{About, Document, FileSet, RecordSet, Resource};
use crate::error::{Error, Result};
use crate::files::{read, read_json, sha256_file, write};

/// One case of a data set: a row of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// The client that holds it.
    pub site: String,
    /// Whether it is for training.
    pub train: bool,
    /// Axial slices.
    pub slices: usize,
    /// The scan, relative to the data set's folder.
    pub image: DataFile,
    /// Its labels.
    pub label: DataFile,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the data set's folder.
    pub path: String,
    /// Lower-case hexadecimal; `None` where nobody has published one.
    pub sha256: Option<String>,
    /// Its size, where it is known.
    pub bytes: Option<u64>,
}

impl DataFile {
    /// Writes a file into the data set's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(folder: &Path, path: String, bytes: &[u8]) -> Result<Self> {
        write(&folder.join(&path), bytes)?;
        Ok(Self {
            path,
            sha256: Some(flapsam_model::checkpoint::sha256(bytes)),
            bytes: Some(bytes.len() as u64),
        })
    }
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its name, what it is, its licence, where it is from.
    pub about: About,
    /// What its files are.
    pub files: Vec<FileSet>,
    /// Names of the classes, background first.
    pub classes: Vec<String>,
    /// All cases.
    pub cases: Vec<Case>,
    /// sha256 of the cases' table, which holds the checksum of every file: it stands for the whole data set.
    pub sha256: String,
}

/// A row as the table has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    case_id: String,
    site: String,
    split: Split,
    slices: usize,
    image: String,
    image_sha256: Option<String>,
    image_bytes: Option<u64>,
    label: String,
    label_sha256: Option<String>,
    label_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Split {
    Train,
    Test,
}

impl Manifest {
    /// Reads `NAME.json` and the table of cases beside it.
    ///
    /// # Errors
    /// A file is missing or is no manifest, or the table is not the one whose checksum the manifest holds.
    pub fn read(path: &Path) -> Result<Self> {
        let document: Document = read_json(path)?;
        let table = document.distribution.iter().find_map(|resource| match resource {
            Resource::File {
                id,
                content_url,
                sha256,
                ..
            } if id == "cases" => Some((content_url, sha256)),
            _ => None,
        });
        let (table, expected) = table.ok_or_else(|| {
            let why = "its distribution has no file 'cases'; restore the manifest from the repository";
            Error::invalid(path, why)
        })?;
        let table_path = path.with_file_name(table);
        let bytes = read(&table_path)?;
        let found = flapsam_model::checkpoint::sha256(&bytes);
        if found != *expected {
            let why = format!(
                "its sha256 is {found}, the manifest {} says {expected}; restore it from the repository",
                path.display()
            );
            return Err(Error::invalid(&table_path, why));
        }
        let classes = document.record_sets.iter().find(|set| set.id == "class");
        let classes = classes.and_then(RecordSet::names).ok_or_else(|| {
            let why = "it has no record set 'class' that names the classes; restore the manifest from the repository";
            Error::invalid(path, why)
        })?;
        let files = document.distribution.iter().filter_map(|resource| match resource {
            Resource::Set(set) => Some(set.clone()),
            Resource::File { .. } => None,
        });
        Ok(Self {
            files: files.collect(),
            classes,
            cases: parse_cases(&table_path, &bytes)?,
            sha256: found,
            about: document.about,
        })
    }

    /// The manifest and its table of cases, as files' contents.
    pub fn to_files(&self) -> (String, String) {
        let table = self.table();
        let sha256 = flapsam_model::checkpoint::sha256(table.as_bytes());
        let mut sites: Vec<String> = self.cases.iter().map(|case| case.site.clone()).collect();
        sites.sort();
        sites.dedup();
        let document = Document::new(self.about.clone(), &self.files, &sites, &self.classes, &sha256);
        let mut text = serde_json::to_string_pretty(&document).expect("a manifest is plain text and numbers");
        text.push('\n');
        (text, table)
    }

    /// Writes `NAME.json` and `NAME.csv` into a folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (document, table) = self.to_files();
        write(&folder.join(format!("{}.csv", self.about.name)), table.as_bytes())?;
        write(&folder.join(format!("{}.json", self.about.name)), document.as_bytes())
    }

    fn table(&self) -> String {
        let mut table = csv::Writer::from_writer(Vec::new());
        for case in &self.cases {
            let (image, label) = (case.image.clone(), case.label.clone());
            let row = Row {
                case_id: case.id.clone(),
                site: case.site.clone(),
                split: if case.train { Split::Train } else { Split::Test },
                slices: case.slices,
                image: image.path,
                image_sha256: image.sha256,
                image_bytes: image.bytes,
                label: label.path,
                label_sha256: label.sha256,
                label_bytes: label.bytes,
            };
            table.serialize(row).expect("a row is plain text and numbers");
        }
        let bytes = table.into_inner().expect("memory takes every write");
        String::from_utf8(bytes).expect("rows are UTF-8")
    }

    /// Checks every file's bytes in a folder, where a checksum is known; returns what is wrong with each that is.
    ///
    /// # Errors
    /// A file cannot be read for another reason than being missing.
    pub fn check(&self, folder: &Path) -> Result<Vec<String>> {
        use rayon::prelude::*;
        let files: Vec<&DataFile> = self.cases.iter().flat_map(|case| [&case.image, &case.label]).collect();
        let verdicts = files.par_iter().map(|file| {
            let path = folder.join(&file.path);
            if !path.is_file() {
                return Ok(Some(format!("{} is missing", path.display())));
            }
            let Some(expected) = &file.sha256 else {
                return Ok(None);
            };
            let found = sha256_file(&path)?;
            Ok((found != *expected)
                .then(|| format!("{} has changed: its sha256 is {found}, not {expected}", path.display())))
        });
        let verdicts: Vec<Option<String>> = verdicts.collect::<Result<_>>()?;
        Ok(verdicts.into_iter().flatten().collect())
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

fn parse_cases(path: &Path, table: &[u8]) -> Result<Vec<Case>> {
    let case = |row: std::result::Result<Row, csv::Error>| {
        let row = row.map_err(|why| Error::invalid(path, why))?;
        Ok(Case {
            id: row.case_id,
            site: row.site,
            train: row.split == Split::Train,
            slices: row.slices,
            image: DataFile {
                path: row.image,
                sha256: row.image_sha256,
                bytes: row.image_bytes,
            },
            label: DataFile {
                path: row.label,
                sha256: row.label_sha256,
                bytes: row.label_bytes,
            },
        })
    };
    csv::Reader::from_reader(table).deserialize().map(case).collect()
}
