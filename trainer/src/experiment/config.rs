use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flapsam_model::config::LoraInit;
use flapsam_model::method::Method;
use flapsam_model::preprocessing::Preprocessing;
use serde::{Deserialize, Serialize};

use super::files::{DATA, explain, find};
use super::{suite, sweep};
use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::federation::wire::Precision;
use crate::federation::{Aggregation, Fault, LocalTraining, Privacy, Robust, Rules, ServerAdam};
use crate::training::Schedule;

/// An experiment file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The file it was read from; of a suite's experiment, the one that would lie in the suite's folder.
    #[serde(skip)]
    pub path: PathBuf,
    /// Where its relative paths start: the folder of its file, or of its suite.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Its settings as one file, whatever files they come from.
    #[serde(skip)]
    pub resolved: String,
    /// What it shows, for people.
    pub title: String,
    /// The data set's manifest, relative to the file that names it; or to the folder of data sets, if it starts with
    /// `$DATA/`.
    pub data: PathBuf,
    /// The base checkpoint, likewise.
    pub base: PathBuf,
    /// Which SAM the base is: vit_b, vit_l, vit_h, mobile_sam or nano.
    pub model: String,
    /// Side of the training image, pixels.
    pub image_size: usize,
    /// What is trained and sent.
    pub method: Method,
    /// With whom a client trains.
    #[serde(default)]
    pub setting: Setting,
    /// Rank of the LoRA pairs.
    pub rank: usize,
    /// Rank of the pairs of single sites, where it is lower than `rank`: each trains and sends pairs of its own rank, and
    /// takes the first ranks of the server's (FlexLoRA, arXiv 2402.11505).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<String, usize>,
    /// Pairs of each projection, mixed by weights that each client learns for itself and keeps.
    #[serde(default = "one")]
    pub num_lora: usize,
    /// Weight-decomposed pairs (DoRA).
    #[serde(default)]
    pub dora: bool,
    /// Train and send DoRA's magnitudes too; in the reference they stay as the base has them.
    #[serde(default)]
    pub train_magnitude: bool,
    /// How the pairs start.
    #[serde(default)]
    pub lora_init: LoraInit,
    /// How the server makes one LoRA pair of the clients' pairs.
    #[serde(default)]
    pub aggregation: Aggregation,
    /// The share of clients that take part in a round, drawn anew for each by the seed: above 0, at most 1. A client that
    /// sits out gets the server's state when it takes part next.
    #[serde(default = "all_of_them")]
    pub participation: f64,
    /// In how many bits parameters travel.
    #[serde(default)]
    pub precision: Precision,
    /// The server's own optimizer, FedAdam; plain averaging without it.
    pub server_adam: Option<ServerAdam>,
    /// What hides a client's data from everybody else, the server too; nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
    /// What keeps single clients from spoiling the mean; plain averaging without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub robust: Option<Robust>,
    /// How many of a round's clients must hand in an update that can be used; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quorum: Option<usize>,
    /// The largest change of a client that is used, as a multiple of the round's median change; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_change: Option<f64>,
    /// Whether the server is to learn the sum of what clients say and no client's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secure_aggregation: bool,
    /// What goes wrong at clients, on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fault: Vec<Fault>,
    /// Rounds of one local epoch each.
    pub rounds: usize,
    /// One run for each.
    pub seeds: Vec<u64>,
    /// A site whose training cases take no part; it is judged as all others: leave-one-site-out.
    pub leave_out: Option<String>,
    /// Where to compute; the command line may say otherwise.
    #[serde(default)]
    pub device: DeviceChoice,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Judge the server's state on all test cases after every so many rounds, for Dice over rounds; only after the last
    /// one without it.
    pub dice_every: Option<usize>,
    /// How far apart surfaces may lie and still count as the same in surface Dice, mm: for a structure, as far as
    /// experts differ on it (arXiv 1809.04430).
    #[serde(default = "surface_tolerance")]
    pub surface_tolerance_mm: f64,
    /// Keep the predicted masks of the test cases.
    #[serde(default)]
    pub save_predictions: bool,
    /// For choosing settings: this share of each site's training patients (above 0, below 1; the same ones for every
    /// experiment on the data) is held out and judged in place of the test cases, which nobody looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<f64>,
    /// Deal each site's patients out to so many clients, `site-1`, `site-2` and on, which are sites of their own from
    /// then on: a federation of more clients than the data have hospitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_per_site: Option<usize>,
    /// Use only so many training and test cases of each site, for short suites; all without it.
    pub cases_per_site: Option<[usize; 2]>,
    /// How scans are prepared.
    #[serde(default)]
    pub preprocessing: Preprocessing,
    /// How a client goes through its data.
    pub local: LocalTraining,
    /// The learning rate.
    pub schedule: ScheduleSettings,
}

/// The learning rate's schedule, whose decay is given in steps or in epochs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// Highest rate.
    pub base_lr: f64,
    /// Steps of warm-up, at least 1.
    pub warmup_period: usize,
    /// Steps after the warm-up until the rate would be zero; this or `max_epochs`.
    pub max_iterations: Option<usize>,
    /// The same in epochs of each client's own data (the reference).
    pub max_epochs: Option<usize>,
    /// Exponent of the decay.
    pub lr_exp: u32,
}

impl ScheduleSettings {
    /// The schedule of a client whose epochs have so many batches.
    pub fn of_client(&self, batches: usize) -> Schedule {
        let by_epochs = self.max_epochs.map(|epochs| epochs.saturating_mul(batches));
        Schedule {
            base_lr: self.base_lr,
            warmup_period: self.warmup_period,
            max_iterations: self.max_iterations.or(by_epochs).unwrap_or(1),
            lr_exp: self.lr_exp,
        }
    }
}

fn one() -> usize {
    1
}

fn all_of_them() -> f64 {
    1.0
}

/// The strictest that the evaluation of the FLARE challenges on abdominal CT takes for an organ (a kidney has 3 mm).
pub(super) fn surface_tolerance() -> f64 {
    2.0
}

/// What may be meant by a file with too few settings.
const INCOMPLETE: &str = "; an experiment that suites run gets the others from a suite: name it below the suite's \
                          folder, such as golden/phantom/methods/flap_sam";

/// With whom a client trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Federated averaging over all sites.
    #[default]
    Federated,
    /// Each client by itself, for as many epochs as there are rounds.
    Alone,
    /// One client with all sites' data, for as many epochs as there are rounds.
    Pooled,
}

impl Experiment {
    /// Reads the experiment at an address: that of its file, or that of a suite's folder and, below it, the
    /// experiment's name, such as `golden/phantom/methods/flap_sam`.
    ///
    /// # Errors
    /// It cannot be read, a key is missing or unknown (then the nearest known one is named), or a value makes no sense.
    pub fn read(address: &Path) -> Result<Self> {
        let found = find(address)?;
        let parsed = Self::parse(&found.path, found.text.clone(), &found.whence);
        let mut experiment = parsed.map_err(|why| match sweep::is_sweep(&found.text) {
            true => {
                let why =
                    "it is a sweep over several experiments, which only 'flapsam run' takes; name one without [sweep]";
                Error::invalid(address, why)
            }
            false => why,
        })?;
        experiment.folder = found.folder;
        Ok(experiment)
    }

    /// The experiment in the settings that were read from `path`; `whence` says where else what is wrong may stand.
    ///
    /// # Errors
    /// As of [`Experiment::read`].
    pub fn parse(path: &Path, text: String, whence: &str) -> Result<Self> {
        let refuse = |why: toml::de::Error| {
            let by_itself = why.message().starts_with("missing field") && path.is_file();
            let hint = if by_itself { INCOMPLETE } else { "" };
            Error::invalid(path, explain(&why) + whence + hint)
        };
        let mut experiment: Self = toml::from_str(&text).map_err(refuse)?;
        let preprocessing = experiment.preprocessing.check();
        preprocessing.map_err(Error::content(path))?;
        if let Some(why) = experiment.mistake() {
            return Err(Error::invalid(path, why + whence));
        }
        experiment.path = path.to_owned();
        experiment.resolved = text;
        Ok(experiment)
    }

    /// Whether there is an experiment at an address.
    pub fn exists(address: &Path) -> bool {
        suite::exists(address)
    }

    /// What its clients and its server agree on.
    pub fn rules(&self, seed: u64) -> Rules {
        Rules {
            seed,
            rounds: self.rounds,
            local: self.local,
            participation: self.participation,
            aggregation: self.aggregation,
            precision: self.precision,
            server_adam: self.server_adam,
            privacy: self.privacy,
            robust: self.robust,
            quorum: self.quorum,
            largest_change: self.largest_change,
            secure_aggregation: self.secure_aggregation,
        }
    }

    /// Whether clients keep a part of the network to themselves, so that each has a model of its own.
    pub fn has_personal_models(&self) -> bool {
        let personal = self.num_lora > 1 || self.aggregation.is_personal();
        self.setting == Setting::Federated && self.method.uses_lora() && personal
    }

    /// The settings that decide the figures, as text: without the title, the device, and where files lie.
    pub fn deciding_settings(&self) -> String {
        self.deciding().to_string()
    }

    fn deciding(&self) -> toml::Table {
        // Of the settings as they were understood: a default says the same whether it is written down or not.
        let mut settings = toml::Table::try_from(self).unwrap_or_default();
        for key in ["title", "data", "base", "device", "seeds", "save_predictions"] {
            settings.remove(key);
        }
        settings
    }

    /// The keys of settings that decide the figures and are not the same in another experiment.
    pub fn differences(&self, other: &Experiment) -> Vec<String> {
        differences(self.deciding(), other.deciding())
    }

    /// The same with both values, as TOML; one that is not set is nothing.
    pub fn differing_values(&self, other: &Experiment) -> Vec<(String, String, String)> {
        let [own, others] = [self, other].map(|experiment| flat(experiment.deciding()));
        let value = |flat: &BTreeMap<String, toml::Value>, key: &str| {
            flat.get(key).map_or(String::new(), toml::Value::to_string)
        };
        let keys = self.differences(other).into_iter();
        keys.map(|key| {
            let (own, other) = (value(&own, &key), value(&others, &key));
            (key, own, other)
        })
        .collect()
    }

    /// The same, of another experiment's [`Experiment::deciding_settings`]; none if they are not readable.
    pub fn differing_settings(&self, other: &str) -> Vec<String> {
        other
            .parse()
            .map_or_else(|_| Vec::new(), |other| differences(self.deciding(), other))
    }

    /// The file's name without its ending: what the experiment is called.
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the data set's manifest is, given the folder of data sets.
    pub fn manifest(&self, data: &Path) -> PathBuf {
        self.beside(&self.data, data)
    }

    /// Where the base checkpoint is, given the folder of data sets.
    pub fn base_checkpoint(&self, data: &Path) -> PathBuf {
        self.beside(&self.base, data)
    }

    fn beside(&self, path: &Path, data: &Path) -> PathBuf {
        match path.strip_prefix(DATA) {
            Ok(within) => data.join(within),
            Err(_) => self.folder.join(path),
        }
    }
}

/// The keys that two tables do not have alike.
fn differences(own: toml::Table, other: toml::Table) -> Vec<String> {
    let [own, other] = [own, other].map(flat);
    let keys: BTreeSet<&String> = own.keys().chain(other.keys()).collect();
    let differ = keys.into_iter().filter(|key| own.get(*key) != other.get(*key));
    differ.cloned().collect()
}

/// A table's values by their whole keys, such as `local.augment`.
pub(super) fn flat(table: toml::Table) -> BTreeMap<String, toml::Value> {
    let mut flat = BTreeMap::new();
    flatten("", table, &mut flat);
    flat
}

fn flatten(above: &str, table: toml::Table, flat: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let key = format!("{above}{key}");
        match value {
            toml::Value::Table(table) => flatten(&format!("{key}."), table, flat),
            value => {
                flat.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const COMMON: &str = r#"
data = "set.json"
base = "$DATA/base.pth"
model = "nano"
image_size = 32
method = "flap_sam"
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
"#;

    fn read(own: &str) -> Result<Experiment> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("methods")).unwrap();
        fs::write(folder.path().join("common.toml"), COMMON).unwrap();
        let path = folder.path().join("methods/one.toml");
        fs::write(&path, own).unwrap();
        Experiment::read(&path)
    }

    #[test]
    fn a_file_changes_what_it_extends_and_keeps_the_rest() {
        let own = "extends = \"../common.toml\"\ntitle = \"one\"\nrounds = 3\n[schedule]\nbase_lr = 0.5\n";
        let experiment = read(own).unwrap();
        assert_eq!((experiment.rounds, experiment.rank), (3, 4));
        assert_eq!((experiment.schedule.base_lr, experiment.schedule.lr_exp), (0.5, 2));
        // Paths mean what they mean in the file that has them.
        assert_eq!(experiment.data, Path::new("../set.json"));
        assert_eq!(
            experiment.base_checkpoint(Path::new("/sets")),
            Path::new("/sets/base.pth")
        );
        // A default says the same whether it is written or not; another value is named.
        let same = read("extends = \"../common.toml\"\ntitle = \"two\"\nrounds = 3\nnum_lora = 1\n").unwrap();
        assert_eq!(same.differences(&experiment), ["schedule.base_lr"]);
        // So does a key that is not there at all: what was made before there was one is still the same run.
        assert!(!experiment.deciding_settings().contains("leave_out"));
        let without = read("extends = \"../common.toml\"\ntitle = \"one\"\nrounds = 3\nleave_out = \"A\"\n").unwrap();
        assert_eq!(without.differences(&same), ["leave_out"]);
        // The settings as one text say the same.
        assert_eq!(toml::from_str::<Experiment>(&experiment.resolved).unwrap().rounds, 3);
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        let refused = |own: &str| {
            let text = format!("extends = \"../common.toml\"\ntitle = \"one\"\n{own}");
            read(&text).unwrap_err().to_string()
        };
        assert!(refused("[server_adam]\nrate = 0.1\n").contains("mean_of_factors"));
        assert!(refused("aggregation = \"stacked\"\nnum_lora = 2\n").contains("num_lora"));
        assert!(refused("aggregation = \"stacked\"\nmethod = \"lora_decoder_ft\"\n").contains("flap_sam"));
        assert!(refused("[local]\nproximal = -1.0\n").contains("local.proximal"));
        assert!(refused("num_lora = 0\n").contains("at least 1"));
        assert!(refused("cases_per_site = [2, 0]\n").contains("cases_per_site"));
        assert!(refused("seeds = [3, 1, 3]\n").contains("3 twice"));
        assert!(refused("setting = \"alone\"\nprecision = \"int8\"\n").contains("'precision' has no effect"));
        assert!(refused("aggregation = \"mean_of_factors\"\n[server_adam]\nrate = 0.1\ntau = 0.0\n").contains("tau"));
        assert!(refused("[schedule]\nmax_epochs = 3\n").contains("max_iterations"));
        assert!(refused("leave_out = \"A\"\nsetting = \"alone\"\n").contains("'leave_out' has no effect"));
        assert!(refused("leave_out = \"A\"\nnum_lora = 2\n").contains("that site has none"));
        assert!(refused("leave_out = \"A\"\naggregation = \"fedsa_lora\"\n").contains("that site has none"));
        assert!(
            read("extends = \"one.toml\"\n")
                .unwrap_err()
                .to_string()
                .contains("circle")
        );
        assert!(refused("rouns = 3\n").contains("'rounds'?; look into \"../common.toml\", too"));
        assert!(read("extends = 3\n").unwrap_err().to_string().contains("extends"));
        #[cfg(unix)]
        assert!(
            read("extends = \"/dev/zero\"\n")
                .unwrap_err()
                .to_string()
                .contains("a device")
        );
    }
}
