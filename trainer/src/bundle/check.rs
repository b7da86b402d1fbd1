//! Whether a bundle holds what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use minisign_verify::{PublicKey, Signature};
use serde::Serialize;
use serde_json::Value;
use zip::ZipArchive;

use super::FIGURES;
use crate::error::{Error, Result};
use crate::experiment::{Provenance, Record, TRACE};
use crate::files::{enough_memory, read};
use crate::report::crate_metadata::CRATE_FILE;
use crate::verification::golden::{figures, to_text};

/// Something that was checked.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// What is wrong; nothing if it holds.
    pub flaws: Vec<String>,
}

/// A bundle's files, by their paths.
#[derive(Debug)]
pub struct Bundle(BTreeMap<String, Vec<u8>>);

/// A run in a bundle.
#[derive(Debug)]
pub struct Bundled<'a> {
    /// Its path from the bundle's root, without a `/` at its end.
    pub name: &'a str,
    /// Its settings.
    pub settings: &'a [u8],
    /// Its trace.
    pub trace: &'a [u8],
    /// Where it comes from.
    pub provenance: Provenance,
}

impl Bundle {
    /// Opens the bundle in a file's bytes.
    ///
    /// # Errors
    /// It is no zip of plain names, or has more in it than there is memory for.
    pub fn open(path: &Path, bytes: &[u8]) -> Result<Self> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::invalid(
                path,
                format!("it is no bundle ({why}); pass the zip that 'flapsam bundle' wrote"),
            )
        };
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|why| unreadable(&why))?;
        let mut claimed = 0u64;
        for index in 0..archive.len() {
            claimed = claimed.saturating_add(archive.by_index_raw(index).map_err(|why| unreadable(&why))?.size());
        }
        enough_memory(claimed).map_err(|why| Error::invalid(path, format!("unpacked {why}")))?;
        let mut files = BTreeMap::new();
        for index in 0..archive.len() {
            let file = archive.by_index(index).map_err(|why| unreadable(&why))?;
            let name = file.name().map_err(|why| unreadable(&why))?.into_owned();
            let size = file.size();
            if file.enclosed_name().is_none() || file.is_dir() {
                return Err(unreadable(&format!("'{name}' is no name of a file within it")));
            }
            let bytes = unpacked(file, size).map_err(|why| unreadable(&format!("{name}: {why}")))?;
            if files.insert(name.clone(), bytes).is_some() {
                return Err(unreadable(&format!("it holds '{name}' twice")));
            }
        }
        Ok(Self(files))
    }

    /// Holds every file against its checksum, and every run's figures and adapters against its record and trace.
    pub fn check(&self) -> Vec<Check> {
        let mut checks = vec![Check {
            what: "files and their checksums".into(),
            flaws: self.files(),
        }];
        let runs = self.names();
        checks.push(Check {
            what: format!("runs ({})", runs.len()),
            flaws: match runs.is_empty() {
                true => vec!["there is none".into()],
                false => Vec::new(),
            },
        });
        checks.extend(runs.into_iter().map(|name| Check {
            what: name.to_owned(),
            flaws: self.run_flaws(name),
        }));
        checks
    }

    /// The runs.
    ///
    /// # Errors
    /// One lacks its settings, trace or provenance.
    pub fn runs(&self) -> Result<Vec<Bundled<'_>>> {
        let run = |name| {
            let file = |file: &str| {
                let why = || Error::Message(format!("the bundle lacks {name}/{file}; make it anew"));
                self.0.get(&format!("{name}/{file}")).ok_or_else(why)
            };
            let provenance = file("provenance.json")?;
            Ok(Bundled {
                name,
                settings: file("config.toml")?,
                trace: file(TRACE)?,
                provenance: serde_json::from_slice(provenance)
                    .map_err(|why| Error::Message(format!("{name}/provenance.json: {why}; make the bundle anew")))?,
            })
        };
        self.names().into_iter().map(run).collect()
    }

    fn names(&self) -> Vec<&str> {
        let names = self.0.keys().filter_map(|path| path.strip_suffix("/metrics.json"));
        names.collect()
    }

    fn files(&self) -> Vec<String> {
        let description = self.0.get(CRATE_FILE);
        let description = description.and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
        let Some(description) = description else {
            return vec![format!("there is no readable {CRATE_FILE}")];
        };
        let entities = description["@graph"].as_array().cloned().unwrap_or_default();
        let mut listed = BTreeSet::from([CRATE_FILE.to_owned()]);
        let mut flaws = Vec::new();
        for entity in entities.iter().filter(|entity| entity["@type"] == "File") {
            let name = entity["name"].as_str().unwrap_or_default();
            listed.insert(name.to_owned());
            match self.0.get(name) {
                None => flaws.push(format!("{name} is not there")),
                Some(bytes) if entity["sha256"] != sha256(bytes).as_str() => flaws.push(format!("{name} was changed")),
                Some(_) => {}
            }
        }
        let extra = self.0.keys().filter(|name| !listed.contains(*name));
        flaws.extend(extra.map(|name| format!("{name} is not listed")));
        flaws
    }

    /// What of a run contradicts itself.
    fn run_flaws(&self, name: &str) -> Vec<String> {
        let file = |file: &str| self.0.get(&format!("{name}/{file}"));
        let mut flaws = Vec::new();
        let record = file("metrics.json").map(|bytes| serde_json::from_slice::<Record>(bytes));
        let provenance = file("provenance.json").map(|bytes| serde_json::from_slice::<Provenance>(bytes));
        match (record, provenance, file(FIGURES)) {
            (Some(Ok(record)), Some(Ok(provenance)), Some(text)) => {
                if to_text(&figures(&record, &provenance)).as_bytes() != text {
                    flaws.push(format!("{FIGURES} are not the figures of metrics.json"));
                }
            }
            _ => flaws.push(format!("metrics.json, provenance.json or {FIGURES} cannot be read")),
        }
        let trace = String::from_utf8_lossy(file(TRACE).map_or(&[], Vec::as_slice));
        let traced: BTreeMap<&str, &str> = trace.lines().filter_map(|line| line.rsplit_once(": ")).collect();
        let prefix = format!("{name}/");
        let own = self
            .0
            .iter()
            .filter_map(|(path, bytes)| Some((path.strip_prefix(&prefix)?, bytes)));
        for (path, bytes) in own.filter(|(path, _)| path.ends_with(".safetensors") || path.starts_with("predictions/"))
        {
            if traced.get(path) != Some(&sha256(bytes).as_str()) {
                flaws.push(format!("{path} is not what the trace says"));
            }
        }
        flaws
    }
}

/// Holds a bundle's bytes against the minisign signature beside it.
///
/// # Errors
/// The key cannot be read.
pub fn check_signature(bundle: &Path, bytes: &[u8], key: &Path) -> Result<Check> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Error::invalid(
            key,
            format!("it is no public key of minisign ({why}); pass the file that 'minisign -G' wrote"),
        )
    };
    let text = String::from_utf8(read(key)?).map_err(|why| unreadable(&why))?;
    let key = PublicKey::decode(&text)
        .or_else(|_| PublicKey::from_base64(text.trim()))
        .map_err(|why| unreadable(&why))?;
    let path = signature(bundle);
    let check = || -> std::result::Result<(), String> {
        let text = read(&path).map_err(|why| why.to_string())?;
        let signature = Signature::decode(&String::from_utf8_lossy(&text)).map_err(|why| why.to_string())?;
        key.verify(bytes, &signature, false).map_err(|why| why.to_string())
    };
    Ok(Check {
        what: format!("signature in {}", path.display()),
        flaws: check().err().into_iter().collect(),
    })
}

/// Reads at most so many bytes of a file of an archive.
fn unpacked(file: impl Read, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(std::io::Error::other("it is longer than it says")),
        false => Ok(bytes),
    }
}

/// Where a bundle's signature lies: beside it, as minisign writes it.
fn signature(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}
