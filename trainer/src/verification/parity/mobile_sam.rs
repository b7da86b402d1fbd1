//! MobileSAM's cases: its image encoder by itself with drawn weights (`meta.json`, `weights.safetensors` with LoRA,
//! `forward_backward.safetensors`), and the whole network with published ones (`forward.safetensors`).

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use flapsam_model::checkpoint::{adapt, norm_factor, start};
use flapsam_model::config::{AdapterConfig, EncoderConfig, STAGES, SamConfig, TinyVitConfig};
use flapsam_model::image_encoder::ImageEncoder;
use flapsam_model::parameters::{Array, Layout, Parameters, Part, Role, Source, Start, StateDict, to_vec};
use flapsam_model::prompt_encoder::{Point, PointKind};
use flapsam_model::sam::{Sam, box_points};
use serde::Deserialize;

use super::{
    Comparison, FORWARD, GRADIENT, GRADIENT_FLOOR, Lora, META, Quantities, Tensors, Tolerance, judge, name, named, norm,
};
use crate::error::{Error, Result};
use crate::files::read_json;
use crate::state_dict::read_state_dict;

/// The outputs of a case of published weights.
pub const PROMPTED: &str = "forward.safetensors";
/// Largest absolute error of such a case's masks, which are about 10, and of its scores.
const MASKS: Tolerance = Tolerance::Absolute(1e-3);

#[derive(Debug, Deserialize)]
struct Meta {
    config: Config,
    #[serde(flatten)]
    lora: Lora,
}

#[derive(Debug, Deserialize)]
struct Config {
    image_size: usize,
    embed_dims: [usize; STAGES],
    depths: [usize; STAGES],
    num_heads: [usize; STAGES],
    window_sizes: [usize; STAGES],
    mlp_ratio: f64,
    mbconv_expand_ratio: f64,
    local_conv_size: usize,
    prompt_dim: usize,
}

/// Whether a case is of an encoder by itself.
pub fn is_encoder(folder: &Path) -> Result<bool> {
    let meta: serde_json::Value = read_json(&folder.join(META))?;
    Ok(meta["config"]["family"] == "tiny_vit")
}

/// The encoder with and without LoRA, and every gradient.
pub fn compare_encoder(folder: &Path, device: &Device) -> Result<Vec<Comparison>> {
    let path = folder.join(META);
    let meta: Meta = read_json(&path)?;
    let config = &meta.config;
    if (config.mlp_ratio, config.mbconv_expand_ratio, config.local_conv_size) != (4.0, 4.0, 3) {
        let why = "the encoder here has mlp_ratio 4, mbconv_expand_ratio 4 and local_conv_size 3, as MobileSAM does";
        return Err(Error::invalid(&path, why));
    }
    let sam = SamConfig {
        image_size: config.image_size,
        encoder: EncoderConfig::TinyVit(TinyVitConfig {
            embed_dims: config.embed_dims,
            depths: config.depths,
            num_heads: config.num_heads,
            window_sizes: config.window_sizes,
        }),
        prompt_dim: config.prompt_dim,
        // There is no decoder.
        decoder_mlp_dim: 1,
        decoder_heads: 1,
    };
    sam.encoder.check(sam.image_size).map_err(Error::content(&path))?;
    // No class is asked for.
    let adapter = meta.lora.adapter(1);
    adapter.check().map_err(Error::content(&path))?;
    let case = Encoder {
        weights: Tensors::read(folder.join("weights.safetensors"))?,
        fixture: Tensors::read(folder.join("forward_backward.safetensors"))?,
        layout: layout(&sam, Some(&adapter))?,
        sam,
        adapter,
        device,
    };
    judge(&name(folder), &case.want()?, &case.weights, |weights| {
        case.compute(weights)
    })
}

fn layout(sam: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Layout> {
    let mut layout = Layout::new();
    let mut source = Source::declare(&mut layout);
    ImageEncoder::new(&mut source.part(Part::ImageEncoder), sam, adapter)?;
    Ok(layout)
}

struct Encoder<'a> {
    weights: Tensors,
    fixture: Tensors,
    sam: SamConfig,
    adapter: AdapterConfig,
    layout: Layout,
    device: &'a Device,
}

impl Encoder<'_> {
    fn want(&self) -> Result<Quantities> {
        let forward = ["embedding", "embedding_adapted", "loss"].map(|key| {
            let values = self.fixture.get(key)?.values.clone();
            Ok((key.to_owned(), values, FORWARD))
        });
        let mut want: Quantities = forward.into_iter().collect::<Result<_>>()?;
        let gradients = self
            .layout
            .keys()
            .map(|key| Ok((key, self.fixture.get(&format!("grad.{key}"))?)));
        let gradients: Vec<_> = gradients.collect::<Result<_>>()?;
        let norms = gradients.iter().map(|(_, array)| norm(&array.values));
        let tolerance = Tolerance::OfNorm {
            most: GRADIENT,
            floor: GRADIENT_FLOOR * norms.fold(0.0, f64::max),
        };
        let gradients = gradients.into_iter();
        want.extend(gradients.map(|(key, array)| (format!("gradient of {key}"), array.values.clone(), tolerance)));
        Ok(want)
    }

    fn compute(&self, weights: &StateDict) -> Result<BTreeMap<String, Vec<f32>>> {
        let image: Tensor<4> = self.fixture.tensor("image", self.device)?;
        let plain = layout(&self.sam, None)?;
        let plain = Parameters::new(&start(weights, &plain, 0)?, self.device);
        let plain = encoder(&plain, &self.sam, None)?.forward(image.clone());

        let mut state = start(weights, &self.layout, 0)?;
        for (key, spec) in &self.layout {
            if spec.role.is_lora() || matches!(spec.role, Role::Magnitude { .. }) {
                state.insert(key.clone(), self.fixture_weight(weights, key)?);
            }
        }
        let mut parameters = Parameters::new(&state, self.device);
        parameters.require_grad(&self.layout.keys().cloned().collect());
        let adapted = encoder(&parameters, &self.sam, Some(&self.adapter))?.forward(image);
        let target: Tensor<4> = self.fixture.tensor("target", self.device)?;
        let loss = (adapted.clone() * target.autodiff()).mean();
        let gradients = loss.backward();

        let mut results = named([
            ("embedding", to_vec(plain)),
            ("embedding_adapted", to_vec(adapted)),
            ("loss", to_vec(loss)),
        ]);
        for (key, spec) in &self.layout {
            let gradient = parameters
                .get(key)
                .and_then(|parameter| parameter.flat.grad(&gradients));
            let mut gradient = gradient.map(to_vec::<1>).unwrap_or_default();
            if let Start::Folded { conv, norm } = &spec.start
                && conv == key
            {
                // The reference's is of the weight before its norm's factor.
                let of_norm = |name: &str| Ok(self.weights.get(&format!("{norm}.{name}"))?.values.iter());
                let factors: Result<Vec<f64>> = of_norm("weight").and_then(|weights| {
                    let both = weights.zip(of_norm("running_var")?);
                    Ok(both.map(|(&weight, &variance)| norm_factor(weight, variance)).collect())
                });
                let filter = (gradient.len() / spec.shape[0].max(1)).max(1);
                for (values, factor) in gradient.chunks_mut(filter).zip(factors?) {
                    values
                        .iter_mut()
                        .for_each(|value| *value = (f64::from(*value) * factor) as f32);
                }
            }
            results.insert(format!("gradient of {key}"), gradient);
        }
        Ok(results)
    }

    fn fixture_weight(&self, weights: &StateDict, key: &str) -> Result<Array> {
        let found = weights.get(key).ok_or_else(|| {
            let why = format!("the tensor '{key}' is missing; make the fixture again");
            Error::invalid(&self.weights.path, why)
        });
        Ok(found?.clone())
    }
}

fn encoder(parameters: &Parameters, sam: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<ImageEncoder> {
    let mut source = Source::Read(parameters);
    Ok(ImageEncoder::new(&mut source.part(Part::ImageEncoder), sam, adapter)?)
}

/// The whole network: embeddings at two image sizes, and masks and scores for points, a box, and both.
pub fn compare_prompted(folder: &Path, base: &Path, device: &Device) -> Result<Vec<Comparison>> {
    let fixture = Tensors::read(folder.join(PROMPTED))?;
    let (state, _) = read_state_dict(base)?;
    let weights = Tensors {
        path: base.to_owned(),
        state,
    };
    let prompts = [
        ("points", "masks.points", "scores.points"),
        ("box", "masks.box", "scores.box"),
        ("points and box", "masks.points_box", "scores.points_box"),
    ];
    let mut want: Quantities = Vec::new();
    for (quantity, key, tolerance) in [
        ("embedding, every fourth place", "embedding_every_4th", FORWARD),
        ("embedding at 256 pixels", "embedding_256", FORWARD),
    ] {
        want.push((quantity.into(), fixture.get(key)?.values.clone(), tolerance));
    }
    for (prompt, masks, scores) in prompts {
        want.push((format!("masks for {prompt}"), fixture.get(masks)?.values.clone(), MASKS));
        want.push((
            format!("scores for {prompt}"),
            fixture.get(scores)?.values.clone(),
            MASKS,
        ));
    }
    let compute = |state: &StateDict| -> Result<BTreeMap<String, Vec<f32>>> {
        let (whole, embedding) = embedding(state, &fixture, "image", device)?;
        let (_, small) = self::embedding(state, &fixture, "image_256", device)?;
        let mut results = named([
            ("embedding, every fourth place", every_fourth(embedding.clone())),
            ("embedding at 256 pixels", to_vec(small)),
        ]);
        let points = points(&fixture)?;
        let corners = corners(&fixture)?;
        let padded = [&points[..], &[PADDING]].concat();
        for ((prompt, ..), points) in
            prompts
                .iter()
                .zip([padded, corners.to_vec(), [points, corners.to_vec()].concat()])
        {
            let (masks, scores) = whole.predict_multimask(embedding.clone(), &points);
            results.insert(format!("masks for {prompt}"), to_vec(masks));
            results.insert(format!("scores for {prompt}"), to_vec(scores));
        }
        Ok(results)
    };
    judge(&name(folder), &want, &weights, compute)
}

/// Stands in the box's place where there are only points.
const PADDING: Point = Point {
    x: 0.0,
    y: 0.0,
    kind: PointKind::Padding,
};

/// The network for an image of the fixture, and the image's embedding.
fn embedding(state: &StateDict, fixture: &Tensors, key: &str, device: &Device) -> Result<(Sam, Tensor<4>)> {
    let image: Tensor<3> = fixture.tensor(key, device)?;
    let [_, rows, columns] = image.dims();
    let mobile = SamConfig::named("mobile_sam").ok_or_else(|| Error::Message("there is no mobile_sam".into()))?;
    let sam = mobile.with_image_size(rows);
    let parameters = Parameters::new(&adapt(state, &sam, None, 0)?, device);
    let sam = Sam::new(&sam, None, &parameters)?;
    let embedding = sam
        .image_encoder
        .forward(image.reshape([1, 1, rows, columns]).repeat_dim(1, 3));
    Ok((sam, embedding))
}

/// Every fourth row and column, from the first on.
fn every_fourth(embedding: Tensor<4>) -> Vec<f32> {
    let [_, _, rows, columns] = embedding.dims();
    let values = to_vec(embedding);
    let rows = values
        .chunks_exact(columns)
        .enumerate()
        .filter(|(row, _)| (row % rows).is_multiple_of(4));
    rows.flat_map(|(_, line)| line.iter().step_by(4).copied()).collect()
}

fn points(fixture: &Tensors) -> Result<Vec<Point>> {
    let (places, labels) = (fixture.get("points")?, fixture.get("labels")?);
    let points = places.values.chunks_exact(2).zip(&labels.values);
    let point = |(place, &label): (&[f32], &f32)| Point {
        x: place[0],
        y: place[1],
        kind: match label == 0.0 {
            true => PointKind::Negative,
            false => PointKind::Positive,
        },
    };
    Ok(points.map(point).collect())
}

fn corners(fixture: &Tensors) -> Result<[Point; 2]> {
    match fixture.get("box")?.values[..] {
        [left, top, right, bottom] => Ok(box_points([left, top, right, bottom])),
        _ => Err(Error::invalid(&fixture.path, "'box' is not one box of four numbers")),
    }
}
