use serde::Serialize;

use super::DataSet;
use crate::commands::{Outcome, print_json};
use crate::data::cases::fit::{is_described, misfits};
use crate::data::files::check::{Checked, State, check};
use crate::error::Result;

#[derive(Debug, Serialize)]
struct Report<'a> {
    name: &'a str,
    /// What the data set's checksums add up to: the table's sha256.
    sha256: &'a str,
    files: &'a [Checked],
    /// Why cases do not fit their files, once these are right.
    misfits: &'a [String],
    passed: bool,
}

pub(super) fn run(args: DataSet) -> Result<Outcome> {
    let (manifest, folder) = args.places.local(&args.name)?;
    let name = manifest.about.name.as_str();
    let files = check(&manifest, &folder);
    let right = files.iter().all(|file| file.state == State::Right);
    let misfits = match right {
        true => misfits(&manifest, folder.path())?,
        false => Vec::new(),
    };
    let passed = right && misfits.is_empty();
    match args.json {
        true => print_json(&Report {
            name,
            sha256: &manifest.sha256,
            files: &files,
            misfits: &misfits,
            passed,
        })?,
        false => {
            print(name, &files);
            if is_described(&manifest) {
                print_fit(&misfits, right);
            }
        }
    }
    Ok(Outcome::of(passed))
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

fn print_fit(misfits: &[String], looked: bool) {
    for misfit in misfits {
        println!("misfit    {misfit}");
    }
    match (looked, misfits.len()) {
        (false, _) => println!("Boxes and label ids were not looked at: not all files are right."),
        (true, 0) => println!("Every box lies in its files, and every label id is in one."),
        (true, count) => println!("{count} misfits: correct the table of cases."),
    }
}
