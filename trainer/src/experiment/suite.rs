//! Suites: which of the experiments that are written once a folder runs, and with what.
//!
//! A folder with a `suite.toml` is a suite. The file holds what its experiments share, as in an experiment file (data,
//! base, preprocessing, how long to train), and a table `[suite]`: the `name` that ends every title, the folder of
//! `experiments`, which of them it `runs` and which not (`without`), and under `[[suite.change]]` what is otherwise in
//! some of them. Settings of the suite come first, over them those of the experiment's file, over them the changes.
//!
//! An experiment of a suite is named as if its file lay in the suite's folder, where its golden figures do:
//! `golden/phantom/methods/flap_sam`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::files::{DEEPEST, explain, nearest, overlay, settings, start_from};
use crate::error::{Error, Result};
use crate::files::files_below;

/// The file that makes a folder a suite.
const FILE: &str = "suite.toml";
/// Its table that is about the suite.
pub(super) const KEY: &str = "suite";
/// The ending of experiment files.
const ENDING: &str = "toml";

/// A suite, as its file says it and those that it extends.
#[derive(Debug, Clone)]
pub struct Suite {
    folder: PathBuf,
    /// What all its experiments have, unless they say otherwise.
    settings: toml::Table,
    about: About,
}

/// What `[suite]` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    /// What the experiments are on: the end of each title. Synthetic data are called so here.
    name: String,
    /// The folder of experiment files, relative to this file.
    experiments: PathBuf,
    /// Which of them it runs; all without it.
    runs: Option<Vec<Pattern>>,
    /// And which of those it does not.
    #[serde(default)]
    without: Vec<Pattern>,
    /// What is otherwise in some of them; where two changes meet, the later one holds.
    #[serde(default)]
    change: Vec<Change>,
}

/// Other settings for some experiments.
#[derive(Debug, Clone, Deserialize)]
struct Change {
    #[serde(rename = "for")]
    experiments: Vec<Pattern>,
    #[serde(flatten)]
    settings: toml::Table,
}

/// Names of experiments, with `*` for anything: `methods/*`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(glob::Pattern);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let refuse =
            |why| format!("'{text}' is no pattern of experiments' names: {why}; write one such as 'methods/*'");
        glob::Pattern::new(&text).map(Self).map_err(refuse)
    }
}

fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.0.matches(name))
}

impl Suite {
    /// The suite in a folder; `None` if it has no `suite.toml`.
    ///
    /// # Errors
    /// The file, or one that it extends, cannot be read or says what makes no sense.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        is_suite(folder).then(|| Self::read(folder, DEEPEST)).transpose()
    }

    pub(super) fn read(folder: &Path, deepest: usize) -> Result<Self> {
        let file = folder.join(FILE);
        let mut settings = settings(&file, deepest)?.table;
        let Some(about) = settings.remove(KEY) else {
            let why = format!("it has no [{KEY}] with the suite's 'name' and its folder of 'experiments'; add them");
            return Err(Error::invalid(&file, why));
        };
        Ok(Self {
            folder: folder.to_owned(),
            about: about.try_into().map_err(|why| Error::invalid(&file, explain(&why)))?,
            settings,
        })
    }

    /// The names of the experiments that it runs, in order: `methods/flap_sam`.
    ///
    /// # Errors
    /// The folder of experiments cannot be read, or a pattern names none of them.
    pub fn experiments(&self) -> Result<Vec<String>> {
        let folder = self.folder.join(&self.about.experiments);
        let mut names = experiment_names(&folder)?;
        let About {
            runs, without, change, ..
        } = &self.about;
        let changed = change.iter().flat_map(|change| &change.experiments);
        let mut patterns = runs.iter().flatten().chain(without).chain(changed);
        if let Some(Pattern(empty)) = patterns.find(|pattern| !names.iter().any(|name| pattern.0.matches(name))) {
            let folder = folder.display();
            let why =
                format!("no experiment in {folder} is called '{empty}'; correct the name, or write the experiment");
            return Err(Error::invalid(&self.folder.join(FILE), why));
        }
        let run = |name: &str| runs.as_ref().is_none_or(|runs| any(runs, name));
        names.retain(|name| run(name) && !any(without, name));
        Ok(names)
    }

    /// Refuses experiment files in the suite's own folder, where nobody would run them.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_strays(&self) -> Result<()> {
        let names = experiment_names(&self.folder)?;
        let is_suite = |name: &&String| Path::new(name).file_name() == Path::new(FILE).file_stem();
        let Some(stray) = names.iter().find(|name| !is_suite(name)) else {
            return Ok(());
        };
        let file = self.folder.join(format!("{stray}.{ENDING}"));
        let experiments = self.folder.join(&self.about.experiments);
        let why = format!(
            "it lies in a suite's folder, and the suite runs what is in {}; move it there, or out of this folder",
            experiments.display()
        );
        Err(Error::invalid(&file, why))
    }

    /// The settings of one of its experiments, whose relative paths start from the suite's folder.
    pub(super) fn compose(&self, name: &str, deepest: usize) -> Result<toml::Table> {
        self.refuse_unknown(name)?;
        let file = self.file_of(name);
        let mut own = settings(&self.folder.join(&file), deepest)?.table;
        start_from(&mut own, file.parent().unwrap_or(Path::new("")));
        let mut all = self.settings.clone();
        overlay(&mut all, own);
        for change in self.about.change.iter().filter(|change| any(&change.experiments, name)) {
            overlay(&mut all, change.settings.clone());
        }
        if let Some(toml::Value::String(title)) = all.get_mut("title") {
            *title += &format!(", on {}", self.about.name);
        }
        Ok(all)
    }

    fn refuse_unknown(&self, name: &str) -> Result<()> {
        let known = self.experiments()?;
        if known.iter().any(|known| known == name) {
            return Ok(());
        }
        let (folder, names) = (self.folder.display(), known.iter().map(String::as_str));
        let why = match (known.first(), nearest(name, names)) {
            (Some(first), _) if name.is_empty() => format!(
                "it is a suite; name one of its experiments, such as {folder}/{first}, or run all of them with \
                 'flapsam verify --suite {folder}'"
            ),
            (_, Some(nearest)) => format!("the suite runs no experiment '{name}'; did you mean '{nearest}'?"),
            _ => "the suite runs no experiment; correct its 'runs' and 'without'".to_owned(),
        };
        Err(Error::invalid(&self.folder, why))
    }

    /// An experiment's own file, from the suite's folder.
    fn file_of(&self, name: &str) -> PathBuf {
        self.about.experiments.join(format!("{name}.{ENDING}"))
    }

    /// Where a mistake of an experiment may be, as the end of a sentence.
    pub(super) fn whence(&self, name: &str) -> String {
        let [suite, own] = [FILE.into(), self.file_of(name)].map(|file: PathBuf| self.folder.join(file));
        format!("; it is made of {} and {}", suite.display(), own.display())
    }
}

/// Whether a folder is a suite's.
pub fn is_suite(folder: &Path) -> bool {
    folder.join(FILE).is_file()
}

/// A suite's folder and the name of an experiment, of an address that stands for one: not a file by itself, and below
/// the folder of a suite. It may end in `.toml`, as a file there would.
pub(super) fn split(address: &Path) -> Option<(&Path, String)> {
    if address.is_file() {
        return None;
    }
    let folder = address.ancestors().find(|folder| is_suite(folder))?;
    Some((folder, name_of(address.strip_prefix(folder).ok()?)))
}

/// Whether there is an experiment at an address: a file, or one that a suite runs. A suite that cannot be read says so
/// when the experiment is.
pub(super) fn exists(address: &Path) -> bool {
    let runs = |(folder, name): (&Path, String)| {
        let known = Suite::read(folder, DEEPEST).and_then(|suite| suite.experiments());
        known.map_or(true, |known| known.contains(&name))
    };
    address.is_file() || split(address).is_some_and(runs)
}

/// The names of the experiment files below a folder, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn experiment_names(folder: &Path) -> Result<Vec<String>> {
    std::fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    let mut files = files_below(folder)?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == ENDING));
    let names = files.iter().filter_map(|file| file.strip_prefix(folder).ok());
    Ok(names.map(name_of).collect())
}

/// What an experiment is called whose file lies there below the folder of all: the path without its ending.
fn name_of(file: &Path) -> String {
    let parts = file
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    let name = parts.collect::<Vec<String>>().join("/");
    let ending = format!(".{ENDING}");
    name.strip_suffix(&ending).unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::experiment::{Experiment, Setting};

    const SUITE: &str = r#"
data = "../set.json"
base = "$DATA/base.pth"
model = "nano"
image_size = 32
rank = 4
rounds = 2
seeds = [1]
weight_decay = 0.1

[local]
batch_stacks = 2

[schedule]
base_lr = 1e-3
warmup_period = 5
max_iterations = 100
lr_exp = 2

[suite]
name = "a set"
experiments = "../experiments"
without = ["methods/half*"]

[[suite.change]]
for = ["methods/*"]
seeds = [1, 2]
dice_every = 1

[[suite.change]]
for = ["*/full"]
schedule.base_lr = 1e-4
"#;

    /// A folder with a suite `set`, a smaller one in it, and three experiments.
    fn golden() -> TempDir {
        let golden = TempDir::new().unwrap();
        let files = [
            ("set/suite.toml", SUITE),
            (
                "set/quick/suite.toml",
                "extends = \"../suite.toml\"\n[suite]\nname = \"a part\"\nruns = [\"*/full\"]\nwithout = []\n\
                 [[suite.change]]\nfor = [\"*\"]\nseeds = [7]\n",
            ),
            (
                "experiments/methods/full.toml",
                "title = \"Full\"\nmethod = \"full_ft\"\n",
            ),
            (
                "experiments/methods/half.v2.toml",
                "extends = \"full.toml\"\nparticipation = 0.5\n",
            ),
            (
                "experiments/alone/full.toml",
                "extends = \"../methods/full.toml\"\ntitle = \"Full, alone\"\nsetting = \"alone\"\nrank = 8\n",
            ),
        ];
        for (file, text) in files {
            put(&golden, file, text);
        }
        golden
    }

    fn put(golden: &TempDir, file: &str, text: &str) {
        let file = golden.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(golden: &TempDir, address: &str) -> Result<Experiment> {
        Experiment::read(&golden.path().join(address))
    }

    fn refused(golden: &TempDir, address: &str) -> String {
        read(golden, address).unwrap_err().to_string()
    }

    #[test]
    fn an_experiment_is_the_suites_settings_its_own_and_the_changes() {
        let golden = golden();
        let (federated, alone) = (
            read(&golden, "set/methods/full").unwrap(),
            read(&golden, "set/alone/full").unwrap(),
        );
        assert_eq!(federated.title, "Full, on a set");
        assert_eq!((&federated.seeds[..], federated.dice_every), (&[1, 2][..], Some(1)));
        assert_eq!((federated.rank, federated.schedule.base_lr), (4, 1e-4));
        // What its file extends is not the suite's experiment of that name, whose changes it would have too.
        assert_eq!(alone.title, "Full, alone, on a set");
        assert_eq!((&alone.seeds[..], alone.dice_every), (&[1][..], None));
        assert_eq!((alone.rank, alone.setting), (8, Setting::Alone));
        assert_eq!(alone.schedule.lr_exp, 2);
        // There is no folder of that name to go up from.
        let data = golden.path().join("set/../set.json");
        assert_eq!(alone.manifest(Path::new("/sets")), data);
        assert_eq!(alone.base_checkpoint(Path::new("/sets")), Path::new("/sets/base.pth"));
        // Where its golden figures are looked for, and what it is called.
        assert_eq!(
            alone.path.with_extension("snap"),
            golden.path().join("set/alone/full.snap")
        );
        assert_eq!(alone.name(), "full");
        assert_eq!(read(&golden, "set/alone/full.toml").unwrap(), alone);
    }

    #[test]
    fn a_suite_may_extend_another() {
        let golden = golden();
        let quick = read(&golden, "set/quick/methods/full").unwrap();
        assert_eq!(quick.title, "Full, on a part");
        // Its changes come after the other's.
        assert_eq!((&quick.seeds[..], quick.dice_every), (&[7][..], Some(1)));
        assert_eq!(quick.schedule.base_lr, 1e-4);
        assert_eq!(
            quick.folder.join(&quick.data),
            golden.path().join("set/quick/../../set.json")
        );
        let names = |folder: &str| {
            let suite = Suite::open(&golden.path().join(folder)).unwrap().unwrap();
            suite.refuse_strays().unwrap();
            suite.experiments().unwrap()
        };
        assert_eq!(names("set"), ["alone/full", "methods/full"]);
        assert_eq!(names("set/quick"), ["alone/full", "methods/full"]);
        assert!(Suite::open(&golden.path().join("experiments")).unwrap().is_none());
        // With a dot in its name.
        put(
            &golden,
            "other/suite.toml",
            &SUITE.replace("methods/half", "none of them").replace("without", "#"),
        );
        let half = read(&golden, "other/methods/half.v2").unwrap();
        assert_eq!((half.name(), half.participation), ("half.v2".to_owned(), 0.5));
        assert_eq!(read(&golden, "other/methods/half.v2.toml").unwrap(), half);
    }

    #[test]
    fn a_users_file_may_extend_a_suites_experiment() {
        let golden = golden();
        put(
            &golden,
            "mine/one.toml",
            "extends = \"../set/methods/full\"\nrounds = 5\n",
        );
        let one = read(&golden, "mine/one.toml").unwrap();
        assert_eq!((one.rounds, &one.title[..]), (5, "Full, on a set"));
        assert_eq!(
            one.manifest(Path::new("")),
            golden.path().join("mine/../set/../set.json")
        );
        // Beside the golden figures, too.
        put(
            &golden,
            "set/methods/mine.toml",
            "extends = \"full.toml\"\nrounds = 5\n",
        );
        let beside = read(&golden, "set/methods/mine.toml").unwrap();
        assert_eq!(
            beside.manifest(Path::new("")),
            golden.path().join("set/methods/../../set.json")
        );
        // There the suite would not run it, and says so.
        let suite = Suite::open(&golden.path().join("set")).unwrap().unwrap();
        let why = suite.refuse_strays().unwrap_err().to_string();
        assert!(
            why.contains("set/methods/mine.toml") && why.contains("experiments"),
            "{why}"
        );
    }

    #[test]
    fn what_is_no_experiment_is_refused_by_name() {
        let golden = golden();
        assert!(refused(&golden, "set/methods/ful").contains("did you mean 'methods/full'?"));
        assert!(refused(&golden, "set/methods/half.v2").contains("'methods/half.v2'"));
        assert!(refused(&golden, "set").contains("--suite"));
        assert!(refused(&golden, "set/suite.toml").contains("it is a suite's file"));
        assert!(refused(&golden, "nowhere/methods/full").contains("check the path"));
        assert!(refused(&golden, "experiments/methods/full.toml").contains("below the suite's folder"));
        let exists = |address: &str| Experiment::exists(&golden.path().join(address));
        assert!(exists("set/methods/full") && exists("experiments/methods/full.toml"));
        assert!(!exists("set/methods/half.v2") && !exists("set") && !exists("nowhere/methods/full"));
    }

    #[test]
    fn mistakes_in_a_suites_file_are_named() {
        let golden = golden();
        let with = |from: &str, to: &str| {
            assert!(SUITE.contains(from), "{from}");
            put(&golden, "set/suite.toml", &SUITE.replace(from, to));
            refused(&golden, "set/methods/full")
        };
        assert!(with("*/full", "*/fool").contains("is called '*/fool'"));
        assert!(with("*/full", "[").contains("no pattern"));
        assert!(with("name = \"a set\"", "").contains("`name`"));
        assert!(with("without", "whithout").contains("did you mean 'without'?"));
        assert!(with("for = [\"*/full\"]", "").contains("`for`"));
        put(&golden, "set/suite.toml", SUITE.split("[suite]").next().unwrap());
        assert!(refused(&golden, "set/methods/full").contains("it has no [suite]"));
        let why = with("dice_every", "dice_evry");
        assert!(why.contains("'dice_every'?") && why.contains("set/suite.toml"), "{why}");
        assert!(with("rank = 4", "extends = \"suite.toml\"").contains("circle"));
        assert!(with("rank = 4", "extends = \"methods/full\"").contains("circle"));
        assert!(with("\"../experiments\"", "\"../lost\"").contains("lost"));
    }
}
