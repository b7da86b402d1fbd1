//! The paper's claims, judged by what can be computed: from numbers of parameters at once, from Dice where there are
//! runs on the claim's data set. And, apart from them, claims of [`ours`].

pub mod ours;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::Layout;
use flapsam_model::sam::Sam;
use serde::{Deserialize, Serialize};

use self::ours::{OurClaim, Ours, OursJudged};
use super::golden::{Figure, Figures};
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Provenance, Record, Setting, run_folders};
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
    /// All of the paper's claims.
    #[serde(rename = "claim")]
    pub claims: Vec<Claim>,
    /// Claims of ours, if the file has any.
    pub ours: Option<Ours>,
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

    /// What is measured, and what that is compared with.
    fn sides(self) -> [&'static str; 2] {
        match self {
            Measure::ParameterRatio { of, to } | Measure::DiceDifference { of, to } => [of.name(), to.name()],
            Measure::Gibibits { of } | Measure::GainOverAlone { of } => [of.name(), "clients alone"],
        }
    }

    /// What is computed, for people.
    pub fn describe(self) -> String {
        let [of, to] = self.sides();
        match self {
            Measure::ParameterRatio { .. } => format!("parameters: {of} / {to}"),
            Measure::Gibibits { .. } => format!("gibibits of {of}"),
            Measure::DiceDifference { .. } | Measure::GainOverAlone { .. } => format!("Dice: {of} - {to}"),
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
    /// Of ours only: runs are there, and chance may have made them what they are.
    Undecided,
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
            Verdict::Undecided => "undecided",
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
    /// It cannot be read, a key is missing or unknown, two claims have one id, a claim's data do not fit its measure, or
    /// ours are about a data set of the paper's.
    pub fn read(path: &Path) -> Result<Self> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let mut claims: Self =
            toml::from_str(&text).map_err(|why| Error::invalid(path, why.to_string().trim_end().to_owned()))?;
        claims.path = path.to_owned();
        let ours = claims.ours.iter().flat_map(|ours| &ours.claims);
        let mut ids = BTreeSet::new();
        for id in claims
            .claims
            .iter()
            .map(|claim| &claim.id)
            .chain(ours.map(|claim| &claim.id))
        {
            if !ids.insert(id) {
                return Err(Error::invalid(
                    path,
                    format!("two claims are called '{id}'; rename one"),
                ));
            }
        }
        for claim in &claims.claims {
            let id = &claim.id;
            if claim.measure.is_counted() != (claim.data == COUNTS) {
                let why = format!("claim '{id}': data must be '{COUNTS}' where parameters are counted, and only there");
                return Err(Error::invalid(path, why));
            }
        }
        if let Some(ours) = &claims.ours {
            let mixed = claims.claims.iter().find(|claim| claim.data == ours.data);
            let mixed = mixed.map(|claim| {
                let (id, data) = (&claim.id, &ours.data);
                format!("[ours] is about '{data}', as the paper's '{id}' is; choose data that only ours are about")
            });
            if let Some(why) = mixed.or_else(|| ours.mistake()) {
                return Err(Error::invalid(path, why));
            }
        }
        Ok(claims)
    }

    /// Judges every claim of the paper's. Those on data sets need runs.
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

    /// Judges every claim of ours.
    ///
    /// # Errors
    /// The paper's network is none.
    pub fn judge_ours(&self, runs: &Runs) -> Result<Vec<OursJudged>> {
        let Some(ours) = &self.ours else {
            return Ok(Vec::new());
        };
        let layout = self.layout()?;
        let judge = |claim: &OurClaim| match self.means(claim.measure, &layout) {
            Means::Runs(wanted) => match self.state_with(&ours.data, wanted, runs) {
                Ok(state) => {
                    let [of, to] = wanted.map(|wanted| runs.records(&ours.data, &state, wanted));
                    ours.judged(claim, &of, &to, state)
                }
                Err(missing) => ours.not_run(claim, missing),
            },
            // Refused when the file was read.
            Means::Counted(_) => ours.not_run(claim, Vec::new()),
        };
        Ok(ours.claims.iter().map(judge).collect())
    }

    fn judge_by_runs(&self, claim: &Claim, wanted: [(Method, Setting); 2], runs: &Runs) -> Judged {
        match self.state_with(&claim.data, wanted, runs) {
            Ok(state) => {
                let [dice, other] = wanted.map(|wanted| runs.dice(&claim.data, &state, wanted));
                claim.judged(dice - other)
            }
            Err(missing) => Judged {
                claim: claim.clone(),
                ours: None,
                verdict: Verdict::NotRun,
                missing,
            },
        }
    }

    /// The one state of a data set on which there are both kinds of runs; otherwise what is missing.
    fn state_with(
        &self,
        data: &str,
        wanted: [(Method, Setting); 2],
        runs: &Runs,
    ) -> std::result::Result<State, Vec<Missing>> {
        let states = runs.states(data);
        let has = |state: &State, wanted| !runs.records(data, state, wanted).is_empty();
        let complete: Vec<&State> = states
            .iter()
            .filter(|state| wanted.iter().all(|&wanted| has(state, wanted)))
            .collect();
        match complete[..] {
            [state] => Ok(state.clone()),
            [] => {
                // Counted against the state of the data that has most of them.
                let fullest = states
                    .iter()
                    .max_by_key(|state| wanted.iter().filter(|&&wanted| has(state, wanted)).count());
                let absent = wanted
                    .into_iter()
                    .filter(|&wanted| fullest.is_none_or(|state| !has(state, wanted)));
                Err(absent.map(|wanted| self.missing(data, wanted)).collect())
            }
            _ => Err(vec![Missing {
                runs: format!(
                    "{data}, runs on one state of data and base; there are {}",
                    complete.len()
                ),
                remedy: "pass --runs with a folder that holds the runs of only one".into(),
            }]),
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
    record: Record,
    state: State,
    experiment: Experiment,
}

/// Runs on other data or from another base are not compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct State {
    /// sha256 of the data's table.
    pub data_sha256: String,
    /// sha256 of the base checkpoint.
    pub base_sha256: String,
}

impl Runs {
    /// Finds every run below a folder and sorts out those that say nothing about the claims.
    ///
    /// # Errors
    /// The folder or one of the paper's experiment files cannot be read.
    pub fn find(folder: &Path, claims: &Claims) -> Result<Self> {
        let mut runs = Self::default();
        for folder in run_folders(folder)? {
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
            record,
            state,
            experiment,
        } = run;
        let ours = claims.ours.as_ref().filter(|ours| ours.data == record.data);
        if ours.is_none() && claims.claims.iter().all(|claim| claim.data != record.data) {
            return Ok(Some(format!("no claim is about {}", record.data)));
        }
        if record.partial {
            return Ok(Some("it used only a part of the cases".into()));
        }
        if record.dice.is_empty() {
            return Ok(Some("it has no Dice of any class".into()));
        }
        match ours {
            Some(ours) if experiment.model != ours.model => {
                return Ok(Some(format!("its network is {}, not {}", experiment.model, ours.model)));
            }
            None if state.base_sha256 != claims.network.base_sha256 => {
                return Ok(Some("it started from another base checkpoint than the paper's".into()));
            }
            _ => {}
        }
        let paper = claims.experiment(&record.data, (record.method, record.setting));
        if !Experiment::exists(&paper) {
            return Ok(Some(format!("there is no {} to hold it against", paper.display())));
        }
        let planned = Experiment::read(&paper)?;
        let mut different = experiment.differences(&planned);
        different.retain(|key| !JUDGING.contains(&&**key));
        if !different.is_empty() {
            let (paper, keys) = (paper.display(), different.join(", "));
            return Ok(Some(format!("it is not of the settings of {paper}: {keys}")));
        }
        if ours.is_some() && !planned.seeds.contains(&record.seed) {
            let (seed, paper) = (record.seed, paper.display());
            return Ok(Some(format!("its seed, {seed}, is none of those of {paper}")));
        }
        let key = |record: &Record| (record.data.clone(), record.method, record.setting, record.seed);
        let mut counted = self.counted.iter();
        let twin = counted.any(|run| key(&run.record) == key(record) && run.state == *state);
        Ok(twin.then(|| format!("another run of {} has its seed, {}", record.method.name(), record.seed)))
    }

    /// The states of a data set and its base that there are runs on.
    fn states(&self, data: &str) -> BTreeSet<State> {
        let runs = self.counted.iter().filter(|run| run.record.data == data);
        runs.map(|run| run.state.clone()).collect()
    }

    /// The runs of a method in a setting, on one state of a data set.
    fn records(&self, data: &str, state: &State, wanted: (Method, Setting)) -> Vec<&Record> {
        let wanted = |run: &&Run| {
            let record = &run.record;
            record.data == data && run.state == *state && (record.method, record.setting) == wanted
        };
        let runs = self.counted.iter().filter(wanted);
        runs.map(|run| &run.record).collect()
    }

    /// Dice of such runs in percent: the mean over foreground classes and seeds.
    fn dice(&self, data: &str, state: &State, wanted: (Method, Setting)) -> f64 {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let runs = self.records(data, state, wanted).into_iter();
        mean(&runs.map(|record| 100.0 * mean(&record.dice)).collect::<Vec<f64>>())
    }
}

/// Settings that say when and how Dice is looked at besides, which moves no Dice.
const JUDGING: [&str; 2] = ["dice_every", "surface_tolerance_mm"];

fn read_run(folder: &Path) -> Result<Run> {
    let provenance: Provenance = read_json(&folder.join("provenance.json"))?;
    Ok(Run {
        experiment: Experiment::read(&folder.join("config.toml"))?,
        record: read_json(&folder.join("metrics.json"))?,
        state: State {
            data_sha256: provenance.data_sha256,
            base_sha256: provenance.base_sha256,
        },
    })
}
