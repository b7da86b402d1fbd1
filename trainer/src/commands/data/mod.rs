//! `flapsam data`: from a manifest to files that are known to be right.

mod fetch;
mod import;
mod list;
mod pin;
mod status;
mod verify;

use std::path::{Path, PathBuf};

use super::Outcome;
use crate::data::cases::lock::{expand, locked};
use crate::data::files::folder::Folder;
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::shipped::{MANIFESTS, shipped};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the data sets that have a manifest.
    List(list::Args),
    /// Say what this disk holds of the data sets, without reading the files.
    Status(status::Args),
    /// Download a data set, check every file as it arrives, and pin what has no published checksum.
    Fetch(fetch::Args),
    /// Read every file and compare its checksum; exit 1 unless all are right.
    Verify(DataSet),
    /// Record the checksums of files for which none is published, after checking what is known of them.
    Pin(DataSet),
    /// Make a manifest for a folder of your own: pairs of scans and masks, sites by subfolder.
    Import(import::Args),
}

pub fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::List(args) => list::run(args),
        Command::Status(args) => status::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Pin(args) => pin::run(args),
        Command::Import(args) => import::run(args),
    }
}

/// One data set, and how its facts are printed.
#[derive(Debug, clap::Args)]
struct DataSet {
    /// Data set, by name or by its manifest's file.
    name: String,
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where manifests and data are.
#[derive(Debug, clap::Args)]
pub(super) struct Places {
    /// Folder of manifests.
    #[arg(long, default_value_os_t = shipped(MANIFESTS))]
    manifests: PathBuf,
    /// Folder of data sets, each in a folder of its own name.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    pub(super) data: PathBuf,
}

impl Places {
    /// The names of all manifests, in order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.manifests).map_err(Error::file("read the folder", &self.manifests))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut names: Vec<String> = json
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The manifest of a data set, given by its name or by its file, as published.
    fn published(&self, name: &str) -> Result<Manifest> {
        if name.ends_with(".json") {
            return Manifest::read(Path::new(name));
        }
        let path = self.manifests.join(format!("{name}.json"));
        if path.is_file() {
            return Manifest::read(&path);
        }
        let known = self.names()?.join(", ");
        let why = format!("there is no such manifest; known are {known}; or pass the path of a manifest (.json)");
        Err(Error::invalid(&path, why))
    }

    /// The same with what was pinned and what is found on this disk, and the data set's folder.
    pub(super) fn local(&self, name: &str) -> Result<(Manifest, Folder)> {
        let mut manifest = locked(self.published(name)?, &self.data)?;
        let folder = Folder::new(self.data.join(&manifest.about.name));
        manifest.cases = expand(&manifest.cases, &folder)?;
        Ok((manifest, folder))
    }
}
