//! The paper's claims, judged by what can be computed: from numbers of parameters at once, from Dice where there are
//! runs on the claim's data set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::Layout;
use flapsam_model::sam::Sam;
use serde::{Deserialize, Serialize};

use super::golden::{Figure, Figures};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance, Setting};
use crate::files::{read, read_json};

/// The data of a claim that numbers of parameters alone decide.
const COUNTS: &str = "counts";

/// A file of claims, such as `golden/claims.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The file it was read from.
    #[serde(skip)]
    pub path: PathBuf,
    /// Rounds of the paper's experiments.
    pub rounds: usize,
    /// The paper's network.
    pub network: Network,
    /// All claims.
    #[serde(rename = "claim")]
    pub claims: Vec<Claim>,
}

/// The network that the claims are about.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// vit_b, vit_l, vit_h or nano.
    pub model: String,
    /// Side of the training image, pixels.
    pub image_size: usize,
    /// Foreground classes.
    pub classes: usize,
    /// Rank of the LoRA pairs.
    pub rank: usize,
    /// sha256 of the base checkpoint.
    pub base_sha256: String,
}

/// One claim and the rule that judges it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Short and unique.
    pub id: String,
    /// What is claimed, in our own words.
    pub statement: String,
    /// Where in the paper.
    pub source: String,
    /// The data set whose runs are needed, or "counts".
    pub data: String,
    /// What is computed.
    pub measure: Measure,
    /// What the paper says that it is.
    pub paper: Paper,
    /// How far the computed value may lie from the paper's, in the measure's own unit; 0 where that is only a direction.
    #[serde(default)]
    pub within: f64,
}

/// What is computed for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Measure {
    /// Parameters that one method trains over those of another.
    ParameterRatio {
        /// Above the line.
        of: Method,
        /// Below it.
        to: Method,
    },
    /// What one client sends one way in all rounds, in 2^30 bits.
    Gibibits {
        /// The method.
        of: Method,
    },
    /// Federated Dice of one method less that of another, percent points.
    DiceDifference {
        /// The method.
        of: Method,
        /// What it is compared with.
        to: Method,
    },
    /// Federated Dice less that of clients alone, percent points.
    GainOverAlone {
        /// The method.
        of: Method,
    },
}

impl Measure {
    /// The value that is no finding in either direction.
    fn neutral(self) -> f64 {
        match self {
            Measure::ParameterRatio { .. } => 1.0,
            _ => 0.0,
        }
    }

    /// Whether numbers of parameters suffice.
    fn is_counted(self) -> bool {
        matches!(self, Measure::ParameterRatio { .. } | Measure::Gibibits { .. })
    }

    /// What is computed, for people.
    pub fn describe(self) -> String {
        match self {
            Measure::ParameterRatio { of, to } => format!("parameters: {} / {}", of.name(), to.name()),
            Measure::Gibibits { of } => format!("gibibits of {}", of.name()),
            Measure::DiceDifference { of, to } => format!("Dice: {} - {}", of.name(), to.name()),
            Measure::GainOverAlone { of } => format!("Dice: {} - clients alone", of.name()),
        }
    }
}

/// By what a measure is computed.
enum Means {
    /// Parameters: at once.
    Counted(f64),
    /// The Dice of the first runs less that of the second.
    Runs([(Method, Setting); 2]),
}

/// What the paper says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paper {
    /// A value.
    Value(f64),
    /// Only a direction.
    Sign(Sign),
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// The difference is above zero.
    Above,
}

/// How a claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Near the paper's value.
    Reproduced,
    /// Farther from it, in the same direction.
    Differs,
    /// Neither.
    NotReproduced,
    /// Runs are missing.
    NotRun,
}

impl Verdict {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Reproduced => "reproduced",
            Verdict::Differs => "differs",
            Verdict::NotReproduced => "not reproduced",
            Verdict::NotRun => "not run",
        }
    }
}

/// A claim and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// The claim.
    #[serde(flatten)]
    pub claim: Claim,
    /// What we computed; `None` where runs are missing.
    pub ours: Option<f64>,
    /// How it stands.
    pub verdict: Verdict,
    /// What is missing.
    pub missing: Vec<Missing>,
}

/// What a claim waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// Which runs.
    pub runs: String,
    /// How to get them.
    pub remedy: String,
}

impl Claim {
    fn verdict(&self, ours: f64) -> Verdict {
        let neutral = self.measure.neutral();
        let (near, same_direction) = match self.paper {
            Paper::Value(paper) => (
                (ours - paper).abs() <= self.within,
                (ours - neutral) * (paper - neutral) > 0.0,
            ),
            Paper::Sign(Sign::Above) => (ours > neutral, false),
        };
        match (near, same_direction) {
            (true, _) => Verdict::Reproduced,
            (false, true) => Verdict::Differs,
            (false, false) => Verdict::NotReproduced,
        }
    }

    fn judged(&self, ours: f64) -> Judged {
        Judged {
            claim: self.clone(),
            ours: Some(ours),
            verdict: self.verdict(ours),
            missing: Vec::new(),
        }
    }
}

impl Claims {
    /// Reads a file of claims.
    ///
    /// # Errors
    /// It cannot be read, a key is missing or unknown, two claims have one id, or a claim's data do not fit its measure.
    pub fn read(path: &Path) -> Result<Self> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let mut claims: Self =
            toml::from_str(&text).map_err(|why| Error::invalid(path, why.to_string().trim_end().to_owned()))?;
        claims.path = path.to_owned();
        let mut ids = BTreeSet::new();
        for claim in &claims.claims {
            let id = &claim.id;
            if !ids.insert(id) {
                return Err(Error::invalid(
                    path,
                    format!("two claims are called '{id}'; rename one"),
                ));
            }
            if claim.measure.is_counted() != (claim.data == COUNTS) {
                let why = format!("claim '{id}': data must be '{COUNTS}' where parameters are counted, and only there");
                return Err(Error::invalid(path, why));
            }
        }
        Ok(claims)
    }

    /// Judges every claim. Those on data sets need runs.
    ///
    /// # Errors
    /// The paper's network is none.
    pub fn judge(&self, runs: &Runs) -> Result<Vec<Judged>> {
        let layout = self.layout()?;
        let judge = |claim: &Claim| match self.means(claim.measure, &layout) {
            Means::Counted(ours) => claim.judged(ours),
            Means::Runs(wanted) => self.judge_by_runs(claim, wanted, runs),
        };
        Ok(self.claims.iter().map(judge).collect())
    }

    /// What numbers of parameters decide, as golden figures: the value, and the verdict.
    ///
    /// # Errors
    /// The paper's network is none.
    pub fn figures(&self) -> Result<Figures> {
        let layout = self.layout()?;
        let counted = self
            .claims
            .iter()
            .filter_map(|claim| match self.means(claim.measure, &layout) {
                Means::Counted(ours) => Some((claim, ours)),
                Means::Runs(_) => None,
            });
        let figures = counted.flat_map(|(claim, ours)| {
            let verdict = claim.verdict(ours).name().to_owned();
            [
                (claim.id.clone(), Figure::Exact(format!("{ours:.4}"))),
                (format!("{}.verdict", claim.id), Figure::Exact(verdict)),
            ]
        });
        Ok(figures.collect())
    }

    /// The paper's network.
    fn layout(&self) -> Result<Layout> {
        let network = &self.network;
        let Some(sam) = SamConfig::named(&network.model) else {
            let known = SamConfig::NAMES.join(", ");
            let why = format!("there is no model '{}'; choose one of {known}", network.model);
            return Err(Error::invalid(&self.path, why));
        };
        let adapter = AdapterConfig::lora(network.classes, network.rank);
        let layout = Sam::layout(&sam.with_image_size(network.image_size), Some(&adapter));
        layout.map_err(Error::content(&self.path))
    }

    fn means(&self, measure: Measure, layout: &Layout) -> Means {
        let count = |method: Method| method.count(layout) as f64;
        let together = |method| (method, Setting::Federated);
        match measure {
            Measure::ParameterRatio { of, to } => Means::Counted(count(of) / count(to)),
            Measure::Gibibits { of } => Means::Counted(count(of) * 32.0 * self.rounds as f64 / (1u64 << 30) as f64),
            Measure::DiceDifference { of, to } => Means::Runs([together(of), together(to)]),
            Measure::GainOverAlone { of } => Means::Runs([together(of), (of, Setting::Alone)]),
        }
    }

    fn judge_by_runs(&self, claim: &Claim, wanted: [(Method, Setting); 2], runs: &Runs) -> Judged {
        let states = runs.states(&claim.data);
        let dice = |state| wanted.map(|wanted| runs.dice(&claim.data, state, wanted));
        let complete: Vec<f64> = states
            .iter()
            .filter_map(|state| match dice(state) {
                [Some(dice), Some(other)] => Some(dice - other),
                _ => None,
            })
            .collect();
        let missing = match complete[..] {
            [ours] => return claim.judged(ours),
            [] => {
                // Counted against the state of the data that has most of them.
                let fullest = states.iter().max_by_key(|state| dice(state).iter().flatten().count());
                let absent = wanted
                    .into_iter()
                    .filter(|&wanted| fullest.is_none_or(|state| runs.dice(&claim.data, state, wanted).is_none()));
                absent.map(|wanted| self.missing(&claim.data, wanted)).collect()
            }
            _ => vec![Missing {
                runs: format!(
                    "{}, runs on one state of data and base; there are {}",
                    claim.data,
                    complete.len()
                ),
                remedy: "pass --runs with a folder that holds the runs of only one".into(),
            }],
        };
        Judged {
            claim: claim.clone(),
            ours: None,
            verdict: Verdict::NotRun,
            missing,
        }
    }

    /// A run that is missing, and how it is made: by the experiment of the suite beside the claims, into a folder of its own.
    fn missing(&self, data: &str, wanted: (Method, Setting)) -> Missing {
        let address = self.experiment(data, wanted);
        let part = address.parent().and_then(Path::file_name).unwrap_or_default();
        Missing {
            runs: format!("{data}, {}, {}", wanted.0.name(), name_of(wanted.1)),
            remedy: match Experiment::exists(&address) {
                true => format!(
                    "flapsam run {} --out runs/{data}/{}",
                    address.display(),
                    part.to_string_lossy()
                ),
                false => format!("write {}.toml and 'flapsam run' it", address.display()),
            },
        }
    }

    /// The address of the paper's experiment on a data set, in the suite beside the claims.
    fn experiment(&self, data: &str, (method, setting): (Method, Setting)) -> PathBuf {
        let part = match setting {
            Setting::Alone => "alone",
            Setting::Federated | Setting::Pooled => "methods",
        };
        let folder = self.path.parent().unwrap_or(Path::new("")).join(data);
        folder.join(part).join(method.name())
    }
}

/// The name in experiment files.
fn name_of(setting: Setting) -> String {
    let name = serde_json::to_value(setting).ok();
    name.and_then(|name| Some(name.as_str()?.to_owned()))
        .unwrap_or_default()
}

/// Runs that claims may be judged by.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    counted: Vec<Run>,
    /// The others.
    pub not_counted: Vec<NotCounted>,
}

/// A run that no claim is judged by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotCounted {
    /// Its folder.
    pub folder: PathBuf,
    /// Why.
    pub why: String,
}

#[derive(Debug, Clone)]
struct Run {
    facts: Facts,
    state: State,
    experiment: Experiment,
}

/// sha256 of the data's table and of the base checkpoint: runs on different ones are not compared.
type State = (String, String);

/// What a claim needs of a run's `metrics.json`.
#[derive(Debug, Clone, Deserialize)]
struct Facts {
    data: String,
    method: Method,
    setting: Setting,
    seed: u64,
    partial: bool,
    dice: Vec<f64>,
}

impl Runs {
    /// Finds every run below a folder and sorts out those that say nothing about the claims.
    ///
    /// # Errors
    /// The folder or one of the paper's experiment files cannot be read.
    pub fn find(folder: &Path, claims: &Claims) -> Result<Self> {
        std::fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
        let mut runs = Self::default();
        for metrics in files(folder, "**/metrics.json")? {
            let folder = metrics.parent().unwrap_or(folder).to_owned();
            match read_run(&folder) {
                Err(why) => runs.leave_out(folder, why.to_string()),
                Ok(run) => match runs.why_not(&run, claims)? {
                    Some(why) => runs.leave_out(folder, why),
                    None => runs.counted.push(run),
                },
            }
        }
        Ok(runs)
    }

    fn leave_out(&mut self, folder: PathBuf, why: String) {
        self.not_counted.push(NotCounted { folder, why });
    }

    /// Why a run does not count.
    fn why_not(&self, run: &Run, claims: &Claims) -> Result<Option<String>> {
        let Run {
            facts,
            state,
            experiment,
        } = run;
        if claims.claims.iter().all(|claim| claim.data != facts.data) {
            return Ok(Some(format!("no claim is about {}", facts.data)));
        }
        if facts.partial {
            return Ok(Some("it used only a part of the cases".into()));
        }
        if facts.dice.is_empty() {
            return Ok(Some("it has no Dice of any class".into()));
        }
        if state.1 != claims.network.base_sha256 {
            return Ok(Some("it started from another base checkpoint than the paper's".into()));
        }
        let paper = claims.experiment(&facts.data, (facts.method, facts.setting));
        if !Experiment::exists(&paper) {
            return Ok(Some(format!("there is no {} to hold it against", paper.display())));
        }
        let mut different = experiment.differences(&Experiment::read(&paper)?);
        different.retain(|key| !JUDGING.contains(&&**key));
        if !different.is_empty() {
            let (paper, keys) = (paper.display(), different.join(", "));
            return Ok(Some(format!("it is not of the settings of {paper}: {keys}")));
        }
        let key = |facts: &Facts| (facts.data.clone(), facts.method, facts.setting, facts.seed);
        let mut counted = self.counted.iter();
        let twin = counted.any(|run| key(&run.facts) == key(facts) && run.state == *state);
        Ok(twin.then(|| format!("another run of {} has its seed, {}", facts.method.name(), facts.seed)))
    }

    /// The states of a data set and its base that there are runs on.
    fn states(&self, data: &str) -> BTreeSet<State> {
        let runs = self.counted.iter().filter(|run| run.facts.data == data);
        runs.map(|run| run.state.clone()).collect()
    }

    /// Dice in percent: the mean over foreground classes and seeds.
    fn dice(&self, data: &str, state: &State, wanted: (Method, Setting)) -> Option<f64> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let runs = self.counted.iter().filter(|run| {
            let facts = &run.facts;
            facts.data == data && run.state == *state && (facts.method, facts.setting) == wanted
        });
        let seeds: Vec<f64> = runs.map(|run| 100.0 * mean(&run.facts.dice)).collect();
        (!seeds.is_empty()).then(|| mean(&seeds))
    }
}

/// Settings that say when and how Dice is looked at besides, which moves no Dice.
const JUDGING: [&str; 2] = ["dice_every", "surface_tolerance_mm"];

fn read_run(folder: &Path) -> Result<Run> {
    let provenance: Provenance = read_json(&folder.join("provenance.json"))?;
    Ok(Run {
        experiment: Experiment::read(&folder.join("config.toml"))?,
        facts: read_json(&folder.join("metrics.json"))?,
        state: (provenance.data_sha256, provenance.base_sha256),
    })
}

/// The files below a folder that a pattern names, in order.
fn files(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let pattern = format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy()));
    let paths = glob::glob(&pattern).map_err(|why| Error::invalid(folder, why))?;
    Ok(paths.filter_map(|path| path.ok()).collect())
}
