use std::collections::BTreeSet;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::{Parameters, StateDict, initialise, to_vec};
use flapsam_model::prompt_encoder::{Point, PointKind};
use flapsam_model::random::Random;
use flapsam_model::sam::{Sam, resize_bilinear};

use super::{AdamW, Schedule};
use crate::data::natural::NaturalImage;
use crate::error::Result;

/// Pretraining of an official SAM on procedural images, by clicks: given a point, find the shape under it.
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
const BATCH: usize = 8;
const WEIGHT_DECAY: f64 = 0.01;

/// What a step ended with.
#[derive(Debug, Clone, Copy)]
pub struct StepResult {
    /// The training loss.
    pub loss: f32,
    /// Mean intersection over union of the best mask of each click.
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
            .filter(|(_, spec)| !spec.buffer)
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

    /// One step on fresh images.
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
        for _ in 0..BATCH {
            let (image, click) = clicked_image(side, &mut random);
            let shape = image.shapes[click];
            targets.extend(image.shapes.iter().map(|&seen| f32::from(seen == shape)));
            planes.extend(image.planes);
            let point = Point {
                x: (click % side) as f32,
                y: (click / side) as f32,
                kind: PointKind::Positive,
            };
            let nothing = Point {
                kind: PointKind::Padding,
                ..point
            };
            sparse.extend(network.prompt_encoder.sparse(&[point, nothing]));
        }
        let images = Tensor::from_data(TensorData::new(planes, [BATCH, 3, side, side]), &self.device);
        let targets = Tensor::<4>::from_data(TensorData::new(targets, [BATCH, 1, side, side]), &self.device);
        let embedding = network.image_encoder.forward(images) + network.prompt_encoder.dense();
        let positions = network.prompt_encoder.positional_grid();
        let (masks, scores) = network
            .mask_decoder
            .forward(embedding, positions, Some(Tensor::cat(sparse, 0)));
        let [_, count, high, _] = masks.dims();
        let probabilities = sigmoid(resize_bilinear(masks, [side, side])).clamp(1e-6, 1.0 - 1e-6);
        debug_assert!(high <= side);

        let per_mask = |x: Tensor<4>| x.mean_dims(&[2, 3]).reshape([BATCH, count]);
        let overlap = per_mask(probabilities.clone() * targets.clone());
        let sizes = per_mask(probabilities.clone()) + per_mask(targets.clone().expand([BATCH, count, side, side]));
        let dice = -(overlap.clone() * 2.0 + 1e-4) / (sizes.clone() + 1e-4) + 1.0;
        let entropy =
            targets.clone() * probabilities.clone().log() + (-targets.clone() + 1.0) * (-probabilities + 1.0).log();
        let loss = dice - per_mask(entropy);
        // Of several answers to an ambiguous click, only the best learns; the single answer always does.
        let single = loss.clone().narrow(1, 0, 1);
        let best = loss.narrow(1, 1, count - 1).min_dim(1);
        let iou = overlap.clone() / (sizes - overlap + 1e-4);
        let guess = (scores - iou.clone().detach()).square();
        let total = (single + best).mean() + guess.mean();

        let mut gradients = total.backward();
        self.optimizer
            .step(&mut self.parameters, &mut gradients, self.schedule.rate(self.step));
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

/// An image, and a pixel of one of its shapes.
fn clicked_image(side: usize, random: &mut Random) -> (NaturalImage, usize) {
    loop {
        let image = NaturalImage::new(side, random);
        let inside: Vec<usize> = (0..side * side).filter(|&place| image.shapes[place] > 0).collect();
        if !inside.is_empty() {
            let click = inside[random.below(inside.len())];
            return (image, click);
        }
    }
}
