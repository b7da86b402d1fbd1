//! Segment Anything, official and adapted.

use burn::tensor::Tensor;
use flapsam_kernels::{Alignment, resize_bilinear};

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::image_encoder::ImageEncoder;
use crate::mask_decoder::MaskDecoder;
use crate::parameters::{Layout, Parameters, Part, Source};
use crate::prompt_encoder::{Point, PointKind, PromptEncoder};

/// The network: a view of its [`Parameters`], cheap to build.
#[derive(Debug, Clone)]
pub struct Sam {
    /// Images to embeddings.
    pub image_encoder: ImageEncoder,
    /// Clicks and boxes to embeddings.
    pub prompt_encoder: PromptEncoder,
    /// Embeddings to masks.
    pub mask_decoder: MaskDecoder,
    image_size: usize,
}

impl Sam {
    /// The official network, or the adapted one.
    ///
    /// # Errors
    /// A setting out of range, or a parameter that is missing or of another shape.
    pub fn new(config: &SamConfig, adapter: Option<&AdapterConfig>, parameters: &Parameters) -> Result<Self, Error> {
        Self::build(config, adapter, Source::Read(parameters))
    }

    /// Every parameter of the network, without any weights.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn layout(config: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Layout, Error> {
        let mut layout = Layout::new();
        Self::build(config, adapter, Source::declare(&mut layout))?;
        Ok(layout)
    }

    fn build(config: &SamConfig, adapter: Option<&AdapterConfig>, mut source: Source) -> Result<Self, Error> {
        config.check()?;
        adapter.map_or(Ok(()), AdapterConfig::check)?;
        Ok(Self {
            image_encoder: ImageEncoder::new(&mut source.part(Part::ImageEncoder), config, adapter)?,
            prompt_encoder: PromptEncoder::new(&mut source.part(Part::PromptEncoder), config)?,
            mask_decoder: MaskDecoder::new(&mut source.part(Part::MaskDecoder), config, adapter)?,
            image_size: config.image_size,
        })
    }

    /// Masks for an image embedding `[batch, channel, row, column]` and prompts: logits `[batch, mask, row, column]`
    /// at the decoder's resolution, and predicted scores `[batch, mask]`. Without prompts, pass no points.
    pub fn predict(&self, embedding: Tensor<4>, points: &[Point]) -> (Tensor<4>, Tensor<2>) {
        let sparse = self.prompt_encoder.sparse(points);
        let positions = self.prompt_encoder.positional_grid();
        let image = self.prompt_encoder.without_mask(embedding);
        self.mask_decoder.forward(image, positions, sparse)
    }

    /// The official decoder's three masks for ambiguous prompts: [`Sam::predict`] without the first mask.
    pub fn predict_multimask(&self, embedding: Tensor<4>, points: &[Point]) -> (Tensor<4>, Tensor<2>) {
        let (masks, scores) = self.predict(embedding, points);
        let others = masks.dims()[1] - 1;
        (masks.narrow(1, 1, others), scores.narrow(1, 1, others))
    }

    /// The adapted network: slices `[slice, 3, row, column]` in `[0, 1]` to class logits
    /// `[slice, class, row, column]` at the decoder's resolution. Class 0 is the background.
    pub fn logits(&self, slices: Tensor<4>) -> Tensor<4> {
        self.predict(self.image_encoder.forward(slices), &[]).0
    }

    /// Masks at the input's resolution.
    pub fn to_image_size(&self, masks: Tensor<4>) -> Tensor<4> {
        resize_bilinear(masks, [self.image_size; 2], Alignment::Edges)
    }
}

/// A box prompt's two corners: left, top, right, bottom in pixels of the network's input image.
pub fn box_points([left, top, right, bottom]: [f32; 4]) -> [Point; 2] {
    let corner = |x, y, kind| Point { x, y, kind };
    [
        corner(left, top, PointKind::BoxStart),
        corner(right, bottom, PointKind::BoxEnd),
    ]
}
