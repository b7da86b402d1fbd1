use serde::Serialize;

use super::DataSet;
use crate::commands::{Outcome, print_json};
use crate::data::files::check::{Checked, State, check};
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    /// What the data set's checksums add up to: the table's sha256.
    sha256: &'a str,
    files: &'a [Checked],
    passed: bool,
}

pub(super) fn run(args: DataSet) -> Result<Outcome> {
    let (manifest, folder) = args.places.local(&args.name)?;
    let name = manifest.about.name.as_str();
    let files = check(&manifest, &folder);
    let passed = files.iter().all(|file| file.state == State::Right);
    match args.json {
        true => print_json(&Report {
            name,
            sha256: &manifest.sha256,
            files: &files,
            passed,
        })?,
        false => print(name, &files),
    }
    Ok(match passed {
        true => Outcome::Passed,
        false => Outcome::CheckFailed,
    })
}

fn print(name: &str, files: &[Checked]) {
    for file in files {
        let why = file.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        println!("{:<9} {}{why}", file.state.name(), file.path.display());
    }
    let count = |state: State| files.iter().filter(|file| file.state == state).count();
    let counts = State::ALL.map(|state| format!("{} {}", count(state), state.name()));
    println!("\n{name}: {} files, {}", files.len(), counts.join(", "));
    if count(State::Changed) > 0 {
        println!("Changed files: remove them and fetch them again, or find out who changed them.");
    }
    if count(State::Missing) > 0 {
        println!("Missing files: 'flapsam data fetch {name}'.");
    }
    if count(State::Unpinned) > 0 {
        println!(
            "Unpinned files have no published checksum: 'flapsam data pin {name}' records the ones they have now."
        );
    }
}
