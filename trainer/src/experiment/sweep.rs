//! Sweeps: one experiment file with a table `[sweep]`, whose keys are the experiment's own and whose values are lists: all
//! that they make together are run.

use std::collections::BTreeSet;
use std::path::Path;

use super::config::{Experiment, flat};
use super::files::{Found, find};
use crate::error::{Error, Result};

/// The table's name.
const KEY: &str = "sweep";
/// So many experiments are a mistake.
const MOST: usize = 1000;

/// One experiment of a sweep.
#[derive(Debug)]
pub struct Point {
    /// What it is called below the sweep's folder: its values, by their keys.
    pub name: String,
    /// The keys that the sweep sets, and their values here.
    pub values: Vec<(String, String)>,
    /// It.
    pub experiment: Experiment,
}

/// Whether settings are those of a sweep.
pub(super) fn is_sweep(text: &str) -> bool {
    toml::from_str::<toml::Table>(text).is_ok_and(|settings| settings.contains_key(KEY))
}

/// The experiments of the sweep at an address, in the order in which the last key changes fastest; `None` where there is no
/// `[sweep]`.
///
/// # Errors
/// The file cannot be read, the table is no table of lists, or one of the experiments makes no sense.
pub fn sweep(address: &Path) -> Result<Option<Vec<Point>>> {
    let found = find(address)?;
    let refuse = |why: String| Error::invalid(address, why);
    let mut settings: toml::Table = match toml::from_str(&found.text) {
        Ok(settings) => settings,
        // What is wrong with it is said by whoever reads it as an experiment.
        Err(_) => return Ok(None),
    };
    let Some(lists) = settings.remove(KEY) else {
        return Ok(None);
    };
    let toml::Value::Table(lists) = lists else {
        return Err(refuse(format!(
            "'{KEY}' must be a table of lists, such as [{KEY}] and 'rank = [4, 8]' below it"
        )));
    };
    let mut axes: Vec<(String, Vec<toml::Value>)> = Vec::new();
    for (key, values) in flat(lists) {
        match values {
            toml::Value::Array(values) if !values.is_empty() => axes.push((key, values)),
            _ => {
                return Err(refuse(format!(
                    "'{KEY}.{key}' must be a list of the values to try, such as [4, 8]"
                )));
            }
        }
    }
    let size = axes
        .iter()
        .try_fold(1usize, |size, (_, values)| size.checked_mul(values.len()));
    let size = size.filter(|size| (1..=MOST).contains(size) && !axes.is_empty());
    let size = size.ok_or_else(|| {
        refuse(format!(
            "its [{KEY}] makes no experiment, or more than {MOST}; try fewer values at a time"
        ))
    })?;
    let points: Vec<Point> = (0..size)
        .map(|index| point(index, &axes, &settings, &found))
        .collect::<Result<_>>()?;
    let names: BTreeSet<&str> = points.iter().map(|point| point.name.as_str()).collect();
    match names.len() == points.len() {
        true => Ok(Some(points)),
        false => Err(refuse(format!("its [{KEY}] has the same value twice; leave one out"))),
    }
}

fn point(index: usize, axes: &[(String, Vec<toml::Value>)], settings: &toml::Table, found: &Found) -> Result<Point> {
    let mut settings = settings.clone();
    let mut values = Vec::new();
    let mut rest = index;
    for (key, choices) in axes.iter().rev() {
        let choice = &choices[rest % choices.len()];
        rest /= choices.len();
        set(&mut settings, key, choice.clone()).map_err(|why| Error::invalid(&found.path, why))?;
        values.push((key.clone(), shown(choice)));
    }
    values.reverse();
    let described: Vec<String> = values.iter().map(|(key, value)| format!("{key} {value}")).collect();
    if let Some(toml::Value::String(title)) = settings.get_mut("title") {
        *title = format!("{title} ({})", described.join(", "));
    }
    let names: Vec<String> = values
        .iter()
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    let mut experiment = Experiment::parse(&found.path, settings.to_string(), &found.whence)?;
    experiment.folder.clone_from(&found.folder);
    Ok(Point {
        name: names.join(","),
        values,
        experiment,
    })
}

/// Sets a value by its whole key, such as `schedule.base_lr`.
fn set(settings: &mut toml::Table, key: &str, value: toml::Value) -> std::result::Result<(), String> {
    let Some((table, rest)) = key.split_once('.') else {
        settings.insert(key.to_owned(), value);
        return Ok(());
    };
    let below = settings.entry(table).or_insert_with(|| toml::Table::new().into());
    match below {
        toml::Value::Table(below) => set(below, rest, value),
        _ => Err(format!(
            "'{KEY}.{key}' is below '{table}', which is no table; correct the key"
        )),
    }
}

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A value as a part of a folder's name.
fn plain(value: &str) -> String {
    let plain = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '+' => letter,
        _ => '_',
    };
    value.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sweep_table: &str) -> Result<Option<Vec<Point>>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.toml");
        let text = format!(
            "title = \"one\"\ndata = \"set.json\"\nbase = \"base.pth\"\nmodel = \"nano\"\nimage_size = 32\n\
             method = \"flap_sam\"\nrank = 4\nrounds = 2\nseeds = [1]\nweight_decay = 0.1\n[local]\nbatch_stacks = 2\n\
             stack_stride = 5\n[schedule]\nbase_lr = 1e-3\nwarmup_period = 5\nmax_iterations = 100\nlr_exp = 2\n{sweep_table}"
        );
        std::fs::write(&path, text).unwrap();
        sweep(&path)
    }

    #[test]
    fn a_grid_is_all_that_its_lists_make() {
        let points = read("[sweep]\nschedule.base_lr = [1e-3, 5e-3]\nrank = [2, 4, 8]\n")
            .unwrap()
            .unwrap();
        let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
        assert_eq!(
            names[..2],
            ["rank=2,schedule.base_lr=0.001", "rank=2,schedule.base_lr=0.005"]
        );
        assert_eq!(points.len(), 6);
        let last = &points[5].experiment;
        assert_eq!((last.rank, last.schedule.base_lr), (8, 0.005));
        assert_eq!(last.title, "one (rank 8, schedule.base_lr 0.005)");
        assert_eq!(points[5].values[0], ("rank".to_owned(), "8".to_owned()));
        assert!(read("").unwrap().is_none());
        let methods = read("[sweep]\nmethod = [\"flap_sam\", \"full_ft\"]\n")
            .unwrap()
            .unwrap();
        assert_eq!(methods[1].name, "method=full_ft");
    }

    #[test]
    fn what_makes_no_sweep_is_refused() {
        for (table, words) in [
            ("[sweep]\nrank = 4\n", "must be a list"),
            ("[sweep]\nrank = []\n", "must be a list"),
            ("[sweep]\n", "makes no experiment"),
            ("[sweep]\nrank = [4, 4]\n", "twice"),
            ("[sweep]\nrnk = [4]\n", "did you mean 'rank'"),
            ("[sweep]\nrank.x = [4]\n", "is no table"),
            ("[sweep]\nrank = [0]\n", "rank"),
        ] {
            let said = read(table).unwrap_err().to_string();
            assert!(said.contains(words), "{table}: {said}");
        }
    }
}
