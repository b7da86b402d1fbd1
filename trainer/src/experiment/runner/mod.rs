mod folder;
mod judging;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flapsam_model::parameters::{Parameters, pairs};
pub(super) use folder::LEDGER;
pub use folder::{ADAPTER, adapter_of, adapters, run_folders};
use folder::{CONFIG, MASKS, PROVENANCE, RECORD, is_taken, save_adapters};
use judging::Training;
use serde::{Deserialize, Serialize};

use super::choice::{Chosen, chosen_cases};
use super::config::{Experiment, Setting};
use super::network::Network;
use super::record::{Record, TrainingTime};
use super::trace::{self, TRACE};
use crate::data::batches::prepared::{Preparation, PreparedCase};
use crate::data::manifest::{Case, Manifest};
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::federation::ledger::Entry;
use crate::federation::trace::Mark;
use crate::federation::{Checkpoints, Client, Federation, Folding, Invited, Member, RoundRecord, Rules, Server, cut};
use crate::files::{csv_table, move_aside, read_json, remove_half_written, write, write_json};
use crate::folder_lock::FolderLock;
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
    let run = Run::prepare(experiment, seed, data_root, device, None)?;
    let _lock = take_folder(&run, out, start)?;
    remove_half_written(out)?;
    // The record is written last: without one, the run was cut off.
    if out.join(RECORD).exists() {
        eprintln!(
            "flapsam: {} holds this run already, whole; --replace makes it anew",
            out.display()
        );
        return read_json(&out.join(RECORD));
    }
    write(&out.join(CONFIG), experiment.resolved.as_bytes())?;
    write_json(&out.join(PROVENANCE), &run.provenance())?;
    let checkpoints = Checkpoints::open(out, run.fingerprint())?;
    let (federation, done) = run.train(&checkpoints, started)?;

    let models = run.models(&federation)?;
    let masks = out.join(MASKS);
    let keep = experiment.save_predictions && (models.len() == 1 || experiment.has_personal_models());
    let evaluations = run.judge(&models, keep.then_some(&masks), Some(experiment.surface_tolerance_mm))?;
    let dice_by_client = run.dice_by_client(&models, &evaluations)?;
    let adapters = save_adapters(&models, out)?;
    let trained = |member: &Member| member.trained_parameters(experiment.aggregation);
    let trained_parameters = federation.members.iter().map(trained).max().unwrap_or_default();
    let time = TrainingTime::after(done.seconds);
    let earlier = Duration::from_secs_f64(done.earlier_seconds);
    let ledger = done.entries;
    let rounds = Training {
        untrained_dice: done.untrained_dice,
        rounds: done.rounds,
        trained_parameters,
    };
    let mut record = run.record(rounds, &models, &evaluations, dice_by_client, adapters);
    if let Some(last) = record.rounds.last_mut().filter(|last| run.judged_after(last.round)) {
        last.dice = Some(record.dice.clone());
    }
    write(&out.join(LEDGER), &csv_table(&ledger)?)?;
    write(&out.join(TRACE), trace::text(&done.marks, out, &masks)?.as_bytes())?;
    write_json(&out.join("timing.json"), &time.finish(earlier + started.elapsed()))?;
    write_json(&out.join(RECORD), &record)?;
    Ok(record)
}

/// What to do about what lies where a run is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is moved aside, whatever it is.
    Replace,
    /// If it is something else than this run, it is moved aside.
    ReplaceOthers,
    /// It must be this run, of the same settings, data, base, device and program: whole, then it stays as it is, or cut
    /// off, then it goes on after its last whole round, to the same results. Anything else is refused.
    GoOn,
}

/// Takes the folder that a run is to go to for this process.
fn take_folder(run: &Run, out: &Path, start: Start) -> Result<FolderLock> {
    if start == Start::GoOn && out.exists() {
        // Before anything is written there.
        run.check_folder(out)?;
    }
    let lock = FolderLock::take(out)?;
    let check = run.check_folder(out);
    let replace = match start {
        Start::Replace => is_taken(out)?,
        Start::ReplaceOthers => check.is_err(),
        Start::GoOn => {
            check?;
            false
        }
    };
    if !replace {
        return Ok(lock);
    }
    // Nobody else can have it in between and not be seen: whoever takes it makes the folder anew.
    drop(lock);
    if let Some(aside) = move_aside(out)? {
        eprintln!("flapsam: what was in {} is in {} now", out.display(), aside.display());
    }
    FolderLock::take(out)
}

/// What a run knows of its rounds so far, apart from the tensors.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Past {
    /// The untrained adapter's Dice by class.
    untrained_dice: Vec<f64>,
    /// The rounds so far.
    rounds: Vec<RoundRecord>,
    /// What travelled so far.
    entries: Vec<Entry>,
    /// Checksums along the way.
    marks: Vec<Mark>,
    /// Each client's optimizer steps so far.
    steps: Vec<usize>,
    /// Seconds of the clients' epochs so far, and of their waiting for data.
    seconds: [f64; 2],
    /// Seconds of the run so far, in all its starts.
    earlier_seconds: f64,
}

/// All that a run needs before its first step.
pub(super) struct Run {
    pub(super) experiment: Experiment,
    pub(super) manifest: Manifest,
    pub(super) network: Network,
    pub(super) weights: Parameters,
    pub(super) sites: Vec<Site>,
    pub(super) test: Vec<Case>,
    pub(super) data_folder: PathBuf,
    pub(super) seed: u64,
    pub(super) device: OpenDevice,
}

/// A hospital's training cases.
pub(super) struct Site {
    pub(super) name: String,
    pub(super) cases: Vec<PreparedCase>,
}

impl Site {
    /// The sites of these cases, each of which was prepared.
    fn of_cases(train: &[&Case], prepared: Vec<PreparedCase>) -> Vec<Self> {
        let mut sites: Vec<Self> = Vec::new();
        for (case, prepared) in train.iter().zip(prepared) {
            match sites.iter_mut().find(|site| site.name == case.site) {
                Some(site) => site.cases.push(prepared),
                None => sites.push(Self {
                    name: case.site.clone(),
                    cases: vec![prepared],
                }),
            }
        }
        // By name, not as the manifest has them: the order of the server's sums must not depend on who wrote down whom first.
        sites.sort_by(|one, other| one.name.cmp(&other.name));
        sites
    }

    /// The slices of each case, as they are prepared: resampling may change how many there are.
    pub(super) fn slices(&self) -> Vec<usize> {
        self.cases.iter().map(PreparedCase::len).collect()
    }
}

impl Run {
    /// With a site's name, of that site alone: its cases are the only ones that are read.
    pub(super) fn prepare(
        experiment: &Experiment,
        seed: u64,
        data_root: &Path,
        device: &OpenDevice,
        only: Option<&str>,
    ) -> Result<Self> {
        let mut manifest = experiment.data_set(data_root)?;
        if let Some(site) = only {
            manifest.cases.retain(|case| case.site == site);
        }
        let (network, state) = Network::begin(experiment, &manifest.classes, seed, data_root)?;

        let Chosen { train, test } = chosen_cases(&manifest, experiment)?;
        check_all_prepared(experiment, train.iter().chain(&test))?;
        // Augmentation works on slices of their own size; without it they can be resized once and for all.
        let side = (!experiment.local.augment).then_some(network.sam().image_size);
        let prepared = Preparation::new(data_root, &manifest, &experiment.preprocessing, side).cases(&train)?;
        // Of some cases only, a class may be left out.
        if experiment.cases_per_site.is_none() && only.is_none() {
            check_classes_held(&experiment.manifest(data_root), &manifest, &prepared)?;
        }
        let sites = Site::of_cases(&train, prepared);
        if only.is_none() {
            check_ranks(experiment, &sites)?;
        }
        if sites.is_empty() {
            let why = match only {
                Some(site) => format!("it has no training cases of site '{site}'; check the site's name"),
                None => "it has no training cases".into(),
            };
            return Err(Error::invalid(&experiment.manifest(data_root), why));
        }
        for site in sites
            .iter()
            .filter(|site| !test.iter().any(|case| case.site == site.name))
        {
            eprintln!(
                "flapsam: there is no test case of site {}, so nothing of it will be judged",
                site.name
            );
        }
        Ok(Self {
            weights: Parameters::new(&state, &device.device),
            test: test.into_iter().cloned().collect(),
            data_folder: data_root.join(&manifest.about.name),
            sites,
            experiment: experiment.clone(),
            manifest,
            network,
            seed,
            device: device.clone(),
        })
    }

    /// Every client before its first step, and the server.
    fn federation(&self) -> Result<Federation> {
        let experiment = &self.experiment;
        let rules = experiment.rules(self.seed);
        let pooled = [Site {
            name: "pooled".into(),
            cases: self.sites.iter().flat_map(|site| site.cases.clone()).collect(),
        }];
        let sites = match experiment.setting {
            Setting::Pooled => &pooled[..],
            Setting::Federated | Setting::Alone => &self.sites,
        };
        let members = sites
            .iter()
            .map(|site| self.member(site, &rules))
            .collect::<Result<_>>()?;
        let layout = self.network.layout(self.network.rank())?;
        let start = self.weights.state(&experiment.method.trained(&layout));
        let slices: Vec<Vec<usize>> = sites.iter().map(Site::slices).collect();
        let invited = sites.iter().zip(&slices).map(|(site, slices)| Invited {
            site: &site.name,
            slices,
            rank: self.network.rank_of(&site.name, experiment),
        });
        let invited: Vec<Invited> = invited.collect();
        let server = Server::new(rules, layout, &start, &invited);
        Ok(Federation::new(
            members,
            server,
            self.folding(),
            experiment.fault.clone(),
            self.device.is_cpu(),
        ))
    }

    /// What clients need to fold pairs into their weights, where they do.
    pub(super) fn folding(&self) -> Option<Folding> {
        let experiment = &self.experiment;
        let folds = experiment.aggregation.folds() && experiment.method.uses_lora();
        (folds && experiment.setting == Setting::Federated).then(|| Folding {
            weights: self.weights.state(&self.weights.keys()),
            sam: self.network.sam().clone(),
            adapter: self.network.adapter(self.network.rank()),
        })
    }

    /// A site's client before its first step.
    pub(super) fn member(&self, site: &Site, rules: &Rules) -> Result<Member> {
        let (experiment, cases) = (&self.experiment, site.cases.clone());
        let network = &self.network;
        let rank = network.rank_of(&site.name, experiment);
        let layout = network.layout(rank)?;
        let mut weights = self.weights.clone();
        if rank != network.rank() {
            let pairs = pairs(&layout).flat_map(|pair| [pair.a.clone(), pair.b.clone()]);
            weights.load(&cut(weights.state(&pairs.collect()), &layout), &self.device.device);
        }
        let stacks: usize = cases.iter().map(|case| experiment.local.stacks(case.len())).sum();
        let learner = Learner::new(
            network.sam(),
            &network.adapter(rank),
            weights,
            experiment.method.trained(&layout),
            AdamW::new(experiment.weight_decay),
            experiment
                .schedule
                .of_client(stacks.div_ceil(experiment.local.batch_stacks)),
            &self.device.device,
        );
        let client = Client::new(&site.name, cases, learner, self.seed);
        Ok(Member::new(client, layout, rules))
    }

    /// All rounds, from the newest checkpoint on; each one ends in another.
    fn train(&self, checkpoints: &Checkpoints, started: Instant) -> Result<(Federation, Past)> {
        let mut federation = self.federation()?;
        let mut done = match checkpoints.restore::<Past>(self.experiment.rounds)? {
            Some((done, tensors)) => {
                federation.restore(&done.rounds, &done.steps, tensors)?;
                eprintln!(
                    "going on after round {} of {}",
                    done.rounds.len(),
                    self.experiment.rounds
                );
                done
            }
            None => Past {
                untrained_dice: self.dice(&self.models(&federation)?[..1])?,
                ..Past::default()
            },
        };
        let first = done.rounds.len() + 1;
        let earlier = done.earlier_seconds;
        let progress = Progress::new(federation.members.len() * (self.experiment.rounds + 1 - first));
        let mut time = TrainingTime::after(done.seconds);
        for round in first..=self.experiment.rounds {
            let (mut came, epochs) = match self.experiment.setting {
                Setting::Federated => federation.round(round, &progress)?,
                Setting::Alone | Setting::Pooled => federation.epoch_alone(round, &progress)?,
            };
            // After the last round the whole judging follows.
            if self.judged_after(round) && round < self.experiment.rounds {
                came.record.dice = Some(self.dice(&self.models(&federation)?)?);
            }
            epochs.iter().for_each(|epoch| time.add(epoch));
            done.rounds.push(came.record);
            done.entries.extend(came.entries);
            done.marks.extend(came.marks);
            done.seconds = time.seconds();
            done.earlier_seconds = earlier + started.elapsed().as_secs_f64();
            let (steps, tensors) = federation.state();
            done.steps = steps;
            checkpoints.save(round, &done, tensors)?;
        }
        done.earlier_seconds = earlier;
        Ok((federation, done))
    }

    /// Whether the experiment asks for Dice after this round.
    fn judged_after(&self, round: usize) -> bool {
        let every = self.experiment.dice_every;
        every.is_some_and(|every| round.is_multiple_of(every))
    }
}

/// Refuses cases of sites that an experiment with settings by site has none for.
fn check_all_prepared<'a>(experiment: &Experiment, mut cases: impl Iterator<Item = &'a &'a Case>) -> Result<()> {
    let sites = &experiment.preprocessing.sites;
    match cases.find(|case| !sites.is_empty() && !sites.contains_key(&case.site)) {
        None => Ok(()),
        Some(case) => {
            let why = format!(
                "it has [preprocessing.sites], and none for site '{0}'; add [preprocessing.sites.{0}]",
                case.site
            );
            Err(Error::invalid(&experiment.path, why))
        }
    }
}

/// Refuses ranks of sites that do not train.
fn check_ranks(experiment: &Experiment, sites: &[Site]) -> Result<()> {
    let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
    match experiment.ranks.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let why = format!(
                "[ranks] has a site '{name}', and those that train are {}",
                names.join(", ")
            );
            Err(Error::invalid(&experiment.path, why))
        }
    }
}

/// Refuses classes that are made of label ids and that no case for training holds. Reads no further than it must.
fn check_classes_held(path: &Path, manifest: &Manifest, prepared: &[PreparedCase]) -> Result<()> {
    if manifest.cases.iter().all(|case| case.label_ids.is_none()) {
        return Ok(());
    }
    let mut open: BTreeSet<usize> = (1..manifest.classes.len()).collect();
    for case in prepared {
        if open.is_empty() {
            break;
        }
        let (_, labels) = case.read(0, case.len())?;
        let held: BTreeSet<usize> = labels.into_iter().map(usize::from).collect();
        open.retain(|class| !held.contains(class));
    }
    match open.first().filter(|_| !prepared.is_empty()) {
        None => Ok(()),
        Some(&class) => {
            let why = format!(
                "no case for training holds the class '{}' as it is prepared; correct its 'label_ids' ('flapsam data verify \
                 {}' says which are in no file), or choose a finer grid in [preprocessing]",
                manifest.classes[class], manifest.about.name
            );
            Err(Error::invalid(path, why))
        }
    }
}
