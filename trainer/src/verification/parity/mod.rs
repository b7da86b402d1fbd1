//! Reference outputs: does the network compute what the reference code computed?
//!
//! A case is a folder with `meta.json`, `sam.pth`, `sam.safetensors`, `sam_forward.safetensors`, `flap.safetensors`,
//! `flap_forward_backward.safetensors` and `flap_after_4_steps.safetensors`; `aggregate.safetensors` may lie beside
//! the cases or in one. Those of MobileSAM are of other files: see `mobile_sam`.

mod mobile_sam;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use flapsam_model::checkpoint::read_safetensors;
use flapsam_model::config::{AdapterConfig, LoraInit, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::parameters::{Array, Layout, Parameters, Role, StateDict, to_vec};
use flapsam_model::prompt_encoder::{Point, PointKind};
use flapsam_model::random::Random;
use flapsam_model::sam::{Sam, box_points};
use flapsam_model::segment::to_input;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::batches::stacks::Batch;
use crate::error::{Error, Result};
use crate::federation::averaging;
use crate::files::{read, read_json};
use crate::state_dict::read_state_dict;
use crate::training::{AdamW, Learner, Schedule};

/// Largest absolute error of a forward pass in f32.
const FORWARD: Tolerance = Tolerance::Absolute(1e-4);
/// Largest error of a gradient, relative to the tensor's norm.
const GRADIENT: f64 = 1e-3;
/// The least norm that a gradient's error is measured against, as a share of the largest gradient's: below it are
/// tensors whose exact gradient is zero (a key bias, which softmax cancels) and of which both sides hold only rounding.
const GRADIENT_FLOOR: f64 = 1e-6;
/// Largest absolute error of a parameter after the AdamW steps.
const STEPS: Tolerance = Tolerance::Absolute(1e-5);
/// How often the computation is repeated with every weight moved by at most its last bit, to see how far the rounding
/// of an f32 computation can carry.
const REPETITIONS: u64 = 8;
/// How many times that far a result may lie from the reference, which was computed in f32 as well.
const ROUNDING_FACTOR: f64 = 3.0;

/// What counts as equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// The largest difference of two values.
    Absolute(f64),
    /// The norm of the difference over the norm of the reference, or over a floor where that is smaller.
    OfNorm {
        /// The largest ratio.
        most: f64,
        /// The least norm.
        floor: f64,
    },
}

impl Tolerance {
    /// The largest value of its measure.
    pub fn most(self) -> f64 {
        match self {
            Tolerance::Absolute(most) | Tolerance::OfNorm { most, .. } => most,
        }
    }

    /// Its measure of two results; infinite where sizes differ or a value is not a number.
    fn measure(self, got: &[f32], want: &[f32]) -> f64 {
        let pairs = || got.iter().zip(want).map(|(&got, &want)| (got as f64, want as f64));
        if got.len() != want.len() || !pairs().all(|(got, want)| got.is_finite() && want.is_finite()) {
            return f64::INFINITY;
        }
        match self {
            Tolerance::Absolute(_) => pairs().map(|(got, want)| (got - want).abs()).fold(0.0, f64::max),
            Tolerance::OfNorm { floor, .. } => {
                let difference = pairs().map(|(got, want)| (got - want).powi(2)).sum::<f64>().sqrt();
                match difference == 0.0 {
                    true => 0.0,
                    false => difference / norm(want).max(floor),
                }
            }
        }
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| (value as f64).powi(2)).sum::<f64>().sqrt()
}

/// One compared quantity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Case folder (or aggregate file).
    pub case: String,
    /// What was compared.
    pub quantity: String,
    /// Largest absolute difference of two values.
    pub absolute: f64,
    /// Norm of the difference over the norm of the reference.
    pub relative: f64,
    /// What counts as equal.
    pub tolerance: Tolerance,
    /// How far the quantity moves, in the tolerance's own measure, when every weight moves by at most its last bit;
    /// measured only where the tolerance is exceeded.
    pub rounding: Option<f64>,
    /// Whether it does.
    pub verdict: Verdict,
}

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the tolerance.
    Passed,
    /// Past the tolerance, but no further than rounding in f32 carries the quantity itself: the reference, computed in
    /// f32, cannot be nearer to the exact value than that.
    PassedByRounding,
    /// Neither.
    Failed,
}

impl Comparison {
    fn new(case: &str, quantity: &str, got: &[f32], want: &[f32], tolerance: Tolerance) -> Self {
        let comparison = Self {
            case: case.into(),
            quantity: quantity.into(),
            absolute: Tolerance::Absolute(0.0).measure(got, want),
            relative: Tolerance::OfNorm { most: 0.0, floor: 0.0 }.measure(got, want),
            tolerance,
            rounding: None,
            verdict: Verdict::Failed,
        };
        match tolerance.measure(got, want) <= tolerance.most() {
            true => Self {
                verdict: Verdict::Passed,
                ..comparison
            },
            false => comparison,
        }
    }
}

const META: &str = "meta.json";

#[derive(Debug, Deserialize)]
struct Meta {
    config: SamConfig,
    train_image_size: usize,
    num_classes: usize,
    #[serde(flatten)]
    lora: Lora,
    adamw: AdamWMeta,
}

#[derive(Debug, Deserialize)]
struct AdamWMeta {
    base_lr: f64,
    warmup_period: usize,
    max_iterations: usize,
    lr_exp: u32,
    weight_decay: f64,
    losses: Vec<f32>,
    lr_used: Vec<f64>,
}

/// How a case's network is adapted.
#[derive(Debug, Deserialize)]
struct Lora {
    rank: usize,
    num_lora: usize,
    dora: bool,
    lora_scale: f64,
}

impl Lora {
    fn adapter(&self, num_classes: usize) -> AdapterConfig {
        AdapterConfig {
            num_classes,
            rank: self.rank,
            num_lora: self.num_lora,
            dora: self.dora,
            train_magnitude: false,
            lora_scale: self.lora_scale,
            lora_init: LoraInit::Zero,
        }
    }
}

/// Compares every case of a folder: the folder itself, or the folders in it. `base` is for the cases of published weights,
/// which do not bring them.
///
/// # Errors
/// There is no case, or a file of a case is missing or damaged.
pub fn compare(folder: &Path, base: Option<&Path>, device: &Device) -> Result<Vec<Comparison>> {
    let mut folders = vec![folder.to_owned()];
    let entries = std::fs::read_dir(folder).map_err(Error::file("read the folder", folder))?;
    let mut below: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    folders.extend(below);
    let mut all = Vec::new();
    for folder in folders {
        if folder.join(META).is_file() {
            all.extend(match mobile_sam::is_encoder(&folder)? {
                true => mobile_sam::compare_encoder(&folder, device)?,
                false => compare_case(&folder, device)?,
            });
        }
        if folder.join(mobile_sam::PROMPTED).is_file() {
            match base {
                Some(base) => all.extend(mobile_sam::compare_prompted(&folder, base, device)?),
                None => eprintln!(
                    "flapsam: {} is left out: it is of published weights; pass them with --base",
                    folder.display()
                ),
            }
        }
        let aggregate = folder.join("aggregate.safetensors");
        if aggregate.is_file() {
            all.extend(compare_aggregate(&aggregate)?);
        }
    }
    match all.is_empty() {
        true => Err(Error::invalid(
            folder,
            "it holds no case; pass a folder with a meta.json or an aggregate.safetensors, or the folder of such folders",
        )),
        false => Ok(all),
    }
}

/// A file of named tensors that must be there.
struct Tensors {
    path: PathBuf,
    state: StateDict,
}

impl Tensors {
    fn read(path: PathBuf) -> Result<Self> {
        let (state, _) = read_safetensors(&read(&path)?).map_err(Error::content(&path))?;
        Ok(Self { path, state })
    }

    fn get(&self, key: &str) -> Result<&Array> {
        self.state.get(key).ok_or_else(|| {
            Error::invalid(
                &self.path,
                format!("the tensor '{key}' is missing; make the fixture again"),
            )
        })
    }

    fn tensor<const D: usize>(&self, key: &str, device: &Device) -> Result<Tensor<D>> {
        let array = self.get(key)?;
        match array.shape.len() == D {
            true => {
                let data = TensorData::new(array.values.clone(), array.shape.clone());
                Ok(Tensor::from_data(data, device))
            }
            false => Err(Error::invalid(
                &self.path,
                format!("'{key}' has {} axes, not {D}", array.shape.len()),
            )),
        }
    }
}

/// Named results, or the reference's values of the same names.
type Quantities = Vec<(String, Vec<f32>, Tolerance)>;

fn compare_case(folder: &Path, device: &Device) -> Result<Vec<Comparison>> {
    let meta: Meta = read_json(&folder.join(META))?;
    let name = name(folder);
    let adapted = Adapted::read(folder, &meta, device)?;
    let mut all = Vec::new();
    // Some cases are of the adapted network alone.
    if folder.join(OFFICIAL_OUTPUTS).is_file() {
        let official = Official::read(folder, device)?;
        all.extend(official.compare_formats(&name, folder)?);
        all.extend(judge(&name, &official.want()?, &official.weights, |weights| {
            official.compute(&meta, weights)
        })?);
    }
    all.extend(judge(&name, &adapted.want()?, &adapted.weights, |weights| {
        adapted.compute(weights)
    })?);
    Ok(all)
}

fn name(path: &Path) -> String {
    let name = path
        .file_name()
        .map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
    name.into_owned()
}

/// Computes and compares; where something is past its tolerance, computes again with weights that differ by rounding.
fn judge(
    case: &str,
    want: &Quantities,
    weights: &Tensors,
    compute: impl Fn(&StateDict) -> Result<BTreeMap<String, Vec<f32>>> + Sync,
) -> Result<Vec<Comparison>> {
    let compute = |state: &StateDict| {
        compute(state).map_err(|why| match why {
            Error::Model(source) => Error::content(&weights.path)(source),
            other => other,
        })
    };
    let got = compute(&weights.state)?;
    let empty = Vec::new();
    let find = |results: &BTreeMap<String, Vec<f32>>, quantity: &str| results.get(quantity).unwrap_or(&empty).clone();
    let compare = |(quantity, want, tolerance): &(String, Vec<f32>, Tolerance)| {
        Comparison::new(case, quantity, &find(&got, quantity), want, *tolerance)
    };
    let mut comparisons: Vec<Comparison> = want.iter().map(compare).collect();
    let past = |comparison: &Comparison| comparison.verdict == Verdict::Failed && comparison.absolute.is_finite();
    if !comparisons.iter().any(past) {
        return Ok(comparisons);
    }
    let repetitions = (0..REPETITIONS).into_par_iter();
    let moved = repetitions.map(|repetition| compute(&move_last_bits(&weights.state, repetition)));
    let moved = moved.collect::<Result<Vec<_>>>()?;
    for (comparison, (quantity, want, tolerance)) in comparisons.iter_mut().zip(want).filter(|(one, _)| past(one)) {
        let got = find(&got, quantity);
        let distances = moved
            .iter()
            .map(|results| tolerance.measure(&find(results, quantity), &got));
        let rounding = distances.fold(0.0, f64::max);
        comparison.rounding = Some(rounding);
        if tolerance.measure(&got, want) <= tolerance.most() + ROUNDING_FACTOR * rounding {
            comparison.verdict = Verdict::PassedByRounding;
        }
    }
    Ok(comparisons)
}

/// Each value times `1 - e`, `1` or `1 + e`, where `e` is the rounding unit of f32.
fn move_last_bits(state: &StateDict, repetition: u64) -> StateDict {
    let moved = state.iter().map(|(key, array)| {
        let mut random = Random::new(repetition, key);
        let mut step = |value: f32| value * (1.0 + f32::EPSILON * (random.below(3) as f32 - 1.0));
        let values = array.values.iter().map(|&value| step(value)).collect();
        (key.clone(), Array::new(array.shape.clone(), values))
    });
    moved.collect()
}

/// The official network's weights in a case's folder, and its outputs.
const OFFICIAL: &str = "sam.safetensors";
const OFFICIAL_OUTPUTS: &str = "sam_forward.safetensors";

/// The official network: the embedding, the positional grid, masks with and without prompts.
struct Official<'a> {
    weights: Tensors,
    fixture: Tensors,
    device: &'a Device,
}

impl<'a> Official<'a> {
    fn read(folder: &Path, device: &'a Device) -> Result<Self> {
        Ok(Self {
            weights: Tensors::read(folder.join(OFFICIAL))?,
            fixture: Tensors::read(folder.join(OFFICIAL_OUTPUTS))?,
            device,
        })
    }

    /// The checkpoint reads the same from both formats, where it is there in both.
    fn compare_formats(&self, case: &str, folder: &Path) -> Result<Option<Comparison>> {
        let path = folder.join("sam.pth");
        if !path.is_file() {
            return Ok(None);
        }
        let (state, _) = read_state_dict(&path)?;
        let pickled = Tensors { path, state };
        let mut got = Vec::new();
        for key in self.weights.state.keys() {
            got.extend_from_slice(&pickled.get(key)?.values);
        }
        let want: Vec<f32> = self
            .weights
            .state
            .values()
            .flat_map(|array| array.values.clone())
            .collect();
        let comparison = Comparison::new(
            case,
            "sam.pth against sam.safetensors",
            &got,
            &want,
            Tolerance::Absolute(0.0),
        );
        Ok(Some(comparison))
    }

    fn want(&self) -> Result<Quantities> {
        let named = [
            ("embedding", "image_embedding"),
            ("positional grid", "dense_pe"),
            ("masks", "no_prompt.masks"),
            ("scores", "no_prompt.iou"),
            ("prompt embedding", "prompt.sparse"),
            ("prompted masks", "prompt.masks"),
            ("prompted scores", "prompt.iou"),
        ];
        let quantity =
            |(name, key): (&str, &str)| Ok((name.to_owned(), self.fixture.get(key)?.values.clone(), FORWARD));
        named.into_iter().map(quantity).collect()
    }

    fn compute(&self, meta: &Meta, weights: &StateDict) -> Result<BTreeMap<String, Vec<f32>>> {
        let parameters = Parameters::new(weights, self.device);
        let sam = Sam::new(&meta.config, None, &parameters)?;
        let embedding = sam.image_encoder.forward(self.fixture.tensor("image", self.device)?);
        let points = prompts(&self.fixture)?;
        let (masks, scores) = sam.predict_multimask(embedding.clone(), &[]);
        let (prompted, prompted_scores) = sam.predict_multimask(embedding.clone().narrow(0, 0, 1), &points);
        let sparse = sam.prompt_encoder.sparse(&points);
        Ok(named([
            ("embedding", to_vec(embedding)),
            ("positional grid", to_vec(sam.prompt_encoder.positional_grid())),
            ("masks", to_vec(masks)),
            ("scores", to_vec(scores)),
            ("prompt embedding", sparse.map(to_vec).unwrap_or_default()),
            ("prompted masks", to_vec(prompted)),
            ("prompted scores", to_vec(prompted_scores)),
        ]))
    }
}

fn named<const N: usize>(results: [(&str, Vec<f32>); N]) -> BTreeMap<String, Vec<f32>> {
    results.map(|(name, values)| (name.to_owned(), values)).into()
}

/// The first image's points and box.
fn prompts(fixture: &Tensors) -> Result<Vec<Point>> {
    let (places, labels) = (fixture.get("prompt.points")?, fixture.get("prompt.point_labels")?);
    let points = places.values.chunks_exact(2).zip(&labels.values);
    let mut points: Vec<Point> = points
        .map(|(place, &label)| Point {
            x: place[0],
            y: place[1],
            kind: match label {
                label if label < 0.0 => PointKind::Padding,
                0.0 => PointKind::Negative,
                _ => PointKind::Positive,
            },
        })
        .collect();
    match &fixture.get("prompt.box")?.values[..] {
        &[left, top, right, bottom] => points.extend(box_points([left, top, right, bottom])),
        _ => {
            return Err(Error::invalid(
                &fixture.path,
                "'prompt.box' is not one box of four numbers",
            ));
        }
    }
    Ok(points)
}

/// The adapted network: forward, loss, every gradient, the AdamW steps of flap_sam.
struct Adapted<'a> {
    weights: Tensors,
    fixture: Tensors,
    after: Tensors,
    config: SamConfig,
    adapter: AdapterConfig,
    layout: Layout,
    schedule: Schedule,
    meta: &'a AdamWMeta,
    device: &'a Device,
}

impl<'a> Adapted<'a> {
    fn read(folder: &Path, meta: &'a Meta, device: &'a Device) -> Result<Self> {
        let config = meta.config.clone().with_image_size(meta.train_image_size);
        let adapter = meta.lora.adapter(meta.num_classes);
        Ok(Self {
            weights: Tensors::read(folder.join("flap.safetensors"))?,
            fixture: Tensors::read(folder.join("flap_forward_backward.safetensors"))?,
            after: Tensors::read(folder.join("flap_after_4_steps.safetensors"))?,
            layout: Sam::layout(&config, Some(&adapter))?,
            config,
            adapter,
            schedule: Schedule {
                base_lr: meta.adamw.base_lr,
                warmup_period: meta.adamw.warmup_period,
                max_iterations: meta.adamw.max_iterations,
                lr_exp: meta.adamw.lr_exp,
            },
            meta: &meta.adamw,
            device,
        })
    }

    fn want(&self) -> Result<Quantities> {
        let named = [
            ("logits", "low_res_logits"),
            ("upsampled masks", "masks"),
            ("loss", "loss"),
            ("loss, cross entropy", "loss_ce"),
            ("loss, Dice", "loss_dice"),
        ];
        let quantity =
            |(name, key): (&str, &str)| Ok((name.to_owned(), self.fixture.get(key)?.values.clone(), FORWARD));
        let mut want: Quantities = named.into_iter().map(quantity).collect::<Result<_>>()?;
        let gradients = || {
            self.fixture
                .state
                .iter()
                .filter_map(|(key, array)| Some((key.strip_prefix("grad.")?, array)))
        };
        let largest = gradients().map(|(_, array)| norm(&array.values)).fold(0.0, f64::max);
        let tolerance = Tolerance::OfNorm {
            most: GRADIENT,
            floor: GRADIENT_FLOOR * largest,
        };
        want.extend(gradients().map(|(key, array)| (format!("gradient of {key}"), array.values.clone(), tolerance)));
        let rates = self.meta.lr_used.iter().map(|&rate| rate as f32).collect();
        want.push(("learning rates".into(), rates, Tolerance::Absolute(1e-9)));
        want.push(("losses of the AdamW steps".into(), self.meta.losses.clone(), FORWARD));
        want.push((
            "parameters after the AdamW steps".into(),
            concatenated(&self.after.state),
            STEPS,
        ));
        Ok(want)
    }

    fn learner(&self, weights: &StateDict, trained: BTreeSet<String>) -> Learner {
        let optimizer = AdamW::new(self.meta.weight_decay);
        let parameters = Parameters::new(weights, self.device);
        Learner::new(
            &self.config,
            &self.adapter,
            parameters,
            trained,
            optimizer,
            self.schedule,
            self.device,
        )
    }

    fn compute(&self, weights: &StateDict) -> Result<BTreeMap<String, Vec<f32>>> {
        let batch = self.batch()?;
        let trainable = self.layout.iter().filter(|(_, spec)| spec.role != Role::Constant);
        let everything = self.learner(weights, trainable.map(|(key, _)| key.clone()).collect());
        let network = everything.network()?;
        let logits = network.logits(to_input(batch.slices.clone(), self.config.image_size, self.device));
        let masks = network.to_image_size(logits.clone());
        // The outputs of the first slices are enough; the loss and the gradients are of all.
        let kept = |key: &str, output: Tensor<4>| -> Result<Vec<f32>> {
            let slices = self.fixture.get(key)?.shape.first().copied().unwrap_or_default();
            let all = output.dims()[0];
            Ok(to_vec(output.narrow(0, 0, slices.clamp(1, all))))
        };
        let (loss, gradients) = everything.backward(&batch)?;

        let mut flap = self.learner(weights, Method::FlapSam.trained(&self.layout));
        let rates = (0..self.meta.lr_used.len()).map(|step| self.schedule.rate(step) as f32);
        let losses = self
            .meta
            .losses
            .iter()
            .map(|_| flap.step(&batch))
            .collect::<Result<_>>()?;
        let mut results = named([
            ("logits", kept("low_res_logits", logits)?),
            ("upsampled masks", kept("masks", masks)?),
            ("loss", to_vec(loss.total)),
            ("loss, cross entropy", to_vec(loss.cross_entropy)),
            ("loss, Dice", to_vec(loss.dice)),
            ("learning rates", rates.collect()),
            ("losses of the AdamW steps", losses),
            ("parameters after the AdamW steps", concatenated(&flap.trained())),
        ]);
        let gradient = |key: &String| Some((format!("gradient of {key}"), everything.gradient(key, &gradients)?));
        results.extend(self.layout.keys().filter_map(gradient));
        Ok(results)
    }

    fn batch(&self) -> Result<Batch> {
        let labels = &self.fixture.get("label")?.values;
        Ok(Batch {
            slices: first_channel(self.fixture.get("stack")?, self.config.image_size),
            labels: labels.iter().map(|&label| label as i32).collect(),
        })
    }
}

/// All values by order of name; another set of names has another number of values.
fn concatenated(state: &StateDict) -> Vec<f32> {
    state.values().flat_map(|array| array.values.clone()).collect()
}

/// `[stack, slice, channel, row, column]` to the first channel of every slice: the network repeats it.
fn first_channel(stack: &Array, side: usize) -> Vec<f32> {
    let image = side * side;
    let channels = stack.shape.get(2).copied().unwrap_or(1);
    let slices = stack.values.chunks_exact(channels * image);
    slices.flat_map(|slice| slice[..image].to_vec()).collect()
}

/// Four clients' LoRA pairs and a plain tensor, averaged on the server.
fn compare_aggregate(path: &Path) -> Result<Vec<Comparison>> {
    let want = Tensors::read(path.to_owned())?;
    let clients = want.get("weights")?.values.len();
    let part = |key: &str, client: usize| -> Result<Array> {
        let all = want.get(key)?;
        let (Some(&count), rest) = (all.shape.first(), &all.shape[1.min(all.shape.len())..]) else {
            return Err(Error::invalid(path, format!("'{key}' has no axis of clients")));
        };
        if count != clients {
            return Err(Error::invalid(
                path,
                format!("'{key}' is of {count} clients, 'weights' of {clients}"),
            ));
        }
        let size = rest.iter().product::<usize>();
        Ok(Array::new(
            rest,
            all.values[client * size..(client + 1) * size].to_vec(),
        ))
    };
    let parts = |key: &str| (0..clients).map(|client| part(key, client)).collect::<Result<Vec<_>>>();
    let weights: Vec<f64> = want
        .get("weights")?
        .values
        .iter()
        .map(|&weight| weight as f64)
        .collect();
    let (a, b, plain) = (parts("lora_a")?, parts("lora_b")?, parts("plain")?);

    let pairs: Vec<(&Array, &Array)> = a.iter().zip(&b).collect();
    let (new_a, new_b) = averaging::product_svd(&pairs, &weights, pairs[0].0.shape[0]);
    let results = [
        (
            "mean of plain tensors",
            "plain_average",
            averaging::weighted_mean(&plain.iter().collect::<Vec<_>>(), &weights),
        ),
        (
            "product of the pairs",
            "product",
            averaging::weighted_product(&pairs, &weights),
        ),
        (
            "product at the pairs' rank",
            "product_rank_r",
            averaging::weighted_product(&[(&new_a, &new_b)], &[1.0]),
        ),
    ];
    let name = name(path);
    let compare = |(quantity, key, got): (&str, &str, Array)| {
        Ok(Comparison::new(
            &name,
            quantity,
            &got.values,
            &want.get(key)?.values,
            FORWARD,
        ))
    };
    results.into_iter().map(compare).collect()
}
