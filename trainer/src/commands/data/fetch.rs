use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Places, pin};
use crate::commands::{Outcome, print_json};
use crate::data::cases::lock::{Pinned, pin as pin_files};
use crate::data::files::archive::{Limits, unpack};
use crate::data::files::check::{Checked, State, check};
use crate::data::files::download::{Download, download};
use crate::data::files::folder::Folder;
use crate::data::manifest::croissant::licence_name;
use crate::data::manifest::{DataFile, Manifest, Part};
use crate::error::{Error, Result};
use crate::folder_lock::FolderLock;
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Data set, by name or by its manifest's file.
    name: String,
    #[command(flatten)]
    places: Places,
    /// Accept the data set's licence by its name, or all of several; without it you are asked.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    accept_licence: Vec<String>,
    /// Seconds without a byte after which a connection is taken for dead and made anew.
    #[arg(long, default_value_t = 30.0)]
    stall: f64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// No archive of the data sets here comes near these.
const LIMITS: Limits = Limits {
    files: 20_000,
    bytes: 20 << 30,
};

pub fn run(args: Args) -> Result<Outcome> {
    let (manifest, folder) = args.places.local(&args.name)?;
    let jobs = jobs(&manifest, &folder)?;
    let stall = Duration::try_from_secs_f64(args.stall)
        .map_err(|why| Error::Message(format!("--stall {}: {why}; pass seconds, such as 30", args.stall)))?;
    if !jobs.is_empty() {
        accept(&manifest, &args.accept_licence)?;
    }
    let _lock = FolderLock::take(folder.path())?;
    let mut bytes = 0;
    for (place, job) in jobs.iter().enumerate() {
        bytes += fetch(
            job,
            folder.path(),
            stall,
            &format!("file {} of {}", place + 1, jobs.len()),
        )?;
    }
    // An archive brings all files anew, those too that were pinned before: it may hold others by now.
    let changed: Vec<Checked> = match jobs.iter().any(|job| job.archive) {
        true => check(&manifest, &Folder::new(folder.path().to_owned())),
        false => Vec::new(),
    };
    let changed: Vec<Checked> = changed
        .into_iter()
        .filter(|file| file.state == State::Changed)
        .collect();
    let pinned = match manifest.cases.is_empty() {
        true => None,
        false => Some(pin_files(args.places.published(&args.name)?, &args.places.data)?),
    };
    let refused = pinned.as_ref().map_or(&[][..], |pinned| &pinned.refused);
    match args.json {
        true => print_json(&json!({
            "name": manifest.about.name,
            "folder": folder.path(),
            "files_fetched": jobs.len(),
            "bytes_fetched": bytes,
            "files_pinned_now": pinned.as_ref().map_or(0, |pinned| pinned.files),
            "refused": refused,
            "changed": changed,
            "cases_missing": pinned.as_ref().map_or(0, |pinned| pinned.missing),
        }))?,
        false => print(jobs.len(), bytes, folder.path(), pinned.as_ref(), &changed),
    }
    // An archive that holds other files than it should leaves cases missing.
    let missing = pinned.as_ref().map_or(0, |pinned| pinned.missing);
    Ok(Outcome::of(refused.is_empty() && missing == 0 && changed.is_empty()))
}

fn print(files: usize, bytes: u64, folder: &Path, pinned: Option<&Pinned>, changed: &[Checked]) {
    println!("{files} files fetched ({bytes} bytes) into {}", folder.display());
    for file in changed {
        let why = file.why.as_deref().unwrap_or_default();
        println!(
            "changed  {}: {why}; the archive is not the one that was pinned",
            file.path.display()
        );
    }
    if let Some(pinned) = pinned {
        pin::print(pinned);
        if !pinned.refused.is_empty() {
            println!("Delete the files that were refused, and fetch them again.");
        }
        if pinned.missing > 0 {
            println!("Missing cases were not among what was fetched: has the source changed?");
        }
    }
}

/// A file to fetch.
struct Job {
    url: String,
    file: DataFile,
    archive: bool,
}

/// What is not there yet.
fn jobs(manifest: &Manifest, folder: &Folder) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for file in manifest.data_files() {
        if let Some(url) = file.url.clone()
            && folder.locate(&file)?.is_none()
        {
            jobs.push(Job {
                url,
                file,
                archive: false,
            });
        }
    }
    let mut missing = Vec::new();
    // Several cases may share a file.
    let mut seen = BTreeSet::new();
    for case in &manifest.cases {
        for (part, file) in [(Part::Image, &case.image), (Part::Label, &case.label)] {
            if file.url.is_none() && seen.insert(&file.path) && folder.locate(file)?.is_none() {
                missing.push((case, part, file));
            }
        }
    }
    if missing.is_empty() {
        return Ok(jobs);
    }
    let source = |part: Part| manifest.sources.iter().find(|source| source.part == part);
    if let Some(archive) = source(Part::Archive) {
        jobs.push(Job {
            file: DataFile {
                path: "archive.zip".into(),
                sha256: None,
                bytes: None,
                url: None,
            },
            url: archive.url.clone(),
            archive: true,
        });
        return Ok(jobs);
    }
    for (case, part, file) in missing {
        let Some(source) = source(part).filter(|_| !file.is_pattern()) else {
            return Err(by_hand(manifest, folder.path(), part));
        };
        jobs.push(Job {
            url: source.url.replace("{case_id}", &case.id),
            file: file.clone(),
            archive: false,
        });
    }
    Ok(jobs)
}

fn by_hand(manifest: &Manifest, folder: &Path, part: Part) -> Error {
    let about = &manifest.about;
    let from = match (&about.url, about.name.as_str()) {
        (Some(url), _) => format!("get it from {url}"),
        (None, "phantom") => "make it with 'flapsam phantom'".to_owned(),
        (None, _) => "get it from its owner".to_owned(),
    };
    Error::Message(format!(
        "{} has no address from which a program may fetch a case's {}: {from}, put it into {}, and run 'flapsam data pin \
         {}'",
        about.name,
        part.name(),
        folder.display(),
        about.name
    ))
}

/// Shows the licences and waits for a yes.
fn accept(manifest: &Manifest, accepted: &[String]) -> Result<()> {
    let about = &manifest.about;
    let names = about.license.names();
    eprintln!("{}", about.description);
    for (name, address) in names.iter().zip(about.license.addresses()) {
        eprintln!("Licence: {name}, {address}");
    }
    for origin in &manifest.origins {
        let licence = licence_name(&origin.licence);
        eprintln!(
            "{}: {}; licence {licence}; credit: {}",
            origin.site, origin.source, origin.credit
        );
    }
    eprintln!("Cite: {}", about.cite_as);
    let wanted = names.join(",");
    let refuse = |why: String| {
        Err(Error::Message(format!(
            "{why}; pass --accept-licence {wanted} if you accept {}",
            if names.len() == 1 { "it" } else { "all of them" }
        )))
    };
    let is = |one: &str, other: &str| one.trim().eq_ignore_ascii_case(other);
    let strange = accepted.iter().find(|given| !names.iter().any(|name| is(given, name)));
    let open = names.iter().find(|name| !accepted.iter().any(|given| is(given, name)));
    match (strange, open) {
        (Some(given), _) => refuse(format!(
            "the licence of {} is {}, not {given}",
            about.name,
            names.join(" and ")
        )),
        (None, None) => Ok(()),
        (None, Some(open)) if !accepted.is_empty() => {
            refuse(format!("the licence {open} of {} was not accepted", about.name))
        }
        _ if !std::io::stdin().is_terminal() => refuse(format!("the licence of {} was not accepted", about.name)),
        _ => {
            eprint!(
                "Do you accept {}? [y/N] ",
                if names.len() == 1 {
                    "this licence"
                } else {
                    "these licences"
                }
            );
            let mut answer = String::new();
            let read = std::io::stderr()
                .flush()
                .and_then(|()| std::io::stdin().read_line(&mut answer));
            match (read, answer.trim().to_lowercase().as_str()) {
                (Ok(_), "y" | "yes") => Ok(()),
                _ => refuse(format!("the licence of {} was not accepted", about.name)),
            }
        }
    }
}

/// Fetches a file, and unpacks it where it is an archive; returns its size.
fn fetch(job: &Job, folder: &Path, stall: Duration, place: &str) -> Result<u64> {
    let target: PathBuf = folder.join(&job.file.path);
    let what = Download {
        url: &job.url,
        target: &target,
        sha256: job.file.sha256.as_deref(),
        bytes: job.file.bytes,
    };
    let progress = Progress::of_bytes(job.file.bytes.unwrap_or(0));
    let message = format!("{place}, {}", job.file.path);
    let fetched = download(&what, stall, &mut |done, total| progress.at(done, total, &message))?;
    drop(progress);
    if job.archive {
        let progress = Progress::new(0);
        unpack(&target, folder, LIMITS, &mut |done, total| {
            progress.at(done as u64, Some(total as u64), "unpacking");
        })?;
        std::fs::remove_file(&target).map_err(Error::file("remove", &target))?;
    }
    Ok(fetched.bytes)
}
