use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::{adapt, sha256};
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::is_personal;
use flapsam_model::parameters::{Parameters, StateDict};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use rayon::prelude::*;

use super::config::{Experiment, Setting};
use super::evaluation::{CaseScores, Examination, MeanScores, mean_dice};
use super::record::{Provenance, Record, RoundRecord, TrainingTime};
use crate::data::batches::prepared::{Preparation, PreparedCase};
use crate::data::cases::lock::ready;
use crate::data::manifest::{Case, Manifest};
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::federation::{Client, Epoch, Traffic, aggregate, lora_error, norm};
use crate::files::{create_folder, read, read_state_dict, write, write_json};
use crate::progress::Progress;
use crate::training::{AdamW, Learner};

/// Runs an experiment for one seed and writes its record into a folder.
///
/// `data_root` holds one folder a data set, named as its manifest.
///
/// # Errors
/// A file is missing or does not fit, or the folder cannot be written.
pub fn run(experiment: &Experiment, seed: u64, data_root: &Path, device: &OpenDevice, out: &Path) -> Result<Record> {
    let run = Run::prepare(experiment, seed, data_root, device)?;
    // A folder that cannot be written is better known before the training than after it.
    create_folder(out)?;
    write(&out.join("config.toml"), &read(&experiment.path)?)?;
    let started = Instant::now();
    let mut clients = run.clients();
    let untrained = run.judge(&[&clients[0].1], None, None)?.remove(0);
    let progress = Progress::new(clients.len() * experiment.rounds);
    let (rounds, time) = match experiment.setting {
        Setting::Federated => run.federate(&mut clients, &progress)?,
        Setting::Alone => run.train_alone(&mut clients, &progress)?,
    };
    drop(progress);
    // Federated clients hold the same state after the last round; one stands for all, unless they keep a part.
    let models: Vec<&Client> = match experiment.setting {
        Setting::Federated => vec![&clients[0].1],
        Setting::Alone => clients.iter().map(|(_, client)| client).collect(),
    };
    let masks = out.join("predictions");
    let keep = experiment.save_predictions && models.len() == 1;
    let tolerance = Some(experiment.surface_tolerance_mm);
    let evaluations = run.judge(&models, keep.then_some(&masks), tolerance)?;
    let adapters = run.save_adapters(&models, out)?;
    let record = run.record(rounds, &models, &evaluations, mean_dice(untrained.iter()), adapters);
    write_json(&out.join("metrics.json"), &record)?;
    write_json(&out.join("provenance.json"), &run.provenance(device))?;
    write_json(&out.join("timing.json"), &time.finish(started.elapsed()))?;
    Ok(record)
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
        let manifest = ready(&experiment.manifest(), data_root)?;
        let base_path = experiment.base_checkpoint();
        let (base, base_sha256) = read_state_dict(&base_path)?;

        let named = SamConfig::named(&experiment.model).ok_or_else(|| {
            let known = SamConfig::NAMES.join(", ");
            Error::invalid(
                &experiment.path,
                format!("there is no model '{}'; choose one of {known}", experiment.model),
            )
        })?;
        let sam = named.with_image_size(experiment.image_size);
        let classes = manifest.classes.len();
        let adapter = AdapterConfig {
            lora_init: experiment.lora_init,
            ..AdapterConfig::lora(classes - 1, experiment.rank)
        };
        let adapter = experiment.method.adapter(&adapter);
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
            return Err(Error::invalid(&experiment.manifest(), "it has no training cases"));
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

    /// Every client with its weight in the average.
    fn clients(&self) -> Vec<(f64, Client)> {
        let experiment = &self.experiment;
        let client = |site: &Site| {
            let layout = Sam::layout(&self.sam, Some(&self.adapter)).expect("it was built before");
            let stacks: usize = site
                .cases
                .iter()
                .map(|case| case.len().div_ceil(experiment.local.stack_stride))
                .sum();
            let batches = stacks.div_ceil(experiment.local.batch_stacks);
            let learner = Learner::new(
                &self.sam,
                &self.adapter,
                self.weights.clone(),
                experiment.method.trained(&layout),
                AdamW::new(experiment.weight_decay),
                experiment.schedule.of_client(batches),
                &self.device.device,
            );
            (
                site.weight,
                Client::new(&site.name, site.cases.clone(), learner, self.seed),
            )
        };
        self.sites.iter().map(client).collect()
    }

    /// Rounds of local epochs from the common state, and averaging.
    fn federate(&self, clients: &mut [(f64, Client)], progress: &Progress) -> Result<(Vec<RoundRecord>, TrainingTime)> {
        let mut rounds = Vec::new();
        let mut time = TrainingTime::default();
        for round in 1..=self.experiment.rounds {
            let taking_part = self.participants(clients.len(), round);
            let mut chosen: Vec<&mut (f64, Client)> = Vec::with_capacity(taking_part.len());
            chosen.extend(
                clients
                    .iter_mut()
                    .enumerate()
                    .filter_map(|(place, client)| taking_part.contains(&place).then_some(client)),
            );
            let total: f64 = chosen.iter().map(|(weight, _)| weight).sum();
            let weights: Vec<f64> = chosen.iter().map(|(weight, _)| weight / total).collect();
            let loss = self.local_epochs(&mut chosen, round, progress, &mut time)?;
            let updates: Vec<StateDict> = chosen.iter().map(|(_, client)| sent(client.trained())).collect();
            let global = aggregate(&updates, &weights, self.experiment.aggregation);
            clients.iter_mut().for_each(|(_, client)| client.receive(&global));
            let traffic = Traffic::round(&updates, &global);
            rounds.push(RoundRecord {
                round,
                loss,
                traffic,
                global_norm: Some(norm(&global)),
                dice: self.dice_after(round, &clients[0].1)?,
                lora_error: lora_error(&updates, &weights, &global),
            });
        }
        Ok((rounds, time))
    }

    /// The clients that take part in a round, drawn by the seed; all of them unless the experiment says otherwise.
    fn participants(&self, clients: usize, round: usize) -> BTreeSet<usize> {
        let wanted = (self.experiment.participation * clients as f64).ceil() as usize;
        let mut all: Vec<usize> = (0..clients).collect();
        Random::new(self.seed, &format!("participants/round {round}")).shuffle(&mut all);
        all.into_iter().take(wanted.max(1)).collect()
    }

    /// As many local epochs as there are rounds, and nothing travels.
    fn train_alone(
        &self,
        clients: &mut [(f64, Client)],
        progress: &Progress,
    ) -> Result<(Vec<RoundRecord>, TrainingTime)> {
        let mut time = TrainingTime::default();
        let mut all: Vec<&mut (f64, Client)> = clients.iter_mut().collect();
        let epoch = |round| {
            Ok(RoundRecord {
                round,
                loss: self.local_epochs(&mut all, round, progress, &mut time)?,
                traffic: Traffic::default(),
                global_norm: None,
                dice: None,
                lora_error: None,
            })
        };
        let rounds = (1..=self.experiment.rounds).map(epoch).collect::<Result<_>>()?;
        Ok((rounds, time))
    }

    /// Every client's local epoch, side by side: they do not know of each other, so the order does not matter.
    fn local_epochs(
        &self,
        clients: &mut [&mut (f64, Client)],
        round: usize,
        progress: &Progress,
        time: &mut TrainingTime,
    ) -> Result<BTreeMap<String, f64>> {
        // The largest first: started last, it would keep everyone waiting.
        let mut order: Vec<&mut (f64, Client)> = clients.iter_mut().map(|client| &mut **client).collect();
        order.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let epochs = order.into_par_iter().with_max_len(1).map(|(_, client)| {
            let epoch = client.local_epoch(round, &self.experiment.local)?;
            progress.step(&format!(
                "round {round}/{}, client {}, loss {:.3}",
                self.experiment.rounds, client.site, epoch.loss
            ));
            Ok((client.site.clone(), epoch))
        });
        let epochs: BTreeMap<String, Epoch> = epochs.collect::<Result<_>>()?;
        epochs.values().for_each(|epoch| time.add(epoch));
        Ok(epochs.into_iter().map(|(site, epoch)| (site, epoch.loss)).collect())
    }

    /// Scores of every test case, by client; those of surfaces only with a tolerance.
    fn judge(
        &self,
        clients: &[&Client],
        masks: Option<&Path>,
        surface_tolerance_mm: Option<f64>,
    ) -> Result<Vec<Vec<CaseScores>>> {
        let networks = clients.iter().map(|client| client.learner().network());
        let examination = Examination {
            folder: self.data_folder.clone(),
            cases: self.test.iter().collect(),
            classes: self.manifest.classes.len(),
            preprocessing: &self.experiment.preprocessing,
            side: self.sam.image_size,
            device: &self.device.device,
        };
        examination.judge(&networks.collect::<Result<Vec<_>>>()?, masks, surface_tolerance_mm)
    }

    /// Dice of the server's state after a round, if the experiment asks for it.
    fn dice_after(&self, round: usize, client: &Client) -> Result<Option<Vec<f64>>> {
        match self.experiment.dice_every {
            Some(every) if round.is_multiple_of(every) => {
                Ok(Some(mean_dice(self.judge(&[client], None, None)?.remove(0).iter())))
            }
            _ => Ok(None),
        }
    }

    fn save_adapters(&self, models: &[&Client], out: &Path) -> Result<Vec<String>> {
        let save = |client: &&Client| {
            let adapter = Adapter {
                metadata: AdapterMetadata {
                    method: self.experiment.method,
                    sam: self.sam.clone(),
                    adapter: self.adapter.clone(),
                    classes: self.manifest.classes.clone(),
                    preprocessing: self.experiment.preprocessing.clone(),
                    base_sha256: self.base_sha256.clone(),
                    seed: self.seed,
                },
                state: client.trained(),
            };
            let name = match models.len() {
                1 => PathBuf::from("adapter.safetensors"),
                _ => PathBuf::from(format!("adapter-{}.safetensors", client.site)),
            };
            let bytes = adapter.to_bytes();
            write(&out.join(name), &bytes)?;
            Ok(sha256(&bytes))
        };
        models.iter().map(save).collect()
    }

    fn record(
        &self,
        rounds: Vec<RoundRecord>,
        models: &[&Client],
        evaluations: &[Vec<CaseScores>],
        untrained_dice: Vec<f64>,
        adapter_sha256: Vec<String>,
    ) -> Record {
        let of_case = |index: usize| {
            let mean = MeanScores::of(evaluations.iter().map(|evaluation| &evaluation[index]));
            CaseScores {
                dice: mean.dice,
                hausdorff_95_mm: mean.hausdorff_95_mm,
                surface_dice: mean.surface_dice,
                ..evaluations[0][index].clone()
            }
        };
        let cases: Vec<CaseScores> = (0..self.test.len()).map(of_case).collect();
        let of_site = |site: &Site| {
            let own = cases.iter().filter(|case| case.site == site.name);
            (site.name.clone(), mean_dice(own))
        };
        let alone = match self.experiment.setting {
            Setting::Federated => BTreeMap::new(),
            Setting::Alone => {
                let of_client = |(client, evaluation): (&&Client, &Vec<CaseScores>)| {
                    (client.site.clone(), mean_dice(evaluation.iter()))
                };
                models.iter().zip(evaluations).map(of_client).collect()
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
            trained_parameters: models[0].trained().values().map(|array| array.values.len()).sum(),
            weights: self.sites.iter().map(|site| (site.name.clone(), site.weight)).collect(),
            untrained_dice,
            rounds,
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
        }
    }
}

/// What of a client's parameters travels.
fn sent(mut trained: StateDict) -> StateDict {
    trained.retain(|key, _| !is_personal(key));
    trained
}

/// All cases, or the first ones of each site and split.
fn chosen_cases(manifest: &Manifest, limit: Option<[usize; 2]>) -> Vec<&Case> {
    let mut taken: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let keep = |case: &&Case| {
        let count = taken.entry((case.site.clone(), case.train)).or_default();
        *count += 1;
        limit.is_none_or(|[train, test]| *count <= if case.train { train } else { test })
    };
    manifest.cases.iter().filter(keep).collect()
}
