use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::{adapt, sha256};
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::parameters::{Parameters, StateDict};
use flapsam_model::sam::Sam;
use serde::Deserialize;

use super::config::{Experiment, Setting};
use super::evaluation::{CaseScores, Examination, MeanScores, mean_dice};
use super::record::{Provenance, Record, TrainingTime};
use crate::data::batches::prepared::{Preparation, PreparedCase};
use crate::data::cases::lock::ready;
use crate::data::manifest::{Case, Manifest};
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::federation::ledger::Entry;
use crate::federation::{
    Aggregation, Checkpoint, Checkpoints, Client, Federation, Folding, Member, RoundRecord, Rules,
};
use crate::files::{
    create_folder, files_in, read_json, read_state_dict, remove_folder_if_there, remove_half_written, remove_if_there,
    write, write_json,
};
use crate::progress::Progress;
use crate::training::{AdamW, Learner};

/// Runs an experiment for one seed and writes its record into a folder.
///
/// `data_root` holds one folder a data set, named as its manifest.
///
/// # Errors
/// A file is missing or does not fit, or the folder cannot be written.
pub fn run(
    experiment: &Experiment,
    seed: u64,
    data_root: &Path,
    device: &OpenDevice,
    out: &Path,
    start: Start,
) -> Result<Record> {
    let started = Instant::now();
    let run = Run::prepare(experiment, seed, data_root, device)?;
    // A folder that cannot be written is better known before the training than after it.
    create_folder(out)?;
    remove_half_written(out)?;
    let checkpoints = Checkpoints::open(out)?;
    // The record is written last: without one, the run was cut off.
    let finished = out.join(RECORD).exists();
    if finished && start == Start::Keep && run.made(out) {
        return read_json(&out.join(RECORD));
    }
    if start == Start::GoOn {
        run.is_of_the_same_settings(out)?;
    }
    if finished || start == Start::Anew {
        checkpoints.clear()?;
    }
    clear_results(out)?;
    write(&out.join(CONFIG), experiment.resolved.as_bytes())?;
    let (federation, done) = run.train(&checkpoints, started)?;

    let models = run.models(&federation);
    let masks = out.join(MASKS);
    let keep = experiment.save_predictions && (models.len() == 1 || run.personal());
    let evaluations = run.judge(&models, keep.then_some(&masks), Some(experiment.surface_tolerance_mm))?;
    let adapters = run.save_adapters(&models, out)?;
    let trained = federation.members[0].client.trained();
    let trained_parameters = trained.values().map(|array| array.values.len()).sum();
    let time = TrainingTime::after(done.seconds);
    let earlier = Duration::from_secs_f64(done.earlier_seconds);
    let ledger = done.entries;
    let rounds = Training {
        untrained_dice: done.untrained_dice,
        rounds: done.rounds,
        trained_parameters,
    };
    let mut record = run.record(rounds, &models, &evaluations, adapters);
    if let Some(last) = record.rounds.last_mut().filter(|last| run.judged_after(last.round)) {
        last.dice = Some(record.dice.clone());
    }
    write(&out.join("ledger.csv"), &table(&ledger)?)?;
    write_json(&out.join("provenance.json"), &run.provenance(device))?;
    write_json(&out.join("timing.json"), &time.finish(earlier + started.elapsed()))?;
    write_json(&out.join(RECORD), &record)?;
    Ok(record)
}

/// What to do about an earlier run in the same folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing of it counts.
    Anew,
    /// One that was cut off goes on after its last whole round, to the same results; a finished one is made again. One
    /// of other settings or data is an error: its results would be lost.
    GoOn,
    /// One that was cut off goes on; a finished one of the same settings, data, base, device and program stays as it is.
    Keep,
}

/// The file that says that a run is done, and what it came to.
const RECORD: &str = "metrics.json";
/// The settings that it was made with.
const CONFIG: &str = "config.toml";
/// The predicted masks.
const MASKS: &str = "predictions";

/// Removes what an earlier run left in its folder, so that nothing of it stays beside the new results: the record first,
/// since with it the run counts as done.
fn clear_results(out: &Path) -> Result<()> {
    for name in [RECORD, "provenance.json", "timing.json", "ledger.csv"] {
        remove_if_there(&out.join(name))?;
    }
    for path in files_in(out)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("adapter") && name.ends_with(".safetensors") {
            remove_if_there(&path)?;
        }
    }
    remove_folder_if_there(&out.join(MASKS))
}

/// What tells runs on different data apart.
#[derive(Deserialize)]
struct RunOf {
    data: String,
}

/// What training leaves for the record.
struct Training {
    untrained_dice: Vec<f64>,
    rounds: Vec<RoundRecord>,
    trained_parameters: usize,
}

/// A trained network: what an adapter file holds.
struct Model {
    /// Whose it is, where there are several.
    site: Option<String>,
    adapter: Adapter,
}

/// Entries of the ledger as a table for people and spreadsheets.
fn table(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let failed = |why: String| Error::Message(format!("the ledger cannot be written: {why}"));
    for entry in entries {
        table.serialize(entry).map_err(|why| failed(why.to_string()))?;
    }
    table.into_inner().map_err(|why| failed(why.to_string()))
}

/// All that a run needs before its first step.
struct Run {
    experiment: Experiment,
    manifest: Manifest,
    sam: SamConfig,
    adapter: AdapterConfig,
    base_sha256: String,
    weights: Parameters,
    sites: Vec<Site>,
    test: Vec<Case>,
    data_folder: PathBuf,
    seed: u64,
    device: OpenDevice,
}

struct Site {
    name: String,
    weight: f64,
    cases: Vec<PreparedCase>,
}

impl Run {
    fn prepare(experiment: &Experiment, seed: u64, data_root: &Path, device: &OpenDevice) -> Result<Self> {
        let manifest = ready(&experiment.manifest(data_root), data_root)?;
        let base_path = experiment.base_checkpoint(data_root);
        let (base, base_sha256) = read_state_dict(&base_path)?;

        let (sam, adapter) = network(experiment, manifest.classes.len())?;
        let state = adapt(&base, &sam, Some(&adapter), seed).map_err(Error::content(&base_path))?;

        let chosen = chosen_cases(&manifest, experiment.cases_per_site);
        let (train, test): (Vec<&Case>, Vec<&Case>) = chosen.into_iter().partition(|case| case.train);
        let total: usize = train.iter().map(|case| case.slices).sum();
        let sites = &experiment.preprocessing.sites;
        if let Some(case) = train
            .iter()
            .chain(&test)
            .find(|case| !sites.is_empty() && !sites.contains_key(&case.site))
        {
            let why = format!(
                "it has [preprocessing.sites], and none for site '{0}'; add [preprocessing.sites.{0}]",
                case.site
            );
            return Err(Error::invalid(&experiment.path, why));
        }
        // Augmentation works on slices of their own size; without it they can be resized once and for all.
        let side = (!experiment.local.augment).then_some(sam.image_size);
        let prepared = Preparation::new(data_root, &manifest, &experiment.preprocessing, side).cases(&train)?;
        let mut sites: Vec<Site> = Vec::new();
        for (case, prepared) in train.into_iter().zip(prepared) {
            let weight = case.slices as f64 / total as f64;
            match sites.iter_mut().find(|site| site.name == case.site) {
                Some(site) => {
                    site.weight += weight;
                    site.cases.push(prepared);
                }
                None => sites.push(Site {
                    name: case.site.clone(),
                    weight,
                    cases: vec![prepared],
                }),
            }
        }
        if sites.is_empty() {
            return Err(Error::invalid(
                &experiment.manifest(data_root),
                "it has no training cases",
            ));
        }
        Ok(Self {
            weights: Parameters::new(&state, &device.device),
            test: test.into_iter().cloned().collect(),
            data_folder: data_root.join(&manifest.about.name),
            sites,
            experiment: experiment.clone(),
            manifest,
            sam,
            adapter,
            base_sha256,
            seed,
            device: device.clone(),
        })
    }

    /// Every client before its first step, and the server.
    fn federation(&self) -> Result<Federation> {
        let experiment = &self.experiment;
        let members = match experiment.setting {
            Setting::Pooled => {
                let cases = self.sites.iter().flat_map(|site| site.cases.clone()).collect();
                vec![self.member("pooled", 1.0, cases)]
            }
            _ => {
                let member = |site: &Site| self.member(&site.name, site.weight, site.cases.clone());
                self.sites.iter().map(member).collect()
            }
        };
        let rules = Rules {
            seed: self.seed,
            rounds: experiment.rounds,
            local: experiment.local,
            participation: experiment.participation,
            aggregation: experiment.aggregation,
            precision: experiment.precision,
            server_adam: experiment.server_adam,
            side_by_side: self.device.is_cpu(),
        };
        let stacked = experiment.aggregation == Aggregation::Stacked && experiment.method.uses_lora();
        let folding = (stacked && experiment.setting == Setting::Federated).then(|| Folding {
            weights: self.weights.state(&self.weights.keys()),
            sam: self.sam.clone(),
            adapter: self.adapter.clone(),
        });
        Ok(Federation::new(rules, members, folding))
    }

    fn member(&self, name: &str, weight: f64, cases: Vec<PreparedCase>) -> Member {
        let experiment = &self.experiment;
        let layout = Sam::layout(&self.sam, Some(&self.adapter)).expect("it was built before");
        let stacks: usize = cases
            .iter()
            .map(|case| case.len().div_ceil(experiment.local.stack_stride))
            .sum();
        let learner = Learner::new(
            &self.sam,
            &self.adapter,
            self.weights.clone(),
            experiment.method.trained(&layout),
            AdamW::new(experiment.weight_decay),
            experiment
                .schedule
                .of_client(stacks.div_ceil(experiment.local.batch_stacks)),
            &self.device.device,
        );
        Member::new(
            weight,
            Client::new(name, cases, learner, self.seed),
            experiment.precision,
        )
    }

    /// All rounds, from the newest checkpoint on; each one ends in another.
    fn train(&self, checkpoints: &Checkpoints, started: Instant) -> Result<(Federation, Checkpoint)> {
        let mut federation = self.federation()?;
        let mut done = match checkpoints.restore(&self.fingerprint(), &mut federation)? {
            Some(done) => {
                eprintln!(
                    "going on after round {} of {}",
                    done.rounds.len(),
                    self.experiment.rounds
                );
                done
            }
            None => Checkpoint {
                fingerprint: self.fingerprint(),
                untrained_dice: self.dice(&self.models(&federation)[..1])?,
                ..Checkpoint::default()
            },
        };
        let first = done.rounds.len() + 1;
        let earlier = done.earlier_seconds;
        let progress = Progress::new(federation.members.len() * (self.experiment.rounds + 1 - first));
        let mut time = TrainingTime::after(done.seconds);
        for round in first..=self.experiment.rounds {
            let mut came = match self.experiment.setting {
                Setting::Federated => federation.round(round, &progress)?,
                Setting::Alone | Setting::Pooled => federation.epoch_alone(round, &progress)?,
            };
            // After the last round the whole judging follows.
            if self.judged_after(round) && round < self.experiment.rounds {
                came.record.dice = Some(self.dice(&self.models(&federation))?);
            }
            came.epochs.iter().for_each(|epoch| time.add(epoch));
            done.rounds.push(came.record);
            done.entries.extend(came.entries);
            done.seconds = time.seconds();
            done.earlier_seconds = earlier + started.elapsed().as_secs_f64();
            checkpoints.save(&done, &federation)?;
        }
        done.earlier_seconds = earlier;
        Ok((federation, done))
    }

    /// Whether the experiment asks for Dice after this round.
    fn judged_after(&self, round: usize) -> bool {
        let every = self.experiment.dice_every;
        every.is_some_and(|every| round.is_multiple_of(every))
    }

    /// Whether clients keep a part of the network to themselves, so that each has its own.
    fn personal(&self) -> bool {
        self.experiment.setting == Setting::Federated && self.adapter.num_lora > 1
    }

    /// The networks to be judged: the federation's one; each client's where they differ.
    fn models(&self, federation: &Federation) -> Vec<Model> {
        let model = |site: Option<&str>, state: StateDict| {
            let rank = federation.server.folded.values().next().map(|a| a.shape[0]);
            Model {
                site: site.map(str::to_owned),
                adapter: Adapter {
                    metadata: AdapterMetadata {
                        method: self.experiment.method,
                        sam: self.sam.clone(),
                        adapter: AdapterConfig {
                            rank: rank.unwrap_or(self.adapter.rank),
                            ..self.adapter.clone()
                        },
                        classes: self.manifest.classes.clone(),
                        preprocessing: self.experiment.preprocessing.clone(),
                        base_sha256: self.base_sha256.clone(),
                        seed: self.seed,
                    },
                    state,
                },
            }
        };
        let members = &federation.members;
        match self.experiment.setting {
            Setting::Federated if !self.personal() => vec![model(None, federation.model())],
            Setting::Pooled => vec![model(None, members[0].client.trained())],
            _ => {
                let of_client = |member: &Member| model(Some(&member.client.site), member.client.trained());
                members.iter().map(of_client).collect()
            }
        }
    }

    /// Mean Dice of the models by class.
    fn dice(&self, models: &[Model]) -> Result<Vec<f64>> {
        let evaluations = self.judge(models, None, None)?;
        Ok(mean_dice(evaluations.iter().flatten()))
    }

    /// Scores of every test case, by model; those of surfaces only with a tolerance. A client's personal model is judged on the cases of its own site.
    fn judge(
        &self,
        models: &[Model],
        masks: Option<&Path>,
        surface_tolerance_mm: Option<f64>,
    ) -> Result<Vec<Vec<CaseScores>>> {
        let network = |model: &Model| {
            let mut parameters = self.weights.clone();
            parameters.load(&model.adapter.state, &self.device.device);
            Ok(Sam::new(&self.sam, Some(&model.adapter.metadata.adapter), &parameters)?)
        };
        if !(self.personal() && models.len() > 1) {
            let networks = models.iter().map(network).collect::<Result<Vec<_>>>()?;
            return self
                .examination(self.test.iter().collect())
                .judge(&networks, masks, surface_tolerance_mm);
        }
        let of_model = |model: &Model| {
            let own = |case: &&Case| model.site.as_ref() == Some(&case.site);
            let cases = self.test.iter().filter(own).collect();
            Ok(self
                .examination(cases)
                .judge(&[network(model)?], masks, surface_tolerance_mm)?
                .remove(0))
        };
        models.iter().map(of_model).collect()
    }

    fn examination<'a>(&'a self, cases: Vec<&'a Case>) -> Examination<'a> {
        Examination {
            folder: self.data_folder.clone(),
            cases,
            classes: self.manifest.classes.len(),
            preprocessing: &self.experiment.preprocessing,
            side: self.sam.image_size,
            device: &self.device.device,
        }
    }

    fn save_adapters(&self, models: &[Model], out: &Path) -> Result<Vec<String>> {
        let save = |model: &Model| {
            let name = match &model.site {
                None => PathBuf::from("adapter.safetensors"),
                Some(site) => PathBuf::from(format!("adapter-{site}.safetensors")),
            };
            let bytes = model.adapter.to_bytes();
            write(&out.join(name), &bytes)?;
            Ok(sha256(&bytes))
        };
        models.iter().map(save).collect()
    }

    fn record(
        &self,
        training: Training,
        models: &[Model],
        evaluations: &[Vec<CaseScores>],
        adapter_sha256: Vec<String>,
    ) -> Record {
        let cases: Vec<CaseScores> = match self.personal() {
            true => evaluations.concat(),
            false => {
                let of_case = |index: usize| {
                    let all = evaluations.iter().map(|evaluation| &evaluation[index]);
                    let mean = MeanScores::of(all);
                    CaseScores {
                        dice: mean.dice,
                        hausdorff_95_mm: mean.hausdorff_95_mm,
                        surface_dice: mean.surface_dice,
                        ..evaluations[0][index].clone()
                    }
                };
                (0..self.test.len()).map(of_case).collect()
            }
        };
        let of_site = |site: &Site| {
            let own = cases.iter().filter(|case| case.site == site.name);
            (site.name.clone(), mean_dice(own))
        };
        let alone = match self.experiment.setting {
            Setting::Federated | Setting::Pooled => BTreeMap::new(),
            Setting::Alone => {
                let of_client = |(model, evaluation): (&Model, &Vec<CaseScores>)| {
                    Some((model.site.clone()?, mean_dice(evaluation.iter())))
                };
                models.iter().zip(evaluations).filter_map(of_client).collect()
            }
        };
        let mean = MeanScores::of(cases.iter());
        Record {
            title: self.experiment.title.clone(),
            method: self.experiment.method,
            setting: self.experiment.setting,
            data: self.manifest.about.name.clone(),
            seed: self.seed,
            partial: self.experiment.cases_per_site.is_some(),
            classes: self.manifest.classes.clone(),
            data_description: self.manifest.about.description.clone(),
            trained_parameters: training.trained_parameters,
            weights: self.sites.iter().map(|site| (site.name.clone(), site.weight)).collect(),
            untrained_dice: training.untrained_dice,
            rounds: training.rounds,
            dice: mean.dice,
            hausdorff_95_mm: mean.hausdorff_95_mm,
            hausdorff_95_cases: mean.hausdorff_95_cases,
            surface_dice: mean.surface_dice,
            surface_tolerance_mm: self.experiment.surface_tolerance_mm,
            dice_by_site: self.sites.iter().map(of_site).collect(),
            cases,
            alone,
            adapter_sha256,
        }
    }

    fn provenance(&self, device: &OpenDevice) -> Provenance {
        Provenance {
            program: format!("flapsam {}", env!("CARGO_PKG_VERSION")),
            commit: option_env!("FLAPSAM_COMMIT").map(str::to_owned),
            data_sha256: self.manifest.sha256.clone(),
            base_sha256: self.base_sha256.clone(),
            device: device.name.clone(),
            seed: self.seed,
            fingerprint: self.fingerprint(),
        }
    }

    /// Whether a finished run's folder is of this run.
    fn made(&self, out: &Path) -> bool {
        let provenance: Result<Provenance> = read_json(&out.join("provenance.json"));
        provenance.is_ok_and(|provenance| provenance.fingerprint == self.fingerprint())
    }

    /// Refuses a folder that holds a run of something else.
    fn is_of_the_same_settings(&self, out: &Path) -> Result<()> {
        let config = out.join(CONFIG);
        if !config.exists() {
            return Ok(());
        }
        let mut different = match Experiment::read(&config) {
            Ok(other) => self.experiment.differences(&other),
            Err(why) => vec![why.to_string()],
        };
        let data = read_json::<RunOf>(&out.join(RECORD)).map(|run| run.data);
        different.extend(
            data.is_ok_and(|data| data != self.manifest.about.name)
                .then(|| "data".to_owned()),
        );
        match different.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(
                &config,
                format!(
                    "the folder holds a run with other settings ({}); pass another folder with --out, or --replace it",
                    different.join(", ")
                ),
            )),
        }
    }

    /// sha256 of all that decides what the run leaves behind.
    fn fingerprint(&self) -> String {
        let parts = [
            env!("FLAPSAM_SOURCES"),
            &self.device.name,
            &self.manifest.sha256,
            &self.manifest.classes.join(","),
            &self.base_sha256,
            &self.seed.to_string(),
            &self.experiment.save_predictions.to_string(),
            &self.experiment.deciding_settings(),
        ];
        sha256(parts.join("\n").as_bytes())
    }
}

/// The network of an experiment, and how it is adapted to so many classes, the background included.
///
/// # Errors
/// There is no network of that name.
pub(super) fn network(experiment: &Experiment, classes: usize) -> Result<(SamConfig, AdapterConfig)> {
    let named = SamConfig::named(&experiment.model).ok_or_else(|| {
        let known = SamConfig::NAMES.join(", ");
        let why = format!("there is no model '{}'; choose one of {known}", experiment.model);
        Error::invalid(&experiment.path, why)
    })?;
    let adapter = AdapterConfig {
        lora_init: experiment.lora_init,
        num_lora: experiment.num_lora,
        dora: experiment.dora,
        ..AdapterConfig::lora(classes - 1, experiment.rank)
    };
    Ok((
        named.with_image_size(experiment.image_size),
        experiment.method.adapter(&adapter),
    ))
}

/// All cases, or the first ones of each site and split.
pub(super) fn chosen_cases(manifest: &Manifest, limit: Option<[usize; 2]>) -> Vec<&Case> {
    let mut taken: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let keep = |case: &&Case| {
        let count = taken.entry((case.site.clone(), case.train)).or_default();
        *count += 1;
        limit.is_none_or(|[train, test]| *count <= if case.train { train } else { test })
    };
    manifest.cases.iter().filter(keep).collect()
}
