//! RO-Crate 1.1: what a run's folder holds and how it came to be, as JSON-LD for archives and their tools.
//!
//! Written with the report and not by the run, so that it lists the report too, and so that old runs can have one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::runs::RunFolder;
use crate::error::{Error, Result};
use crate::federation::CHECKPOINTS;
use crate::files::{sha256_file, write_json};

/// The file's name, which the standard sets.
pub const CRATE_FILE: &str = "ro-crate-metadata.json";

const CONTEXT: &str = "https://w3id.org/ro/crate/1.1/context";
const STANDARD: &str = "https://w3id.org/ro/crate/1.1";

/// A file of a run's folder.
struct Entry {
    /// Relative to the folder, with `/` between its parts.
    path: String,
    bytes: u64,
    sha256: String,
}

/// Describes every file in a run's folder in `ro-crate-metadata.json` beside them, and says where that is.
///
/// # Errors
/// A file cannot be read, or the description not written.
pub fn write_crate(run: &RunFolder) -> Result<PathBuf> {
    let mut entries = Vec::new();
    list(&run.path, "", &mut entries)?;
    let path = run.path.join(CRATE_FILE);
    write_json(&path, &document(run, &entries, &published(&run.path)?))?;
    Ok(path)
}

/// All files below a folder but the description itself, in order.
fn list(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> Result<()> {
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
            list(&path, &format!("{relative}/"), entries)?;
        } else if path.is_file() && relative != CRATE_FILE {
            entries.push(Entry {
                bytes: fs::metadata(&path).map_err(Error::file("read", &path))?.len(),
                sha256: sha256_file(&path)?,
                path: relative,
            });
        }
    }
    Ok(())
}

/// The day (UTC) on which the run's figures were written: a record has no clock, and its file's date is the nearest that
/// is true.
fn published(folder: &Path) -> Result<String> {
    let path = folder.join("metrics.json");
    let written = fs::metadata(&path)
        .and_then(|facts| facts.modified())
        .map_err(Error::file("read", &path))?;
    let day = Timestamp::try_from(written).map_err(|why| Error::invalid(&path, format!("its date: {why}")))?;
    Ok(day.strftime("%Y-%m-%d").to_string())
}

fn document(run: &RunFolder, entries: &[Entry], published: &str) -> Value {
    let (record, provenance) = (&run.record, &run.provenance);
    let reference = |path: &str| json!({"@id": encoded(path)});
    let parts: Vec<Value> = entries.iter().map(|entry| reference(&entry.path)).collect();
    let is_result = |entry: &&Entry| entry.path == "metrics.json" || entry.path.ends_with(".safetensors");
    let results: Vec<Value> = entries
        .iter()
        .filter(is_result)
        .map(|entry| reference(&entry.path))
        .collect();
    let version = provenance.program.trim_start_matches("flapsam ");
    let version = match &provenance.commit {
        Some(commit) => format!("{version}, commit {commit}"),
        None => version.to_owned(),
    };
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
            "name": record.title,
            "description": format!(
                "A run of flapsam: {}, seed {}. Data: {}. {}",
                record.title, record.seed, record.data, record.data_description
            ),
            "datePublished": published,
            "license": {"@id": "#licence"},
            "hasPart": parts,
            "mentions": {"@id": "#run"},
        }),
        json!({
            "@id": "#licence",
            "@type": "CreativeWork",
            "name": "No licence chosen",
            "description": "Whoever made this run has not chosen a licence for its files. The data set and the base \
                            checkpoint that they derive from have licences of their own.",
        }),
        json!({
            "@id": "#run",
            "@type": "CreateAction",
            "name": format!("{}, seed {}", record.title, record.seed),
            "description": format!("{} on {}", record.method.name(), provenance.device),
            "instrument": {"@id": "#flapsam"},
            "object": [{"@id": "#data"}, {"@id": "#base"}],
            "result": results,
        }),
        json!({
            "@id": "#flapsam",
            "@type": "SoftwareApplication",
            "name": "flapsam",
            "softwareVersion": version,
        }),
        json!({
            "@id": "#data",
            "@type": "CreativeWork",
            "name": record.data,
            "description": record.data_description,
            "identifier": format!("sha256:{}", provenance.data_sha256),
            "sha256": provenance.data_sha256,
        }),
        json!({
            "@id": "#base",
            "@type": "CreativeWork",
            "name": "base checkpoint",
            "identifier": format!("sha256:{}", provenance.base_sha256),
            "sha256": provenance.base_sha256,
        }),
    ];
    graph.extend(entries.iter().map(|entry| {
        json!({
            "@id": encoded(&entry.path),
            "@type": "File",
            "name": entry.path,
            "encodingFormat": media_type(&entry.path),
            "contentSize": entry.bytes.to_string(),
            "sha256": entry.sha256,
        })
    }));
    // The standard's own terms have no checksum.
    json!({"@context": [CONTEXT, {"sha256": "https://schema.org/sha256"}], "@graph": graph})
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
        (".nii.gz", "application/x-nifti"),
        (".safetensors", "application/octet-stream"),
        (".csv", "text/csv"),
        (".txt", "text/plain"),
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
