use std::collections::BTreeMap;
use std::time::Duration;

use flapsam_model::method::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::{Setting, surface_tolerance};
use super::evaluation::CaseScores;
use crate::federation::{Epoch, RoundRecord};
use crate::files::peak_memory;
use crate::machine;

/// What a run leaves behind, as `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the experiment shows, in its own words.
    pub title: String,
    /// What was trained and sent.
    pub method: Method,
    /// With whom a client trained.
    pub setting: Setting,
    /// Name of the data set.
    pub data: String,
    /// The seed of this run.
    pub seed: u64,
    /// Only a part of the cases was used: the experiment limits them, or the run was a rehearsal.
    pub partial: bool,
    /// The site whose training cases took no part, if one was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Name of each class, background first.
    pub classes: Vec<String>,
    /// Whether the data are synthetic, semi-synthetic or real, in the manifest's words.
    pub data_description: String,
    /// Parameters that a client trains in some round or other; the most that one does, where ranks differ.
    pub trained_parameters: usize,
    /// The weight of each site that trained in the average.
    pub weights: BTreeMap<String, f64>,
    /// The untrained adapter's Dice by class, mean over the test cases.
    pub untrained_dice: Vec<f64>,
    /// One entry a round.
    pub rounds: Vec<RoundRecord>,
    /// Every test case after the last round. For clients alone: the mean over the clients' models.
    pub cases: Vec<CaseScores>,
    /// Dice by class after the last round, mean over the test cases.
    pub dice: Vec<f64>,
    /// 95 % Hausdorff distance by class after the last round, mm, mean over the test cases that have one.
    #[serde(default)]
    pub hausdorff_95_mm: Vec<Option<f64>>,
    /// How many test cases those are: the ones with the class in both the mask and the labels.
    #[serde(default)]
    pub hausdorff_95_cases: Vec<usize>,
    /// Surface Dice by class after the last round, mean over the test cases.
    #[serde(default)]
    pub surface_dice: Vec<f64>,
    /// The tolerance of surface Dice, mm.
    #[serde(default = "surface_tolerance")]
    pub surface_tolerance_mm: f64,
    /// The same by site of the test case.
    pub dice_by_site: BTreeMap<String, Vec<f64>>,
    /// For clients alone: each client's model on all test cases, by class.
    pub alone: BTreeMap<String, Vec<f64>>,
    /// Where clients have models of their own: Dice by class of each client's model on each site's test cases. Where there
    /// is one model, `dice_by_site` is its row.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dice_by_client: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// sha256 of the adapter (the clients' adapters, one by one, when alone).
    pub adapter_sha256: Vec<String>,
}

impl Record {
    /// Dice of the trained models by class, with what each row is of: clients alone, sites' test cases, all test cases.
    pub fn dice_rows(&self) -> Vec<(String, &[f64])> {
        let alone = self.alone.iter();
        let alone = alone.map(|(site, dice)| (format!("client {site} alone, all cases"), &dice[..]));
        let sites = self.dice_by_site.iter();
        let sites = sites.map(|(site, dice)| {
            let left_out = match self.left_out.as_ref() == Some(site) {
                true => ", left out",
                false => "",
            };
            (format!("test cases of {site}{left_out}"), &dice[..])
        });
        let all = match self.setting {
            Setting::Federated | Setting::Pooled => "all test cases",
            Setting::Alone => "mean client alone",
        };
        alone.chain(sites).chain([(all.to_owned(), &self.dice[..])]).collect()
    }
}

/// Where a run's figures come from, as `provenance.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// This program.
    pub program: String,
    /// The commit it was built from, where known.
    pub commit: Option<String>,
    /// sha256 of the data set's table of checksums.
    pub data_sha256: String,
    /// sha256 of the base checkpoint.
    pub base_sha256: String,
    /// What it ran on.
    pub device: String,
    /// The seed of this run.
    pub seed: u64,
    /// sha256 of all that decides the run's figures: the experiment's settings, the seed, the data, the base, the device, and
    /// of the program the rooms that compute (`trainer/build.rs` lists them).
    pub fingerprint: String,
}

/// Where, when and in what time and memory a run was made, as `timing.json`: no two runs agree on it, so it is kept apart from
/// the figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The whole run, seconds.
    pub seconds: f64,
    /// The clients' epochs, added up, seconds.
    pub training_seconds: f64,
    /// How much of that learners waited for data.
    pub waiting_share: f64,
    /// The most memory that the program held at any time, bytes; where the system says so.
    pub peak_memory_bytes: Option<u64>,
    /// When it was finished, UTC; runs of early versions do not say.
    #[serde(default)]
    pub finished: Option<String>,
    /// The machine that it was finished on, see [`machine::facts`].
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
}

/// A time as records and their descriptions write it.
pub(crate) fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

/// Time of the clients' epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrainingTime {
    seconds: f64,
    waiting: f64,
}

impl TrainingTime {
    /// One more epoch.
    pub fn add(&mut self, epoch: &Epoch) {
        self.seconds += epoch.seconds;
        self.waiting += epoch.waiting;
    }

    /// Seconds of epochs, and of waiting in them, so far.
    pub fn seconds(&self) -> [f64; 2] {
        [self.seconds, self.waiting]
    }

    /// Goes on from an earlier [`TrainingTime::seconds`].
    pub fn after([seconds, waiting]: [f64; 2]) -> Self {
        Self { seconds, waiting }
    }

    /// The account of a run that took so long.
    pub fn finish(self, run: Duration) -> Timing {
        Timing {
            seconds: run.as_secs_f64(),
            training_seconds: self.seconds,
            waiting_share: if self.seconds > 0.0 {
                self.waiting / self.seconds
            } else {
                0.0
            },
            peak_memory_bytes: peak_memory(),
            finished: Some(utc(Timestamp::now())),
            machine: machine::facts()
                .into_iter()
                .map(|(name, fact)| (name.to_owned(), fact))
                .collect(),
        }
    }
}
