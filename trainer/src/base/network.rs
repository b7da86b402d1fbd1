//! Which network a checkpoint holds.

use flapsam_model::checkpoint::official_shapes;
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::StateDict;
use flapsam_model::sam::Sam;

use crate::data::manifest::croissant::{Document, Resource};
use crate::error::{Error, Result};

/// The name of the network whose every parameter a checkpoint holds, in its shape, for whatever image size; `None` if
/// that is no network known here. What the checkpoint holds besides does not count.
pub fn network(state: &StateDict) -> Option<&'static str> {
    let holds = |key: &str, shape: &[usize]| state.get(key).is_some_and(|array| array.shape == shape);
    // Of a network with a table of positions it says which image size it is for.
    let table = state
        .get("image_encoder.pos_embed")
        .and_then(|table| table.shape.get(1));
    let is = |name: &&str| {
        let config = SamConfig::named(name)?;
        let grid = table.copied().unwrap_or(config.grid());
        let image_size = grid.checked_mul(config.encoder.stride())?;
        let layout = Sam::layout(&config.with_image_size(image_size), None).ok()?;
        let shapes = official_shapes(&layout);
        Some(shapes.iter().all(|(key, shape)| holds(key, shape)))
    };
    SamConfig::NAMES.into_iter().find(|name| is(name) == Some(true))
}

/// The manifest of the official checkpoints.
const OFFICIAL: &str = include_str!("../../../data-manifests/sam-checkpoints.json");

/// The name of the official checkpoint whose file has this sha256; `None` if it is none of theirs.
///
/// # Errors
/// The program was built with a manifest that cannot be read.
pub fn official_file(sha256: &str) -> Result<Option<String>> {
    let document: Document = serde_json::from_str(OFFICIAL).map_err(|why| {
        Error::Message(format!(
            "data-manifests/sam-checkpoints.json: {why}; build from a whole copy"
        ))
    })?;
    let name = |resource| match resource {
        Resource::File(file) if file.sha256 == sha256 => Some(file.name),
        _ => None,
    };
    Ok(document.distribution.into_iter().find_map(name))
}

#[cfg(test)]
mod tests {
    use flapsam_model::parameters::{Array, initialise};

    use super::*;

    #[test]
    fn networks_are_known_by_every_parameter_at_any_image_size() {
        let config = SamConfig::named("nano").unwrap().with_image_size(64);
        let mut state = initialise(&Sam::layout(&config, None).unwrap(), 1);
        state.insert("something.else".into(), Array::new([1], vec![0.0]));
        assert_eq!(network(&state), Some("nano"));
        state.remove("mask_decoder.iou_token.weight");
        assert_eq!(network(&state), None);
        // A side that no network has.
        state.insert(
            "image_encoder.pos_embed".into(),
            Array::new([0, usize::MAX, 1, 1], Vec::new()),
        );
        assert_eq!(network(&state), None);
        let mobile_sam = SamConfig::named("mobile_sam").unwrap();
        let shapes = official_shapes(&Sam::layout(&mobile_sam, None).unwrap()).into_iter();
        let mut state: StateDict = shapes
            .map(|(name, shape)| {
                let count = shape.iter().product();
                (name, Array::new(shape, vec![0.0; count]))
            })
            .collect();
        assert_eq!(state.len(), 408);
        assert_eq!(network(&state), Some("mobile_sam"));
        state.remove("image_encoder.layers.2.blocks.5.attn.attention_biases");
        assert_eq!(network(&state), None);
    }

    #[test]
    fn official_files_are_known_by_their_checksums() {
        let vit_b = "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912";
        assert_eq!(official_file(vit_b).unwrap().as_deref(), Some("sam_vit_b_01ec64.pth"));
        assert_eq!(official_file("").unwrap(), None);
    }
}
