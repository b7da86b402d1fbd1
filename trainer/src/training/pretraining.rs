use std::collections::BTreeSet;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::{Parameters, Role, StateDict, initialise, to_vec};
use flapsam_model::prompt_encoder::{Point, PointKind};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;

use super::{AdamW, Schedule};
use crate::data::synthetic::natural::NaturalImage;
use crate::error::Result;

/// Pretraining of an official SAM on procedural images, by prompts: given clicks or a box, find the shape that they mean.
#[derive(Debug)]
pub struct Pretraining {
    sam: SamConfig,
    parameters: Parameters,
    optimizer: AdamW,
    schedule: Schedule,
    step: usize,
    seed: u64,
    device: Device,
}

/// Images in a step.
const IMAGES: usize = 8;
/// Prompts for each of them: the image is encoded only once.
const PROMPTS: usize = 4;
const WEIGHT_DECAY: f64 = 0.01;

/// What a step ended with.
#[derive(Debug, Clone, Copy)]
pub struct StepResult {
    /// The training loss.
    pub loss: f32,
    /// Mean intersection over union of the best mask of each prompt.
    pub iou: f32,
}

impl Pretraining {
    /// A freshly drawn network and `steps` steps ahead of it.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(sam: SamConfig, steps: usize, seed: u64, device: &Device) -> Result<Self> {
        let layout = Sam::layout(&sam, None)?;
        let trained: BTreeSet<String> = layout
            .iter()
            .filter(|(_, spec)| spec.role != Role::Constant)
            .map(|(key, _)| key.clone())
            .collect();
        let mut parameters = Parameters::new(&initialise(&layout, seed), device);
        parameters.require_grad(&trained);
        Ok(Self {
            sam,
            parameters,
            optimizer: AdamW::new(WEIGHT_DECAY),
            schedule: Schedule {
                base_lr: 1e-3,
                warmup_period: 100,
                max_iterations: steps.max(1),
                lr_exp: 1,
            },
            step: 0,
            seed,
            device: device.clone(),
        })
    }

    /// One step on fresh images, each with several prompts.
    ///
    /// # Errors
    /// The weights are not those of the network (a programming error).
    pub fn step(&mut self) -> Result<StepResult> {
        let side = self.sam.image_size;
        let mut random = Random::new(self.seed, &format!("pretraining/{}", self.step));
        let network = Sam::new(&self.sam, None, &self.parameters)?;
        let mut planes = Vec::new();
        let mut targets = Vec::new();
        let mut sparse = Vec::new();
        // The official decoder's masks have four pixels for a token.
        let cells = 4 * self.sam.grid();
        for _ in 0..IMAGES {
            let image = NaturalImage::new(side, &mut random);
            for _ in 0..PROMPTS {
                let shape = visible_shape(&image, &mut random);
                targets.extend(coverage(&image, shape, side, cells));
                sparse.extend(network.prompt_encoder.sparse(&prompt(&image, shape, side, &mut random)));
            }
            planes.extend(image.planes);
        }
        let masks = IMAGES * PROMPTS;
        let images = Tensor::from_data(TensorData::new(planes, [IMAGES, 3, side, side]), &self.device);
        let targets = Tensor::<4>::from_data(TensorData::new(targets, [masks, 1, cells, cells]), &self.device);
        let embedding = network.image_encoder.forward(images);
        let embedding = network.prompt_encoder.without_mask(embedding);
        let [_, channels, rows, columns] = embedding.dims();
        let embedding = embedding
            .unsqueeze_dim::<5>(1)
            .repeat_dim(1, PROMPTS)
            .reshape([masks, channels, rows, columns]);
        let positions = network.prompt_encoder.positional_grid();
        let (logits, scores) = network
            .mask_decoder
            .forward(embedding, positions, Some(Tensor::cat(sparse, 0)));
        let count = logits.dims()[1];
        let probabilities = sigmoid(logits).clamp(1e-6, 1.0 - 1e-6);

        let per_mask = |x: Tensor<4>| x.mean_dims(&[2, 3]).reshape([masks, count]);
        let overlap = per_mask(probabilities.clone() * targets.clone());
        let sizes = per_mask(probabilities.clone()) + per_mask(targets.clone().expand([masks, count, cells, cells]));
        let dice = -(overlap.clone() * 2.0 + 1e-4) / (sizes.clone() + 1e-4) + 1.0;
        let entropy =
            targets.clone() * probabilities.clone().log() + (-targets.clone() + 1.0) * (-probabilities + 1.0).log();
        let loss = dice - per_mask(entropy);
        // Of several answers to an ambiguous prompt, only the best learns; the single answer always does.
        let single = loss.clone().narrow(1, 0, 1);
        let best = loss.narrow(1, 1, count - 1).min_dim(1);
        let iou = overlap.clone() / (sizes - overlap + 1e-4);
        let guess = (scores - iou.clone().detach()).square();
        let total = (single + best).mean() + guess.mean();

        let mut gradients = total.backward();
        self.optimizer
            .step(&mut self.parameters, &mut gradients, self.schedule.rate(self.step))?;
        self.step += 1;
        Ok(StepResult {
            loss: to_vec(total)[0],
            iou: to_vec(iou.narrow(1, 1, count - 1).max_dim(1).mean())[0],
        })
    }

    /// The weights, buffers included.
    pub fn state(&self) -> StateDict {
        let all = self.parameters.keys();
        self.parameters.state(&all)
    }
}

/// One of the shapes that are seen, each as likely as the others. An image without any counts as one shape.
fn visible_shape(image: &NaturalImage, random: &mut Random) -> u8 {
    let seen: BTreeSet<u8> = image.shapes.iter().copied().filter(|&shape| shape > 0).collect();
    match seen.len() {
        0 => 0,
        count => *seen.iter().nth(random.below(count)).expect("it is one of them"),
    }
}

/// How much of each of `cells` x `cells` squares is the shape's.
fn coverage(image: &NaturalImage, shape: u8, side: usize, cells: usize) -> Vec<f32> {
    let step = side / cells;
    let mut covered = vec![0f32; cells * cells];
    for (place, &seen) in image.shapes.iter().enumerate() {
        if seen == shape {
            covered[place / side / step * cells + place % side / step] += 1.0 / (step * step) as f32;
        }
    }
    covered
}

/// What a user could say of the shape: a click in it, a click in it and one outside, or a box around it.
fn prompt(image: &NaturalImage, shape: u8, side: usize, random: &mut Random) -> [Point; 2] {
    let places = |inside: bool| -> Vec<usize> {
        let wanted = |&place: &usize| (image.shapes[place] == shape) == inside;
        (0..side * side).filter(wanted).collect()
    };
    let point = |place: usize, kind: PointKind| Point {
        x: (place % side) as f32,
        y: (place / side) as f32,
        kind,
    };
    let inside = places(true);
    let click = point(inside[random.below(inside.len())], PointKind::Positive);
    match random.below(4) {
        0 | 1 => [
            click,
            Point {
                kind: PointKind::Padding,
                ..click
            },
        ],
        2 => {
            let outside = places(false);
            match outside.len() {
                0 => [click, click],
                count => [click, point(outside[random.below(count)], PointKind::Negative)],
            }
        }
        _ => {
            let column = |place: &usize| place % side;
            let left = inside.iter().map(column).min().unwrap_or(0);
            let right = inside.iter().map(column).max().unwrap_or(0);
            let (top, bottom) = (inside[0] / side, inside[inside.len() - 1] / side);
            [
                point(top * side + left, PointKind::BoxStart),
                point(bottom * side + right, PointKind::BoxEnd),
            ]
        }
    }
}
