//! Manifests: what a data set consists of, with the checksum of every file (Croissant JSON-LD).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::{read, read_json, sha256_file, write};

/// One case of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub image: CheckedFile,
    /// Its labels.
    pub label: CheckedFile,
}

/// A file and its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedFile {
    /// Relative to the data set's folder.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl CheckedFile {
    /// Writes a file into the data set's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(folder: &Path, path: String, bytes: &[u8]) -> Result<Self> {
        write(&folder.join(&path), bytes)?;
        let sha256 = flapsam_model::checkpoint::sha256(bytes);
        Ok(Self { path, sha256 })
    }
}

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// What it is, and whether it is real.
    pub description: String,
    /// Names of the classes, background first.
    pub classes: Vec<String>,
    /// All cases.
    pub cases: Vec<Case>,
    /// sha256 of the cases' table, which holds the checksum of every file: it stands for the whole data set.
    pub sha256: String,
}

impl Manifest {
    /// Reads `NAME.json` and the table of cases beside it.
    ///
    /// # Errors
    /// A file is missing, or the table is not the one whose checksum the manifest holds.
    pub fn read(path: &Path) -> Result<Self> {
        let document: Value = read_json(path)?;
        let text = |value: &Value, key: &str| {
            let text = value[key].as_str().map(str::to_owned);
            text.ok_or_else(|| {
                Error::invalid(
                    path,
                    format!("it has no '{key}'; restore the manifest from the repository"),
                )
            })
        };
        let table = document["distribution"]
            .as_array()
            .and_then(|files| files.iter().find(|file| file["@id"] == "cases"))
            .ok_or_else(|| {
                Error::invalid(
                    path,
                    "its distribution has no file 'cases'; restore the manifest from the repository",
                )
            })?;
        let table_path = path.with_file_name(text(table, "contentUrl")?);
        let expected = text(table, "sha256")?;
        let bytes = read(&table_path)?;
        let found = flapsam_model::checkpoint::sha256(&bytes);
        if found != expected {
            let why = format!(
                "its sha256 is {found}, the manifest {} says {expected}; restore it from the repository",
                path.display()
            );
            return Err(Error::invalid(&table_path, why));
        }
        let cases = parse_cases(&table_path, &String::from_utf8_lossy(&bytes))?;
        let classes = text(&document, "flapsam:classes")?;
        Ok(Self {
            name: text(&document, "name")?,
            description: text(&document, "description")?,
            classes: classes.split(',').map(str::to_owned).collect(),
            cases,
            sha256: expected,
        })
    }

    /// The manifest and its table of cases, as files' contents.
    pub fn to_files(&self) -> (String, String) {
        let table = self.table();
        let sha256 = flapsam_model::checkpoint::sha256(table.as_bytes());
        let mut text = format!("{:#}", self.document(&sha256));
        text.push('\n');
        (text, table)
    }

    fn table(&self) -> String {
        let mut table = String::from("case_id,site,split,slices,image,image_sha256,label,label_sha256\n");
        for case in &self.cases {
            let split = if case.train { "train" } else { "test" };
            let row = [
                &case.id,
                &case.site,
                split,
                &case.slices.to_string(),
                &case.image.path,
                &case.image.sha256,
                &case.label.path,
                &case.label.sha256,
            ];
            table.push_str(&row.join(","));
            table.push('\n');
        }
        table
    }

    fn document(&self, sha256: &str) -> Value {
        let fields = ["case_id", "site", "split"].map(|column| {
            json!({
                "@type": "cr:Field",
                "@id": format!("case/{column}"),
                "name": column,
                "dataType": "sc:Text",
                "source": {"fileObject": {"@id": "cases"}, "extract": {"column": column}}
            })
        });
        json!({
            "@context": {
                "@language": "en",
                "@vocab": "https://schema.org/",
                "sc": "https://schema.org/",
                "cr": "http://mlcommons.org/croissant/",
                "dct": "http://purl.org/dc/terms/",
                "flapsam": "https://schema.org/additionalProperty#",
                "conformsTo": "dct:conformsTo",
                "data": {"@id": "cr:data", "@type": "@json"},
                "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
                "extract": "cr:extract",
                "field": "cr:field",
                "fileObject": "cr:fileObject",
                "column": "cr:column",
                "recordSet": "cr:recordSet",
                "source": "cr:source"
            },
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.1",
            "name": self.name,
            "description": self.description,
            "license": "https://creativecommons.org/publicdomain/zero/1.0/",
            "flapsam:classes": self.classes.join(","),
            "distribution": [{
                "@type": "cr:FileObject",
                "@id": "cases",
                "name": "cases",
                "description": "Every case with its site, split and the checksums of its files.",
                "contentUrl": format!("{}.csv", self.name),
                "encodingFormat": "text/csv",
                "sha256": sha256
            }],
            "recordSet": [{
                "@type": "cr:RecordSet",
                "@id": "case",
                "name": "case",
                "field": fields
            }]
        })
    }

    /// Checks every file's bytes in a folder; returns what is wrong with each that is.
    ///
    /// # Errors
    /// A file cannot be read for another reason than being missing.
    pub fn check(&self, folder: &Path) -> Result<Vec<String>> {
        use rayon::prelude::*;
        let files: Vec<&CheckedFile> = self.cases.iter().flat_map(|case| [&case.image, &case.label]).collect();
        let verdicts = files.par_iter().map(|file| {
            let path = folder.join(&file.path);
            if !path.is_file() {
                return Ok(Some(format!("{} is missing", path.display())));
            }
            let found = sha256_file(&path)?;
            Ok((found != file.sha256).then(|| {
                format!(
                    "{} has changed: its sha256 is {found}, not {}",
                    path.display(),
                    file.sha256
                )
            }))
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

fn parse_cases(path: &Path, table: &str) -> Result<Vec<Case>> {
    let row = |(number, line): (usize, &str)| {
        let fields: Vec<&str> = line.split(',').collect();
        let &[id, site, split, slices, image, image_sha256, label, label_sha256] = &fields[..] else {
            return Err(Error::invalid(
                path,
                format!("line {} has {} fields, not 8", number + 1, fields.len()),
            ));
        };
        let file = |path: &str, sha256: &str| CheckedFile {
            path: path.into(),
            sha256: sha256.into(),
        };
        let slices = slices
            .parse()
            .map_err(|_| Error::invalid(path, format!("line {}: '{slices}' is no number of slices", number + 1)))?;
        Ok(Case {
            id: id.into(),
            site: site.into(),
            train: split == "train",
            slices,
            image: file(image, image_sha256),
            label: file(label, label_sha256),
        })
    };
    table.lines().enumerate().skip(1).map(row).collect()
}
