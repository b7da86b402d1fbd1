//! SAM's prompt encoder: points and boxes to sparse embeddings, and the positional grid of the image.

use burn::tensor::{Tensor, TensorData};
use flapsam_kernels::elementary::{cos, sin};
use flapsam_kernels::{add_row, matmul};

use crate::Error;
use crate::config::SamConfig;
use crate::parameters::{Init, ON_HOST, Role, Scope, to_vec};

/// A click or a corner of a box, in pixels of the network's input image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Column, pixels.
    pub x: f32,
    /// Row, pixels.
    pub y: f32,
    /// What it says.
    pub kind: PointKind,
}

/// What a [`Point`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointKind {
    /// Not the object.
    Negative,
    /// The object.
    Positive,
    /// Top left corner of a box.
    BoxStart,
    /// Bottom right corner of a box.
    BoxEnd,
    /// No point at all: fills the place of the box when there are only points.
    Padding,
}

/// Prompts to embeddings.
#[derive(Debug, Clone)]
pub struct PromptEncoder {
    /// On the host.
    gaussian: Tensor<2>,
    point_embeddings: [Tensor<2>; 4],
    not_a_point_embed: Tensor<2>,
    no_mask_embed: Tensor<2>,
    image_size: usize,
    grid: usize,
}

impl PromptEncoder {
    /// Builds the encoder.
    pub fn new(scope: &mut Scope, config: &SamConfig) -> Result<Self, Error> {
        let dim = config.prompt_dim;
        let normal = Init::Normal { std: 1.0 };
        let mut frequencies = scope.at("pe_layer").role(Role::Constant);
        let gaussian = frequencies.parameter(ON_HOST, [2, dim / 2], normal)?;
        let mut embedding = |name: &str| scope.at(name).parameter("weight", [1, dim], normal);
        let encoder = Self {
            gaussian,
            point_embeddings: [
                embedding("point_embeddings.0")?,
                embedding("point_embeddings.1")?,
                embedding("point_embeddings.2")?,
                embedding("point_embeddings.3")?,
            ],
            not_a_point_embed: embedding("not_a_point_embed")?,
            no_mask_embed: embedding("no_mask_embed")?,
            image_size: config.image_size,
            grid: config.grid(),
        };
        Self::declare_mask_prompts(&mut scope.at("mask_downscaling"), dim)?;
        Ok(encoder)
    }

    /// Mask prompts are not part of the method; their weights are part of every SAM checkpoint and of full
    /// fine-tuning's count, so they are read and kept.
    fn declare_mask_prompts(scope: &mut Scope, dim: usize) -> Result<(), Error> {
        for (conv, inputs, outputs, kernel) in [(0, 1, 4, 2), (3, 4, 16, 2), (6, 16, dim, 1)] {
            let init = Init::fan_in(inputs * kernel * kernel);
            let shape = [outputs, inputs, kernel, kernel];
            scope.at(conv).parameter("weight", shape, init)?;
            scope.at(conv).parameter("bias", [outputs], init)?;
        }
        for (norm, channels) in [(1, 4), (4, 16)] {
            let mut scope = scope.at(norm);
            scope.parameter("weight", [channels], Init::Constant(1.0))?;
            scope.parameter("bias", [channels], Init::Constant(0.0))?;
        }
        Ok(())
    }

    /// The positional encoding of every token of the image, `[1, prompt_dim, row, column]`.
    pub fn positional_grid(&self) -> Tensor<4> {
        let grid = self.grid;
        let centre = |index: usize| (index as f32 + 0.5) / grid as f32;
        let coordinates = (0..grid * grid)
            .flat_map(|token| [centre(token % grid), centre(token / grid)])
            .collect();
        let encoded = self.encode(coordinates);
        let dim = encoded.dims()[1];
        encoded.transpose().reshape([1, dim, grid, grid])
    }

    /// The embeddings of points, a box's corners among them: `[1, points, prompt_dim]`; `None` without prompts.
    pub fn sparse(&self, points: &[Point]) -> Option<Tensor<3>> {
        if points.is_empty() {
            return None;
        }
        let size = self.image_size as f32;
        // SAM counts from pixel centres.
        let coordinates = points
            .iter()
            .flat_map(|point| [(point.x + 0.5) / size, (point.y + 0.5) / size])
            .collect();
        let encoded = self.encode(coordinates);
        let rows = points.iter().enumerate().map(|(index, point)| {
            let position = encoded.clone().narrow(0, index, 1);
            match point.kind {
                PointKind::Padding => self.not_a_point_embed.clone(),
                PointKind::Negative => position + self.point_embeddings[0].clone(),
                PointKind::Positive => position + self.point_embeddings[1].clone(),
                PointKind::BoxStart => position + self.point_embeddings[2].clone(),
                PointKind::BoxEnd => position + self.point_embeddings[3].clone(),
            }
        });
        Some(Tensor::cat(rows.collect(), 0).unsqueeze::<3>())
    }

    /// Adds the embedding that stands for "no mask given" to every token of an image's,
    /// `[batch, prompt_dim, row, column]`.
    pub fn without_mask(&self, embedding: Tensor<4>) -> Tensor<4> {
        let tokens = embedding.permute([0, 2, 3, 1]);
        add_row(tokens, self.no_mask_embed.clone()).permute([0, 3, 1, 2])
    }

    /// Random Fourier features of `(x, y)` pairs in `[0, 1]`: `[points, prompt_dim]`. Computed on the host, see
    /// [`crate::parameters`].
    fn encode(&self, coordinates: Vec<f32>) -> Tensor<2> {
        let count = coordinates.len() / 2;
        let data = TensorData::new(coordinates, [count, 2]);
        let centred = Tensor::<2>::from_data(data, &self.gaussian.device()) * 2.0 - 1.0;
        let angles = matmul(centred, self.gaussian.clone()) * std::f64::consts::TAU;
        let [_, half] = angles.dims();
        let angles = to_vec(angles);
        let line =
            |line: &[f32]| -> Vec<f32> { [sin, cos].iter().flat_map(|of| line.iter().map(|&x| of(x))).collect() };
        let encoded: Vec<f32> = angles.chunks_exact(half).flat_map(line).collect();
        let data = TensorData::new(encoded, [count, 2 * half]);
        Tensor::from_data(data, &self.no_mask_embed.device()).without_autodiff()
    }
}
