//! What an experiment will take, before it starts: counts from the manifest, and the time and memory of one step.

use std::time::Instant;

use flapsam_model::parameters::{Parameters, initialise, to_vec};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use flapsam_model::segment::{STACK, Scaling, to_input};
use serde::Serialize;

use super::choice::{Chosen, chosen_cases};
use super::config::{Experiment, Setting};
use super::network::configs;
use crate::data::batches::stacks::Batch;
use crate::data::manifest::Manifest;
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::federation::participants;
use crate::files::{forget_peak_memory, peak_memory};
use crate::training::{AdamW, Learner};

/// What all of an experiment's runs will take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Stacks that clients train on, over all rounds and seeds.
    pub stacks: u64,
    /// Slices that go through the network when it is judged.
    pub judged_slices: u64,
    /// Time, seconds.
    pub seconds: f64,
    /// Memory for weights, optimizers and the batches in work, bytes; `None` where the system does not say what a step
    /// takes.
    pub memory_bytes: Option<u64>,
}

/// Time and memory of one step with the network of an experiment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// To train on one stack, seconds.
    training_seconds: f64,
    /// To segment one slice, seconds.
    judging_seconds: f64,
    /// A stack's share of a training step's memory, bytes.
    stack_bytes: Option<u64>,
    /// Parameters of the network, and those that are trained.
    parameters: [u64; 2],
}

impl Pace {
    /// Runs a few steps on noise, on the device; what a step takes in memory is measured on the CPU.
    ///
    /// # Errors
    /// The experiment names no network.
    pub fn measure(experiment: &Experiment, classes: usize, device: &OpenDevice) -> Result<Self> {
        let (sam, adapter) = configs(experiment, classes)?;
        let layout = Sam::layout(&sam, Some(&adapter))?;
        let trained = experiment.method.trained(&layout);
        let weights = initialise(&layout, 0);
        let learner = |device: &OpenDevice| {
            Learner::new(
                &sam,
                &adapter,
                Parameters::new(&weights, &device.device),
                trained.clone(),
                AdamW::new(0.0),
                experiment.schedule.of_client(1),
                &device.device,
            )
        };
        let side = sam.image_size;
        let mut timed = learner(device);
        // The first step compiles and tunes.
        timed.step(&noise(1, side, classes))?;
        let start = Instant::now();
        timed.step(&noise(1, side, classes))?;
        let training_seconds = start.elapsed().as_secs_f64();

        let judge = || -> Result<f64> {
            let start = Instant::now();
            let slices = noise(1, side, classes).slices;
            let logits = timed.network()?.logits(to_input(slices, side, &device.device));
            to_vec(logits);
            Ok(start.elapsed().as_secs_f64() / STACK as f64)
        };
        judge()?;
        let judging_seconds = judge()?;

        drop(timed);
        let mut measured = learner(&OpenDevice::cpu());
        let mut memory_of = |stacks: usize| -> Result<Option<u64>> {
            let counts = forget_peak_memory();
            measured.step(&noise(stacks, side, classes))?;
            Ok(peak_memory().filter(|_| counts))
        };
        let [one, some] = [memory_of(1)?, memory_of(MEASURED_STACKS)?];
        let more = |(one, some): (u64, u64)| some.saturating_sub(one) / (MEASURED_STACKS as u64 - 1);
        Ok(Self {
            training_seconds,
            judging_seconds,
            stack_bytes: one.zip(some).map(more),
            parameters: [
                layout.values().map(|spec| spec.count() as u64).sum(),
                trained.iter().map(|key| layout[key].count() as u64).sum(),
            ],
        })
    }
}

/// Stacks in the step whose memory is measured.
const MEASURED_STACKS: usize = 3;

/// A batch of noise with a label in every class.
pub fn noise(stacks: usize, side: usize, classes: usize) -> Batch {
    let mut random = Random::new(0, "noise");
    let voxels = stacks * STACK * side * side;
    Batch {
        slices: (0..voxels).map(|_| random.unit() as f32).collect(),
        labels: (0..voxels).map(|place| (place % classes) as i32).collect(),
    }
}

/// What the experiment will take on a data set, at the pace of its network.
///
/// # Errors
/// It leaves out a site that the data do not have.
pub fn estimate(experiment: &Experiment, manifest: &Manifest, pace: &Pace, device: &OpenDevice) -> Result<Estimate> {
    let Chosen { train, test } = chosen_cases(manifest, experiment)?;
    let epoch: usize = train.iter().map(|case| experiment.local.stacks(case.slices)).sum();
    let mut sites: Vec<&str> = train.iter().map(|case| case.site.as_str()).collect();
    sites.sort_unstable();
    sites.dedup();
    let (rounds, seeds) = (experiment.rounds as u64, experiment.seeds.len() as u64);
    // How many models segment each test case on the way, and after the last round.
    let of_each_site = sites.len() as u64;
    let [on_the_way, last] = match experiment.setting {
        Setting::Alone => [of_each_site; 2],
        Setting::Federated if experiment.has_personal_models() => [1, of_each_site],
        Setting::Federated | Setting::Pooled => [1; 2],
    };
    let windows = match experiment.preprocessing.scaling {
        Scaling::Stack => STACK as u64,
        Scaling::Volume => 1,
    };
    // Once untrained, after the last round, and between as asked.
    let between = experiment
        .dice_every
        .map_or(0, |every| rounds.saturating_sub(1) / every as u64);
    let judgements = 1 + on_the_way * between + last;
    let slices: usize = test.iter().map(|case| case.slices).sum();
    let clients = match experiment.setting {
        Setting::Federated => sites.len(),
        Setting::Alone | Setting::Pooled => 1,
    };
    // Clients are drawn evenly, so on average their share of the stacks is theirs of the clients.
    let taking_part = participants(experiment.participation, clients);
    let stacks = epoch as u64 * rounds * seeds * taking_part as u64 / clients.max(1) as u64;
    let judged_slices = slices as u64 * windows * judgements * seeds;

    let side_by_side = match device.is_cpu() {
        true => sites.len().min(rayon::current_num_threads()),
        false => 1,
    };
    let [all, trained] = pace.parameters;
    // Weights as they come and as they are resized; of each client its own trained ones and two moments.
    let held = 4 * (2 * all + 3 * trained * sites.len() as u64);
    let in_work = |stack: u64| stack * (experiment.local.batch_stacks * side_by_side) as u64;
    Ok(Estimate {
        stacks,
        judged_slices,
        seconds: stacks as f64 * pace.training_seconds + judged_slices as f64 * pace.judging_seconds,
        memory_bytes: pace.stack_bytes.map(|stack| held + in_work(stack)),
    })
}

impl Experiment {
    /// The experiment at about a hundredth of its size, through all its parts: one case of each site for training and
    /// one for judging, two rounds at most, and of each case hardly more stacks than of the shortest one.
    ///
    /// # Errors
    /// It leaves out a site that the data do not have, or the settings cannot be written as text.
    pub fn rehearsal(&self, manifest: &Manifest) -> Result<Self> {
        let mut small = self.clone();
        small.cases_per_site = Some([1, 1]);
        small.hold_out = None;
        let train = chosen_cases(manifest, &small)?.train;
        let shortest = train.iter().map(|case| case.slices).min();
        small.local.stack_stride = shortest.unwrap_or(1).max(self.local.stack_stride).max(1);
        small.local.share = 1.0;
        small.local.batch_stacks = 1;
        small.rounds = self.rounds.min(2);
        small.dice_every = self.dice_every.map(|_| 1);
        small.seeds.truncate(1);
        small.resolved = toml::to_string(&small).map_err(|why| Error::invalid(&self.path, why))?;
        Ok(small)
    }
}
