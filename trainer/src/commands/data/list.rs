use std::collections::BTreeSet;

use serde::Serialize;

use super::Places;
use crate::commands::{Outcome, print_json};
use crate::data::manifest::{Case, Manifest};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    places: Places,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    version: String,
    sites: usize,
    train: usize,
    test: usize,
    files: usize,
    with_checksum: usize,
    /// Whether there are further cases, which only the files can tell.
    open: bool,
    licence: String,
    url: Option<String>,
    description: String,
}

pub fn run(args: Args) -> Result<Outcome> {
    let mut rows = Vec::new();
    for name in args.places.names()? {
        rows.push(row(&args.places.published(&name)?));
    }
    if args.json {
        print_json(&rows)?;
        return Ok(Outcome::Passed);
    }
    println!(
        "{:<17}{:>6}{:>7}{:>6}{:>7}{:>15}  licence",
        "data set", "sites", "train", "test", "files", "with checksum"
    );
    for row in rows {
        let more = if row.open { "+" } else { "" };
        let (train, files) = (format!("{}{more}", row.train), format!("{}{more}", row.files));
        println!(
            "{:<17}{:>6}{train:>7}{:>6}{files:>7}{:>15}  {}",
            row.name, row.sites, row.test, row.with_checksum, row.licence
        );
    }
    Ok(Outcome::Passed)
}

fn row(manifest: &Manifest) -> Row {
    let about = &manifest.about;
    let (templates, cases): (Vec<&Case>, Vec<&Case>) = manifest.cases.iter().partition(|case| case.is_template());
    let files = manifest.data_files();
    let train = cases.iter().filter(|case| case.train).count();
    let sites: BTreeSet<&str> = manifest.cases.iter().map(|case| case.site.as_str()).collect();
    Row {
        name: about.name.clone(),
        version: about.version.clone(),
        sites: sites.len(),
        train,
        test: cases.len() - train,
        files: files.len() - 2 * templates.len(),
        open: !templates.is_empty(),
        with_checksum: files.iter().filter(|file| file.sha256.is_some()).count(),
        licence: about.license.names().join(" AND "),
        url: about.url.clone(),
        description: about.description.clone(),
    }
}
