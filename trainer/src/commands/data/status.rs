use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Places;
use crate::commands::{Outcome, print_json};
use crate::data::batches::prepared;
use crate::data::cases::lock;
use crate::data::files::check::{State, glance};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data sets, by name or by their manifest's file; all without it.
    names: Vec<String>,
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    folder: PathBuf,
    files: usize,
    there: usize,
    wrong_size: usize,
    missing: usize,
    unpinned: usize,
    lock: Option<PathBuf>,
    prepared_bytes: u64,
}

pub fn run(args: Args) -> Result<Outcome> {
    let names = match args.names.is_empty() {
        true => args.places.names()?,
        false => args.names,
    };
    let mut rows = Vec::new();
    for name in names {
        rows.push(row(&args.places, &name)?);
    }
    if args.json {
        print_json(&rows)?;
        return Ok(Outcome::Passed);
    }
    println!(
        "{:<17}{:>7}{:>7}{:>12}{:>9}{:>10}{:>13}  folder",
        "data set", "files", "there", "wrong size", "missing", "unpinned", "prepared MB"
    );
    for row in rows {
        let lock = row
            .lock
            .map_or(String::new(), |lock| format!(", pinned in {}", lock.display()));
        println!(
            "{:<17}{:>7}{:>7}{:>12}{:>9}{:>10}{:>13.1}  {}{lock}",
            row.name,
            row.files,
            row.there,
            row.wrong_size,
            row.missing,
            row.unpinned,
            row.prepared_bytes as f64 / 1e6,
            row.folder.display()
        );
    }
    Ok(Outcome::Passed)
}

fn row(places: &Places, name: &str) -> Result<Row> {
    let (manifest, folder) = places.local(name)?;
    let found = glance(&manifest, &folder);
    let count = |state: State| found.iter().filter(|file| file.state == state).count();
    let prepared = prepared::folder(&places.data, &manifest.about.name);
    let lock = lock::path(&places.data, &manifest.about.name);
    Ok(Row {
        name: manifest.about.name,
        folder: folder.path().to_owned(),
        files: found.len(),
        there: found.len() - count(State::Missing),
        wrong_size: count(State::Changed),
        missing: count(State::Missing),
        unpinned: count(State::Unpinned),
        lock: lock.is_file().then_some(lock),
        prepared_bytes: size(&prepared),
    })
}

/// The size of all files below a folder; those that cannot be seen count as nothing.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        _ => entry.metadata().map_or(0, |facts| facts.len()),
    };
    entries.map(of_entry).sum()
}
