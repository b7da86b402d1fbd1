use std::path::{Path, PathBuf};

use flapsam_model::config::LoraInit;
use flapsam_model::method::Method;
use flapsam_model::preprocessing::Preprocessing;
use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;
use crate::error::{Error, Result};
use crate::federation::{Aggregation, LocalTraining};
use crate::files::read;
use crate::training::Schedule;

/// An experiment file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The file it was read from.
    #[serde(skip)]
    pub path: PathBuf,
    /// What it shows, for people.
    pub title: String,
    /// The data set's manifest, relative to this file.
    pub data: PathBuf,
    /// The base checkpoint, relative to this file.
    pub base: PathBuf,
    /// Which SAM the base is: vit_b, vit_l, vit_h or nano.
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
    /// Rounds of one local epoch each.
    pub rounds: usize,
    /// One run for each.
    pub seeds: Vec<u64>,
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
    pub lr_exp: i32,
}

impl ScheduleSettings {
    /// The schedule of a client whose epochs have so many batches.
    pub fn of_client(&self, batches: usize) -> Schedule {
        let by_epochs = self.max_epochs.map(|epochs| epochs * batches);
        Schedule {
            base_lr: self.base_lr,
            warmup_period: self.warmup_period,
            max_iterations: self.max_iterations.or(by_epochs).unwrap_or(1),
            lr_exp: self.lr_exp,
        }
    }
}

fn all_of_them() -> f64 {
    1.0
}

/// The strictest that the evaluation of the FLARE challenges on abdominal CT takes for an organ (a kidney has 3 mm).
pub(super) fn surface_tolerance() -> f64 {
    2.0
}

/// With whom a client trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// Federated averaging over all sites.
    #[default]
    Federated,
    /// Each client by itself, for as many epochs as there are rounds.
    Alone,
}

impl Experiment {
    /// Reads an experiment file.
    ///
    /// # Errors
    /// It cannot be read, a key is missing or unknown (then the nearest known one is named), or a value makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut experiment: Self = toml::from_str(&text).map_err(|why| Error::invalid(path, explain(&why)))?;
        experiment.path = path.to_owned();
        let preprocessing = experiment.preprocessing.check();
        preprocessing.map_err(Error::content(path))?;
        let positive = [
            ("rounds", experiment.rounds),
            ("seeds", experiment.seeds.len()),
            ("local.batch_stacks", experiment.local.batch_stacks),
            ("local.stack_stride", experiment.local.stack_stride),
            ("schedule.warmup_period", experiment.schedule.warmup_period),
            (
                "schedule.max_iterations",
                experiment.schedule.max_iterations.unwrap_or(1),
            ),
            ("dice_every", experiment.dice_every.unwrap_or(1)),
            ("schedule.max_epochs", experiment.schedule.max_epochs.unwrap_or(1)),
        ];
        if !(experiment.participation > 0.0 && experiment.participation <= 1.0) {
            let why = format!(
                "'participation' is {}; it must be above 0 and at most 1",
                experiment.participation
            );
            return Err(Error::invalid(path, why));
        }
        let tolerance = experiment.surface_tolerance_mm;
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            let why = format!("'surface_tolerance_mm' is {tolerance}; it must be a number of millimetres, 0 or more");
            return Err(Error::invalid(path, why));
        }
        let decay = (experiment.schedule.max_iterations, experiment.schedule.max_epochs);
        if decay.0.is_some() == decay.1.is_some() {
            let why = "[schedule] must have either 'max_iterations' or 'max_epochs'";
            return Err(Error::invalid(path, why));
        }
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Error::invalid(path, format!("'{key}' must be at least 1"))),
            None => Ok(experiment),
        }
    }

    /// The file's name without its ending: what the experiment is called.
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where the data set's manifest is.
    pub fn manifest(&self) -> PathBuf {
        self.beside(&self.data)
    }

    /// Where the base checkpoint is.
    pub fn base_checkpoint(&self) -> PathBuf {
        self.beside(&self.base)
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// The parser's message; for an unknown key, the nearest known one instead of all of them.
fn explain(why: &toml::de::Error) -> String {
    let message = why.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(unknown) = quoted.next()
        && let Some(nearest) = quoted.max_by(|a, b| {
            let likeness = |known: &str| strsim::jaro_winkler(unknown, known);
            likeness(a).total_cmp(&likeness(b))
        })
    {
        return format!("there is no key '{unknown}'; did you mean '{nearest}'?");
    }
    why.to_string().trim_end().to_owned()
}
