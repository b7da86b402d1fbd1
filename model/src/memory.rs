//! How much memory a network takes, known before any is taken.

use crate::config::{AdapterConfig, SamConfig};

/// Bytes of a value.
const FLOAT: usize = size_of::<f32>();
/// Stages of the decoder's upscaling, each of which doubles rows and columns: adapted, and official.
const STAGES: usize = 4;
const OFFICIAL_STAGES: usize = 2;

/// Bytes of the largest tensor on the way from `batch` slices to their probabilities on `rows` x `columns` pixels.
///
/// A device with a smaller limit on one buffer cannot run it.
pub fn largest_tensor(sam: &SamConfig, adapter: &AdapterConfig, batch: usize, [rows, columns]: [usize; 2]) -> usize {
    let probabilities = batch * (adapter.num_classes + 1) * rows * columns;
    FLOAT * encoder(sam, batch).max(decoder(sam, batch, STAGES)).max(probabilities)
}

/// Bytes of the largest tensor on the way from a slice of `rows` x `columns` pixels and a prompt to the un-adapted
/// network's three masks.
pub fn largest_prompted_tensor(sam: &SamConfig, [rows, columns]: [usize; 2]) -> usize {
    let masks = 3 * (rows * columns).max(sam.image_size.pow(2));
    FLOAT * encoder(sam, 1).max(decoder(sam, 1, OFFICIAL_STAGES)).max(masks)
}

/// Values of the largest tensor in the image encoder.
fn encoder(sam: &SamConfig, batch: usize) -> usize {
    let grid = sam.grid();
    let tokens = grid * grid;
    let windows = grid.div_ceil(sam.window_size).pow(2);
    let window_tokens = sam.window_size.pow(2);
    let all_global = (0..sam.depth).all(|block| sam.global_attn_indexes.contains(&block));
    let attention = |images: usize, tokens: usize| images * sam.num_heads * tokens * tokens;
    let windowed = if all_global {
        0
    } else {
        attention(batch * windows, window_tokens)
    };
    let global = if sam.global_attn_indexes.is_empty() {
        0
    } else {
        attention(batch, tokens)
    };
    let hidden = batch * tokens * 4 * sam.embed_dim;
    let weight = 4 * sam.embed_dim * sam.embed_dim;
    let input = batch * 3 * sam.image_size * sam.image_size;
    [windowed, global, hidden, weight, input]
        .into_iter()
        .max()
        .unwrap_or_default()
}

/// Values of the largest tensor in the mask decoder's upscaling: after stage s there are 4^s times the places, with
/// dim / (4, 8, 16, 32) channels.
fn decoder(sam: &SamConfig, batch: usize, stages: usize) -> usize {
    let tokens = sam.grid().pow(2);
    let upscaled = (1..=stages).map(|stage| batch * (tokens << (2 * stage)) * sam.prompt_dim / (2 << stage));
    upscaled.max().unwrap_or_default()
}

/// Bytes on the host to segment a scan of so many voxels: what is read, its values in the file's order and in axial
/// order, a copy of these for a percentile, and the labels twice.
pub fn host(voxels: usize, file: usize) -> usize {
    let per_voxel = 3 * FLOAT + 2;
    voxels.saturating_mul(per_voxel).saturating_add(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_tensor_of_published_networks() {
        let adapter = AdapterConfig::lora(2, 32);
        let largest = |name: &str, side: usize, batch: usize, pixels: usize| {
            let sam = SamConfig::named(name).unwrap().with_image_size(side);
            largest_tensor(&sam, &adapter, batch, [pixels, pixels])
        };
        // ViT-B at 1024 pixels: 12 heads attend from 64 x 64 tokens to as many.
        assert_eq!(largest("vit_b", 1024, 1, 512), 4 * 12 * 4096 * 4096);
        // At 224 the hidden layer of an encoder block is larger than its attention: 4 x 768 channels a token.
        assert_eq!(largest("vit_b", 224, 8, 224), 4 * 8 * 196 * 4 * 768);
        // Large slices outweigh a small network.
        assert_eq!(largest("nano", 128, 8, 512), 4 * 8 * 3 * 512 * 512);
    }

    #[test]
    fn the_largest_tensor_of_a_prompted_network() {
        let largest = |name: &str, pixels| largest_prompted_tensor(&SamConfig::named(name).unwrap(), pixels);
        assert_eq!(largest("vit_b", [512, 512]), 4 * 12 * 4096 * 4096);
        assert_eq!(largest("nano", [512, 300]), 4 * 3 * 512 * 300);
    }

    #[test]
    fn memory_of_an_absurd_scan_saturates() {
        assert_eq!(host(usize::MAX, 1), usize::MAX);
    }
}
