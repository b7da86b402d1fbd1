//! RO-Crate 1.1, profile Process Run Crate 0.5: what folders of runs hold and how they came to be, as JSON-LD for archives
//! and their tools.
//!
//! A run's own description is written with the report and not by the run, so that it lists the report too, and so that old
//! runs can have one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::runs::RunFolder;
use crate::error::{Error, Result};
use crate::experiment::utc;
use crate::federation::CHECKPOINTS;
use crate::files::{sha256_file, write_json};

/// The file's name, which the standard sets.
pub const CRATE_FILE: &str = "ro-crate-metadata.json";

const CONTEXT: &str = "https://w3id.org/ro/crate/1.1/context";
const STANDARD: &str = "https://w3id.org/ro/crate/1.1";
const PROFILE: &str = "https://w3id.org/ro/wfrun/process/0.5";
/// Where Software Heritage has what it archived; a commit's address follows from the commit.
const ARCHIVE: &str = "https://archive.softwareheritage.org";

/// A file of a crate.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Relative to the crate's folder, with `/` between its parts.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum.
    pub sha256: String,
}

/// What a crate holds.
#[derive(Debug)]
pub struct Crate<'a> {
    /// Its name.
    pub name: String,
    /// What it is, in a sentence or two.
    pub description: String,
    /// Its runs, and where each lies: nothing, or a folder's path with a `/` at its end.
    pub runs: Vec<(String, &'a RunFolder)>,
    /// Its files.
    pub entries: &'a [Entry],
    /// Who made the runs.
    pub agent: Option<&'a str>,
}

/// Describes every file in a run's folder in `ro-crate-metadata.json` beside them, and says where that is.
///
/// # Errors
/// A file cannot be read, or the description not written.
pub fn write_crate(run: &RunFolder) -> Result<PathBuf> {
    let entry = |path: String| {
        let file = run.path.join(&path);
        Ok(Entry {
            bytes: fs::metadata(&file).map_err(Error::file("read", &file))?.len(),
            sha256: sha256_file(&file)?,
            path,
        })
    };
    let entries: Vec<Entry> = files_of_run(&run.path)?.into_iter().map(entry).collect::<Result<_>>()?;
    let record = &run.record;
    let described = Crate {
        name: record.title.clone(),
        description: format!(
            "A run of flapsam: {}, seed {}. Data: {}. {}",
            record.title, record.seed, record.data, record.data_description
        ),
        runs: vec![(String::new(), run)],
        entries: &entries,
        agent: None,
    };
    let path = run.path.join(CRATE_FILE);
    write_json(&path, &document(&described)?)?;
    Ok(path)
}

/// The files of a run's folder that its description lists, from that folder, in order: all but the description itself.
///
/// # Errors
/// A folder cannot be read.
pub fn files_of_run(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    list(folder, "", &mut files)?;
    Ok(files)
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    let found = fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    let names = found.map(|entry| entry.map(|entry| entry.file_name()));
    let names: BTreeSet<_> = names
        .collect::<std::io::Result<_>>()
        .map_err(Error::file("read the folder", folder))?;
    for name in names {
        let path = folder.join(&name);
        let relative = format!("{prefix}{}", name.to_string_lossy());
        if relative == CHECKPOINTS || relative.starts_with('.') {
            // What a cut-off run goes on from, or who wrote it, is no part of what a run came to.
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            list(&path, &format!("{relative}/"), files)?;
        } else if path.is_file() && relative != CRATE_FILE {
            files.push(relative);
        }
    }
    Ok(())
}

/// When a run was finished, UTC: by its own account, or, of runs of early versions, when its figures were written.
fn finished(run: &RunFolder) -> Result<String> {
    if let Some(finished) = run.timing.as_ref().and_then(|timing| timing.finished.clone()) {
        return Ok(finished);
    }
    let path = run.path.join("metrics.json");
    let written = fs::metadata(&path)
        .and_then(|facts| facts.modified())
        .map_err(Error::file("read", &path))?;
    let time = Timestamp::try_from(written).map_err(|why| Error::invalid(&path, format!("its date: {why}")))?;
    Ok(utc(time))
}

/// The description of a crate.
///
/// # Errors
/// A run's date cannot be read.
pub fn document(described: &Crate) -> Result<Value> {
    let times: Vec<String> = described
        .runs
        .iter()
        .map(|(_, run)| finished(run))
        .collect::<Result<_>>()?;
    let day = times.iter().max().map_or("", |time| &time[..10]);
    let numbers = 1..=described.runs.len();
    let actions: Vec<Value> = numbers.clone().map(|number| json!({"@id": action(number)})).collect();
    let mut graph = vec![
        json!({
            "@id": CRATE_FILE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": STANDARD},
            "about": {"@id": "./"},
        }),
        json!({
            "@id": "./",
            "@type": "Dataset",
            "conformsTo": {"@id": PROFILE},
            "name": described.name,
            "description": described.description,
            "datePublished": day,
            "license": {"@id": "#licence"},
            "hasPart": described.entries.iter().map(reference).collect::<Vec<_>>(),
            "mentions": compact(actions),
        }),
        json!({"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}),
        json!({
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "No licence chosen",
            "description": "Whoever made these runs has not chosen a licence for their files. The data set and the base \
                            checkpoint that they derive from have licences of their own.",
        }),
        json!({
            "@id": "#agent",
            "@type": "Person",
            "name": described.agent.unwrap_or("whoever ran flapsam, and gave no name"),
        }),
    ];
    let mut shared = BTreeMap::new();
    for ((number, (prefix, run)), time) in numbers.zip(&described.runs).zip(&times) {
        graph.push(action_of(number, prefix, run, described.entries, time));
        shared.extend(inputs(run).map(|entity| (entity["@id"].to_string(), entity)));
    }
    graph.extend(shared.into_values());
    graph.extend(described.entries.iter().map(file));
    // The standard's own terms have no checksum.
    Ok(json!({"@context": [CONTEXT, {"sha256": "https://schema.org/sha256"}], "@graph": graph}))
}

/// Several values as a list, and a single one by itself, as the standard recommends.
fn compact(mut values: Vec<Value>) -> Value {
    match values.len() {
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

fn reference(entry: &Entry) -> Value {
    json!({"@id": encoded(&entry.path)})
}

/// A run's address within its crate.
fn action(number: usize) -> String {
    format!("#run-{number}")
}

/// How a run came to be: from its settings, its data and its base to its figures and adapters.
fn action_of(number: usize, prefix: &str, run: &RunFolder, entries: &[Entry], finished: &str) -> Value {
    let (record, provenance) = (&run.record, &run.provenance);
    let own = |entry: &&Entry| entry.path.starts_with(prefix);
    let is_result = |entry: &&Entry| entry.path.ends_with("metrics.json") || entry.path.ends_with(".safetensors");
    let results: Vec<Value> = entries.iter().filter(own).filter(is_result).map(reference).collect();
    let settings = entries
        .iter()
        .find(|entry| entry.path == format!("{prefix}config.toml"));
    let [program, data, base] = inputs(run).map(|entity| json!({"@id": entity["@id"]}));
    json!({
        "@id": action(number),
        "@type": "CreateAction",
        "name": format!("{}, seed {}", record.title, record.seed),
        "description": format!("{} on {}", record.method.name(), provenance.device),
        "agent": {"@id": "#agent"},
        "endTime": finished,
        "instrument": program,
        "object": settings.map(reference).into_iter().chain([data, base]).collect::<Vec<_>>(),
        "result": compact(results),
    })
}

/// What runs have in common: program, data and base, each by what tells it from others.
fn inputs(run: &RunFolder) -> [Value; 3] {
    let (record, provenance) = (&run.record, &run.provenance);
    let version = provenance.program.trim_start_matches("flapsam ");
    let (address, version) = match &provenance.commit {
        Some(commit) => (
            format!("{ARCHIVE}/swh:1:rev:{commit}"),
            format!("{version}, commit {commit}"),
        ),
        None => (format!("{ARCHIVE}/browse/search/?q=flapsam"), version.to_owned()),
    };
    [
        json!({
            "@id": address,
            "@type": "SoftwareApplication",
            "name": "flapsam",
            "softwareVersion": version,
            "url": address,
        }),
        json!({
            "@id": format!("#data-{}", &provenance.data_sha256),
            "@type": "CreativeWork",
            "name": record.data,
            "description": record.data_description,
            "identifier": format!("sha256:{}", provenance.data_sha256),
            "sha256": provenance.data_sha256,
        }),
        json!({
            "@id": format!("#base-{}", &provenance.base_sha256),
            "@type": "CreativeWork",
            "name": "base checkpoint",
            "identifier": format!("sha256:{}", provenance.base_sha256),
            "sha256": provenance.base_sha256,
        }),
    ]
}

fn file(entry: &Entry) -> Value {
    json!({
        "@id": encoded(&entry.path),
        "@type": "File",
        "name": entry.path,
        "encodingFormat": media_type(&entry.path),
        "contentSize": entry.bytes.to_string(),
        "sha256": entry.sha256,
    })
}

/// A path as a relative address: what has a meaning in addresses, spaces and other alphabets are written as bytes.
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

fn media_type(path: &str) -> &'static str {
    let types = [
        (".json", "application/json"),
        (".toml", "application/toml"),
        (".html", "text/html"),
        (".svg", "image/svg+xml"),
        (".nii.gz", "application/x-nifti"),
        (".safetensors", "application/octet-stream"),
        (".csv", "text/csv"),
        (".txt", "text/plain"),
        (".yml", "text/yaml"),
    ];
    let known = types.iter().find(|(ending, _)| path.ends_with(ending));
    known.map_or("application/octet-stream", |(_, media)| media)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_no_signs_with_a_meaning() {
        assert_eq!(encoded("predictions/A/case_1.nii.gz"), "predictions/A/case_1.nii.gz");
        assert_eq!(encoded("Köln 1/a#b?.csv"), "K%C3%B6ln%201/a%23b%3F.csv");
    }
}
