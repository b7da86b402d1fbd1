//! The network's numbers against the reference outputs, from one source natively and in a browser, there on the CPU and
//! on WebGPU: `cargo test`, and `bash viewer/test.sh`.

use flapsam_model::burn::tensor::{Device, Tensor, TensorData};
use flapsam_model::checkpoint::read_safetensors;
use flapsam_model::config::{AdapterConfig, LoraInit, SamConfig};
use flapsam_model::parameters::{Parameters, StateDict};
use flapsam_model::prompt_encoder::{Point, PointKind};
use flapsam_model::sam::{Sam, box_points};
use serde::Deserialize;

/// Largest absolute error, as natively.
const TOLERANCE: f32 = 1e-4;

/// The official network's weights in the case that has them, and its outputs.
const OFFICIAL: &[u8] = include_bytes!("../../tests/fixtures/parity/dora/sam.safetensors");
const OFFICIAL_OUTPUTS: &[u8] = include_bytes!("../../tests/fixtures/parity/dora/sam_forward.safetensors");

/// A case's files of the adapted network, which a browser cannot open.
struct Case {
    meta: &'static [u8],
    flap: &'static [u8],
    flap_forward: &'static [u8],
}

macro_rules! case {
    ($name:literal) => {
        Case {
            meta: include_bytes!(concat!("../../tests/fixtures/parity/", $name, "/meta.json")),
            flap: include_bytes!(concat!("../../tests/fixtures/parity/", $name, "/flap.safetensors")),
            flap_forward: include_bytes!(concat!(
                "../../tests/fixtures/parity/",
                $name,
                "/flap_forward_backward.safetensors"
            )),
        }
    };
}

const DORA: Case = case!("dora");
const TWO_LORA: Case = case!("two-lora");

#[derive(Deserialize)]
struct Meta {
    config: SamConfig,
    train_image_size: usize,
    num_classes: usize,
    rank: usize,
    num_lora: usize,
    dora: bool,
    lora_scale: f64,
}

fn read(bytes: &[u8]) -> StateDict {
    read_safetensors(bytes).unwrap().0
}

fn tensor<const RANK: usize>(state: &StateDict, key: &str, device: &Device) -> Tensor<RANK> {
    let array = &state[key];
    Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
}

async fn same<const RANK: usize>(got: Tensor<RANK>, fixture: &StateDict, key: &str) {
    let want = &fixture[key];
    assert_eq!(got.dims().to_vec(), want.shape, "{key}");
    let got = got.into_data_async().await.unwrap().try_into_vec::<f32>().unwrap();
    let distance = |(got, want): (&f32, &f32)| (got - want).abs();
    let largest = got.iter().zip(&want.values).map(distance).fold(0.0, f32::max);
    assert!(
        got.iter().all(|value| value.is_finite()),
        "{key} has values that are no numbers"
    );
    assert!(largest <= TOLERANCE, "{key} is {largest} off");
}

fn points(fixture: &StateDict) -> Vec<Point> {
    let kind = |label: f32| match label > 0.0 {
        true => PointKind::Positive,
        false => PointKind::Negative,
    };
    let places = fixture["prompt.points"].values.chunks_exact(2);
    let clicks = places
        .zip(&fixture["prompt.point_labels"].values)
        .map(|(place, &label)| Point {
            x: place[0],
            y: place[1],
            kind: kind(label),
        });
    let corners = fixture["prompt.box"].values[..].try_into().unwrap();
    clicks.chain(box_points(corners)).collect()
}

/// The official network: embeddings, and masks with and without prompts.
async fn official(weights: &StateDict, device: &Device) {
    let meta: Meta = serde_json::from_slice(DORA.meta).unwrap();
    let fixture = read(OFFICIAL_OUTPUTS);
    let sam = Sam::new(&meta.config, None, &Parameters::new(weights, device)).unwrap();
    let embedding = sam.image_encoder.forward(tensor(&fixture, "image", device));
    same(embedding.clone(), &fixture, "image_embedding").await;
    same(sam.prompt_encoder.positional_grid(), &fixture, "dense_pe").await;
    let (masks, scores) = sam.predict_multimask(embedding.clone(), &[]);
    same(masks, &fixture, "no_prompt.masks").await;
    same(scores, &fixture, "no_prompt.iou").await;
    let (masks, scores) = sam.predict_multimask(embedding.narrow(0, 0, 1), &points(&fixture));
    same(masks, &fixture, "prompt.masks").await;
    same(scores, &fixture, "prompt.iou").await;
}

/// The adapted network: logits of a stack's first slice, and its masks of the images' size.
async fn adapted(case: &Case, device: &Device) {
    let meta: Meta = serde_json::from_slice(case.meta).unwrap();
    let fixture = read(case.flap_forward);
    let adapter = AdapterConfig {
        num_classes: meta.num_classes,
        rank: meta.rank,
        num_lora: meta.num_lora,
        dora: meta.dora,
        train_magnitude: false,
        lora_scale: meta.lora_scale,
        lora_init: LoraInit::Zero,
    };
    let config = meta.config.with_image_size(meta.train_image_size);
    let sam = Sam::new(&config, Some(&adapter), &Parameters::new(&read(case.flap), device)).unwrap();
    let stack: Tensor<5> = tensor(&fixture, "stack", device);
    // The fixture has one of three equal channels, and of the outputs the first slice.
    let [_, slices, channels, rows, columns] = stack.dims();
    let images = stack
        .reshape([slices, channels, rows, columns])
        .repeat_dim(1, 3 / channels);
    let logits = sam.logits(images).narrow(0, 0, 1);
    same(logits.clone(), &fixture, "low_res_logits").await;
    same(sam.to_image_size(logits), &fixture, "masks").await;
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use pollster::block_on;

    use super::*;

    #[test]
    fn official_network() {
        block_on(official(&read(OFFICIAL), &Device::flex()));
    }

    #[test]
    fn adapted_network() {
        for case in [&DORA, &TWO_LORA] {
            block_on(adapted(case, &Device::flex()));
        }
    }

    #[test]
    #[should_panic(expected = "image_embedding is")]
    fn a_changed_weight_is_noticed() {
        let mut weights = read(OFFICIAL);
        weights.get_mut("image_encoder.neck.0.weight").unwrap().values[0] += 0.1;
        block_on(official(&weights, &Device::flex()));
    }
}

#[cfg(target_arch = "wasm32")]
mod browser {
    use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

    use super::*;

    // Where the page runs the network too.
    wasm_bindgen_test_configure!(run_in_dedicated_worker);

    #[wasm_bindgen_test]
    async fn official_network_on_the_cpu() {
        official(&read(OFFICIAL), &Device::flex()).await;
    }

    #[wasm_bindgen_test]
    async fn adapted_network_on_the_cpu() {
        for case in [&DORA, &TWO_LORA] {
            adapted(case, &Device::flex()).await;
        }
    }

    /// One test, since a page opens its device once.
    #[wasm_bindgen_test]
    async fn both_networks_on_webgpu() {
        let opened = Device::wgpu_options().init_with_setup_async().await;
        let (device, _) = opened.unwrap();
        official(&read(OFFICIAL), &device).await;
        for case in [&DORA, &TWO_LORA] {
            adapted(case, &device).await;
        }
    }
}
