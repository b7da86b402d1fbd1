//! Experiment files: what a file says over the one that it extends, and which files an address stands for.

use std::path::{Component, Path, PathBuf};

use super::suite::{self, Suite};
use crate::error::{Error, Result};
use crate::files::read;

/// A file may extend another, which may extend another, ..
pub(super) const DEEPEST: usize = 8;
const EXTENDS: &str = "extends";
/// A path that starts with this lies in the folder of data sets (`--data`).
pub(super) const DATA: &str = "$DATA";

/// What is found at the address of an experiment.
pub(super) struct Found {
    /// The file; of a suite's experiment, the one that would lie there.
    pub path: PathBuf,
    /// Its settings as one text; of a file that extends no other, as it was written.
    pub text: String,
    /// Where the relative paths among them start.
    pub folder: PathBuf,
    /// In which files else a mistake may be, as the end of a sentence.
    pub whence: String,
}

/// Finds the settings at an address.
pub(super) fn find(address: &Path) -> Result<Found> {
    let settings = settings(address, DEEPEST)?;
    if settings.table.contains_key(suite::KEY) {
        let why = "it is a suite's file, or extends one; name one of the suite's experiments instead, such as \
                   golden/phantom/methods/flap_sam";
        return Err(Error::invalid(address, why));
    }
    let folder = above(address, settings.depth);
    if let Some((_, name)) = suite::split(address) {
        return Ok(Found {
            path: folder.join(format!("{name}.toml")),
            text: settings.table.to_string(),
            whence: Suite::read(&folder, DEEPEST)?.whence(&name),
            folder,
        });
    }
    let written = text_of(address)?;
    let (text, whence) = match table(address, &written)?.get(EXTENDS) {
        Some(extended) => {
            let whence = format!("; look into {extended}, too, which it extends");
            (settings.table.to_string(), whence)
        }
        None => (written, String::new()),
    };
    Ok(Found {
        path: address.to_owned(),
        text,
        folder,
        whence,
    })
}

/// Settings of one file or of several.
pub(super) struct Settings {
    pub table: toml::Table,
    /// So many names above the address their relative paths start.
    depth: usize,
}

/// The settings at an address: a file's over those of what it extends, or what a suite makes of an experiment.
pub(super) fn settings(address: &Path, deepest: usize) -> Result<Settings> {
    let Some(deepest) = deepest.checked_sub(1) else {
        let why = format!("more than {DEEPEST} files '{EXTENDS}' one another, or they do in a circle; extend fewer");
        return Err(Error::invalid(address, why));
    };
    if let Some((folder, name)) = suite::split(address) {
        return Ok(Settings {
            table: Suite::read(folder, deepest)?.compose(&name, deepest)?,
            depth: name.split('/').count(),
        });
    }
    let (mut table, depth) = (table(address, &text_of(address)?)?, 1);
    let Some(extended) = table.remove(EXTENDS) else {
        return Ok(Settings { table, depth });
    };
    let Some(extended) = extended.as_str().map(Path::new) else {
        let why = format!("'{EXTENDS}' must be the path of an experiment file");
        return Err(Error::invalid(address, why));
    };
    let mut below = settings(&above(address, depth).join(extended), deepest)?;
    start_from(&mut below.table, &above(extended, below.depth));
    overlay(&mut below.table, table);
    Ok(Settings {
        table: below.table,
        depth,
    })
}

fn text_of(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}

fn table(path: &Path, text: &str) -> Result<toml::Table> {
    toml::from_str(text).map_err(|why: toml::de::Error| Error::invalid(path, explain(&why)))
}

/// A path without its last names, or as many folders up where it has fewer.
fn above(path: &Path, names: usize) -> PathBuf {
    (0..names).fold(path.to_owned(), |path, _| match path.components().next_back() {
        Some(Component::Normal(_)) => path.parent().unwrap_or(Path::new("")).to_owned(),
        _ => path.join(".."),
    })
}

/// Makes the relative paths among settings start from elsewhere, given the way from there to where they start now.
pub(super) fn start_from(settings: &mut toml::Table, way: &Path) {
    let go = |table: &mut toml::Table, key: &str| {
        if let Some(toml::Value::String(file)) = table.get_mut(key)
            && !Path::new(file).starts_with(DATA)
        {
            *file = way.join(&*file).to_string_lossy().into_owned();
        }
    };
    go(settings, "data");
    go(settings, "base");
    // Of a suite's file that another one extends.
    if let Some(toml::Value::Table(suite)) = settings.get_mut(suite::KEY) {
        go(suite, "experiments");
        let changes = suite.get_mut("change").and_then(toml::Value::as_array_mut);
        for change in changes.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
            go(change, "data");
            go(change, "base");
        }
    }
}

/// Puts settings over others, table by table; lists of tables go behind those that are there.
pub(super) fn overlay(below: &mut toml::Table, above: toml::Table) {
    use toml::Value::{Array, Table};
    let of_tables = |list: &[toml::Value]| !list.is_empty() && list.iter().all(toml::Value::is_table);
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Table(below)), Table(above)) => overlay(below, above),
            (Some(Array(below)), Array(above)) if of_tables(below) && of_tables(&above) => below.extend(above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// The parser's message; for an unknown key, the nearest known one instead of all of them.
pub(super) fn explain(why: &toml::de::Error) -> String {
    let message = why.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(unknown) = quoted.next()
        && let Some(nearest) = nearest(unknown, quoted)
    {
        return format!("there is no key '{unknown}'; did you mean '{nearest}'?");
    }
    why.to_string().trim_end().to_owned()
}

/// Of several names the one that a misspelt one is most like.
pub(super) fn nearest<'a>(misspelt: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(misspelt, known);
    names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}
