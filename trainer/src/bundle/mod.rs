//! Evidence bundles: runs as one archive that can be checked anywhere, without a network.
//!
//! A bundle is a zip of an RO-Crate: for each run its settings, figures, trace, adapters, provenance and the machine that it
//! was made on, and for the whole a description with every file's checksum and a `codecheck.yml`. [`write()`] makes one,
//! [`check`] holds it against itself, and a rerun holds it against the program.

pub mod check;
mod codecheck;

use std::io::{Cursor, Write};

use flapsam_model::checkpoint::sha256;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::{Error, Result};
use crate::files::read;
use crate::report::crate_metadata::{CRATE_FILE, Crate, Entry, document, files_of_run};
use crate::report::{RunFolder, count};
use crate::verification::golden::{figures, to_text};

/// The figures of a run in the order and with the digits of golden figures.
const FIGURES: &str = "figures.txt";

/// What goes into a bundle beyond its runs.
#[derive(Debug)]
pub struct Options<'a> {
    /// Who made the runs.
    pub agent: Option<&'a str>,
    /// Whether the predicted masks go in; their checksums do in any case.
    pub with_masks: bool,
}

/// A file of a bundle that is being made.
struct Packed {
    path: String,
    bytes: Vec<u8>,
}

/// The bundle of some runs: a zip's bytes. The same runs give the same bytes.
///
/// # Errors
/// A file of a run cannot be read.
pub fn write(runs: &[RunFolder], options: &Options) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    for run in runs {
        files.extend(files_of(run, options.with_masks)?);
    }
    files.push(Packed {
        path: "codecheck.yml".into(),
        bytes: codecheck::text(runs, options.agent).into_bytes(),
    });
    let entries: Vec<Entry> = files.iter().map(Packed::entry).collect();
    let described = Crate {
        name: format!("{} of flapsam", count(runs.len(), "run")),
        description: "Runs of federated fine-tuning of Segment Anything, with all that is needed to check them: \
                      'flapsam bundle verify' does."
            .into(),
        runs: runs.iter().map(|run| (place(run), run)).collect(),
        entries: &entries,
        agent: options.agent,
    };
    let mut description = serde_json::to_vec_pretty(&document(&described)?)
        .map_err(|why| Error::Message(format!("the bundle's description cannot be encoded: {why}")))?;
    description.push(b'\n');
    files.insert(
        0,
        Packed {
            path: CRATE_FILE.into(),
            bytes: description,
        },
    );
    zipped(&files).map_err(|why| Error::Message(format!("the bundle cannot be packed: {why}")))
}

/// Where a run lies in its bundle.
fn place(run: &RunFolder) -> String {
    format!("runs/{}/", run.name)
}

impl Packed {
    fn entry(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            bytes: self.bytes.len() as u64,
            sha256: sha256(&self.bytes),
        }
    }
}

/// A run's files as the folder has them, but for pages and, unless they are wanted, masks; and its figures for people.
fn files_of(run: &RunFolder, with_masks: bool) -> Result<Vec<Packed>> {
    let packed = |path: &str, bytes| Packed {
        path: place(run) + path,
        bytes,
    };
    let is_wanted = |path: &String| {
        let is_mask = path.starts_with("predictions/");
        !path.ends_with(".html") && path != FIGURES && (with_masks || !is_mask)
    };
    let paths = files_of_run(&run.path)?;
    let files = paths.iter().filter(|path| is_wanted(path));
    let mut files: Vec<Packed> = files
        .map(|path| Ok(packed(path, read(&run.path.join(path))?)))
        .collect::<Result<_>>()?;
    let figures = to_text(&figures(&run.record, &run.provenance));
    files.push(packed(FIGURES, figures.into_bytes()));
    Ok(files)
}

fn zipped(files: &[Packed]) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        // The same runs give the same bytes, whenever.
        .last_modified_time(DateTime::default())
        .large_file(false);
    for file in files {
        archive.start_file(&file.path, options)?;
        archive.write_all(&file.bytes)?;
    }
    Ok(archive.finish()?.into_inner())
}
