use super::*;
use crate::checkpoint::{read_safetensors, unfolded};
use crate::parameters::initialise;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/parity");

fn read(case: &str, file: &str) -> StateDict {
    let bytes = std::fs::read(format!("{FIXTURES}/{case}/{file}.safetensors")).unwrap();
    read_safetensors(&bytes).unwrap().0
}

fn config(case: &str) -> SamConfig {
    let text = std::fs::read_to_string(format!("{FIXTURES}/{case}/meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(meta["config"].clone()).unwrap()
}

fn nano() -> PromptedSam {
    let state = initialise(&Sam::layout(&SamConfig::named("nano").unwrap(), None).unwrap(), 3);
    PromptedSam::new(state, &Device::flex()).unwrap()
}

fn click(x: f32, y: f32, positive: bool) -> Click {
    Click { x, y, positive }
}

fn close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-4, "{found} instead of {wanted}");
    }
}

/// Bilinear resizing of `[rows, columns]` values, as its definition says.
fn bilinear(values: &[f32], from: [usize; 2], to: [usize; 2], alignment: Alignment) -> Vec<f32> {
    let place = |index: usize, axis: usize| {
        let at = match alignment {
            Alignment::Edges => ((index as f32 + 0.5) * from[axis] as f32 / to[axis] as f32 - 0.5).max(0.0),
            Alignment::Corners => index as f32 * (from[axis] - 1) as f32 / (to[axis] - 1) as f32,
        };
        let low = (at as usize).min(from[axis] - 1);
        (low, (low + 1).min(from[axis] - 1), at - low as f32)
    };
    let value = |row: usize, column: usize| {
        let ((top, bottom, down), (left, right, across)) = (place(row, 0), place(column, 1));
        let at = |row: usize, column: usize| values[row * from[1] + column];
        let mix = |row| at(row, left) * (1.0 - across) + at(row, right) * across;
        mix(top) * (1.0 - down) + mix(bottom) * down
    };
    (0..to[0] * to[1])
        .map(|index| value(index / to[1], index % to[1]))
        .collect()
}

fn seen(values: &[f32], pixels: [usize; 2], window: [f32; 2]) -> Seen<'_> {
    Seen { values, pixels, window }
}

#[test]
fn clicks_and_a_box_give_the_references_masks_and_scores() {
    let case = "dora";
    let (weights, wanted) = (read(case, "sam"), read(case, "sam_forward"));
    let network = PromptedSam::build(("nano", config(case)), PLAIN_CHANNELS, &weights, &Device::flex()).unwrap();
    let side = network.config.image_size;
    let places = &wanted["prompt.points"].values;
    let prompt = Prompt {
        clicks: vec![click(places[0], places[1], true), click(places[2], places[3], false)],
        region: wanted["prompt.box"].values[..].try_into().ok(),
    };
    let image = PreparedSlice {
        values: wanted["image"].values[..3 * side * side].to_vec(),
    };
    let answer = network.ask(network.embed(&image), &prompt, [side, side]);
    let answer = pollster::block_on(answer).unwrap();
    close(&answer.scores, &wanted["prompt.iou"].values);
    let cells = wanted["prompt.masks"].shape[2];
    let masks = wanted["prompt.masks"].values.chunks_exact(cells * cells);
    let masks: Vec<f32> = masks
        .flat_map(|mask| bilinear(mask, [cells; 2], [side; 2], Alignment::Edges))
        .collect();
    close(&answer.logits, &masks);
}

#[test]
fn places_grow_with_the_slice_and_clicks_alone_are_padded() {
    let same = |prompt: &Prompt, wanted: &[(f32, f32, PointKind)]| {
        // 50 x 100 pixels become 64 x 128, and the corners stay corners: 63 / 49 down and 127 / 99 across.
        let points = prompt.points([50, 100], 128);
        assert_eq!(points.len(), wanted.len());
        for (point, &(x, y, kind)) in points.iter().zip(wanted) {
            close(&[point.x, point.y], &[x, y]);
            assert_eq!(point.kind, kind);
        }
    };
    let clicks = vec![click(10.0, 20.0, true), click(0.0, 49.0, false)];
    let mut prompt = Prompt { clicks, region: None };
    let place = |x: f32, y: f32, kind| (x * 127.0 / 99.0, y * 63.0 / 49.0, kind);
    let asked = [
        place(10.0, 20.0, PointKind::Positive),
        place(0.0, 49.0, PointKind::Negative),
    ];
    same(&prompt, &[asked[0], asked[1], (0.0, 0.0, PointKind::Padding)]);
    prompt.region = Some([60.0, 40.0, 50.0, 5.0]);
    let corners = [
        place(50.0, 5.0, PointKind::BoxStart),
        place(60.0, 40.0, PointKind::BoxEnd),
    ];
    same(&prompt, &[asked[0], asked[1], corners[0], corners[1]]);
    // Clicks beside the object come last, in whatever order they were made.
    prompt.clicks.reverse();
    same(&prompt, &[asked[0], asked[1], corners[0], corners[1]]);
    prompt.clicks.clear();
    same(&prompt, &corners);
}

#[test]
fn the_best_mask_is_the_first_of_the_highest_score() {
    let answer = |scores: [f32; 3]| Answer {
        logits: vec![-1.0, 0.0, 0.5],
        scores: scores.to_vec(),
    };
    assert_eq!(answer([0.1, 0.7, 0.7]).best(), 1);
    assert_eq!(answer([-2.0, -3.0, -1.0]).best(), 2);
    assert_eq!(answer([0.0; 3]).masks(), [0, 0, 1]);
}

#[test]
fn a_mobile_sams_batch_norms_are_folded() {
    let config = SamConfig::named("mobile_sam").unwrap();
    let layout = Sam::layout(&config, None).unwrap();
    let mut state = unfolded(initialise(&layout, 3), &layout);
    let network = PromptedSam::new(state.clone(), &Device::flex()).unwrap();
    assert_eq!(network.name, "mobile_sam");
    // What nothing but the folding asks for.
    state.remove("image_encoder.patch_embed.seq.0.bn.running_mean");
    let said = PromptedSam::new(state, &Device::flex()).unwrap_err().to_string();
    assert!(said.contains("running_mean"), "{said}");
}

#[test]
fn a_padding_point_has_no_place() {
    let state = initialise(&Sam::layout(&SamConfig::named("nano").unwrap(), None).unwrap(), 3);
    let prompt = Prompt {
        clicks: vec![click(3.0, 4.0, true)],
        region: None,
    };
    let sparse = nano().sam.prompt_encoder.sparse(&prompt.points([128, 128], 128));
    let values = crate::parameters::to_vec(sparse.unwrap());
    let padding = &state["prompt_encoder.not_a_point_embed.weight"].values;
    assert_eq!(&values[padding.len()..], &padding[..]);
}

#[test]
fn a_slice_fits_by_its_longer_side() {
    assert_eq!(fitted([512, 512], 1024), [1024, 1024]);
    assert_eq!(fitted([300, 200], 128), [128, 85]);
    assert_eq!(fitted([1, 1000], 128), [1, 128]);
    let network = nano();
    let slice: Vec<f32> = (0..64 * 32).map(|index| (index % 32) as f32).collect();
    let prepared = network.prepare(seen(&slice, [64, 32], [0.0, 10.0]));
    let row = &prepared.values[128 * 20..128 * 21];
    assert!(row[0].abs() < 1e-6);
    // Values past the window's end are white, and what is past the slice 0.
    assert!((row[63] - 1.0).abs() < 1e-6);
    assert!(row[64..].iter().all(|&value| value == 0.0));
    assert_eq!(
        &prepared.values[..128 * 128],
        &prepared.values[128 * 128..2 * 128 * 128]
    );
}

#[test]
fn published_networks_see_normalised_channels() {
    let state = initialise(&Sam::layout(&SamConfig::named("nano").unwrap(), None).unwrap(), 3);
    let config = SamConfig::named("nano").unwrap();
    let network = PromptedSam::build(("vit_b", config), PUBLISHED_CHANNELS, &state, &Device::flex()).unwrap();
    let prepared = network.prepare(seen(&[1.0; 4], [2, 2], [0.0, 2.0]));
    // (127.5 - 123.675) / 58.395 and so on.
    close(&[prepared.values[0]], &[0.065_502_2]);
    close(&[prepared.values[128 * 128]], &[0.196_428_6]);
    close(&[prepared.values[2 * 128 * 128]], &[0.417_777_8]);
}

#[test]
fn masks_of_an_oblong_slice_are_those_of_its_part_of_the_image() {
    let network = nano();
    let pixels = [40, 20];
    let slice: Vec<f32> = (0..800).map(|index| (index * 37 % 101) as f32).collect();
    let prompt = Prompt {
        clicks: vec![click(7.0, 30.0, true)],
        region: None,
    };
    let prepared = network.prepare(seen(&slice, pixels, [0.0, 100.0]));
    let embedding = network.embed(&prepared);
    let mut encoding = network.begin(&prepared);
    while encoding.embedding().is_none() {
        network.proceed(&mut encoding);
    }
    let by_parts = encoding.embedding().unwrap();
    assert_eq!(by_parts.into_data(), embedding.clone().into_data());
    let answer = pollster::block_on(network.ask(embedding.clone(), &prompt, pixels)).unwrap();
    let (masks, _) = network.sam.predict_multimask(embedding, &prompt.points(pixels, 128));
    let masks = crate::parameters::to_vec(masks);
    let wanted = masks.chunks_exact(32 * 32).flat_map(|mask| {
        let whole = bilinear(mask, [32, 32], [128, 128], Alignment::Edges);
        let part: Vec<f32> = whole.chunks_exact(128).flat_map(|row| row[..64].to_vec()).collect();
        bilinear(&part, [128, 64], pixels, Alignment::Corners)
    });
    close(&answer.logits, &wanted.collect::<Vec<f32>>());
}

#[test]
fn the_checksum_is_of_all_that_is_seen() {
    let first = seen(&[0.5; 16], [4, 4], [0.0, 1.0]);
    assert_eq!(first.sha256(), seen(&[0.5; 16], [4, 4], [0.0, 1.0]).sha256());
    assert_eq!(first.sha256().len(), 64);
    for other in [
        seen(&[0.25; 16], [4, 4], [0.0, 1.0]),
        seen(&[0.5; 16], [2, 8], [0.0, 1.0]),
        seen(&[0.5; 16], [4, 4], [0.0, 2.0]),
    ] {
        assert_ne!(other.sha256(), first.sha256());
    }
}

#[test]
fn places_off_the_slice_and_empty_prompts_are_refused() {
    let refused = |prompt: Prompt| prompt.check([10, 20]).unwrap_err().to_string();
    assert!(refused(Prompt::default()).contains("click on the object"));
    for (x, y) in [(20.0, 3.0), (3.0, 10.0), (-1.0, 0.0), (f32::NAN, 0.0)] {
        let clicks = vec![click(x, y, true)];
        assert!(refused(Prompt { clicks, region: None }).contains("20 x 10 pixels"));
    }
    let region = Some([0.0, 0.0, 25.0, 5.0]);
    assert!(refused(Prompt { clicks: vec![], region }).contains("(25, 5)"));
    let clicks = vec![click(19.4, 9.4, false)];
    assert!(Prompt { clicks, region: None }.check([10, 20]).is_ok());
}

#[test]
fn an_unknown_checkpoint_is_refused() {
    let smaller = SamConfig::named("nano").unwrap().with_image_size(64);
    let state = initialise(&Sam::layout(&smaller, None).unwrap(), 3);
    let refused = PromptedSam::new(state, &Device::flex()).unwrap_err().to_string();
    assert!(refused.contains("vit_b, vit_l, vit_h, mobile_sam, nano"), "{refused}");
}
