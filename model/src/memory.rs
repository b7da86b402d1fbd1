//! How much memory a network takes, known before any is taken.

use crate::config::{AdapterConfig, EncoderConfig, STAGES, SamConfig, TinyVitConfig, VitConfig};

/// Bytes of a value.
const FLOAT: usize = size_of::<f32>();
/// Stages of the decoder's upscaling, each of which doubles rows and columns: adapted, and official.
const UPSCALINGS: usize = 4;
const OFFICIAL_UPSCALINGS: usize = 2;
/// How many tensors of the largest size the CPU holds at a time, with what they are made from.
const ON_CPU: usize = 3;

/// Bytes of the largest tensor on the way from `batch` slices to their probabilities on `rows` x `columns` pixels.
///
/// A device with a smaller limit on one buffer cannot run it.
pub fn largest_tensor(sam: &SamConfig, adapter: &AdapterConfig, batch: usize, [rows, columns]: [usize; 2]) -> usize {
    let probabilities = product([batch, adapter.num_classes.saturating_add(1), rows, columns]);
    let values = encoder(sam, batch)
        .max(decoder(sam, batch, UPSCALINGS))
        .max(probabilities);
    product([FLOAT, values])
}

/// Bytes of the largest tensor on the way from a slice of `rows` x `columns` pixels and a prompt to the un-adapted
/// network's three masks.
pub fn largest_prompted_tensor(sam: &SamConfig, [rows, columns]: [usize; 2]) -> usize {
    let masks = product([3, product([rows, columns]).max(product([sam.image_size; 2]))]);
    product([
        FLOAT,
        encoder(sam, 1).max(decoder(sam, 1, OFFICIAL_UPSCALINGS)).max(masks),
    ])
}

/// Bytes that the CPU holds at a time on that way, beside the weights.
pub fn prompted_on_cpu(sam: &SamConfig, pixels: [usize; 2]) -> usize {
    largest_prompted_tensor(sam, pixels).saturating_mul(ON_CPU)
}

/// A product that stays at the largest number instead of passing it.
fn product<const N: usize>(factors: [usize; N]) -> usize {
    factors.into_iter().fold(1, usize::saturating_mul)
}

/// Values of the largest tensor in the image encoder.
fn encoder(sam: &SamConfig, batch: usize) -> usize {
    let input = product([batch, 3, sam.image_size, sam.image_size]);
    let inside = match &sam.encoder {
        EncoderConfig::Vit(config) => vit(config, sam.grid(), batch),
        EncoderConfig::TinyVit(config) => tiny_vit(config, sam.image_size, batch),
    };
    inside.max(input)
}

/// Values of all heads' scores in windows of so many tokens a side; a square of `side` tokens is padded to whole windows.
fn windowed(batch: usize, side: usize, window: usize, heads: usize) -> usize {
    let windows = side.div_ceil(window);
    product([batch, windows, windows, heads, window, window, window, window])
}

fn vit(config: &VitConfig, grid: usize, batch: usize) -> usize {
    let all_global = (0..config.depth).all(|block| config.global_attn_indexes.contains(&block));
    let in_windows = match all_global {
        true => 0,
        false => windowed(batch, grid, config.window_size, config.num_heads),
    };
    let global = match config.global_attn_indexes.is_empty() {
        true => 0,
        false => windowed(batch, grid, grid, config.num_heads),
    };
    let hidden = product([batch, grid, grid, 4, config.embed_dim]);
    let weight = product([4, config.embed_dim, config.embed_dim]);
    in_windows.max(global).max(hidden).max(weight)
}

fn tiny_vit(config: &TinyVitConfig, image_size: usize, batch: usize) -> usize {
    let first = product([batch, image_size / 2, image_size / 2, config.embed_dims[0] / 2]);
    let stages = (0..STAGES).map(|stage| {
        let (side, dim) = (image_size / config.stride(stage), config.embed_dims[stage]);
        let hidden = product([batch, side, side, 4, dim]);
        let next = config
            .embed_dims
            .get(stage + 1)
            .map_or(0, |&next| product([batch, side, side, next]));
        let scores = match stage {
            0 => 0,
            _ => windowed(batch, side, config.window_sizes[stage], config.num_heads[stage]),
        };
        hidden.max(next).max(scores).max(product([4, dim, dim]))
    });
    stages.fold(first, usize::max)
}

/// Values of the largest tensor in the mask decoder's upscaling: after stage s there are 4^s times the places, with
/// dim / (4, 8, 16, 32) channels.
fn decoder(sam: &SamConfig, batch: usize, stages: usize) -> usize {
    let grid = sam.grid();
    let upscaled =
        (1..=stages).map(|stage| product([batch, grid, grid, 1 << (2 * stage), sam.prompt_dim]) / (2 << stage));
    upscaled.max().unwrap_or_default()
}

/// What a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A scan's intensities.
    Scan,
    /// Labels of so many classes, the background included.
    Labels(usize),
}

/// Bytes on the host to segment a scan of so many voxels: what is read, its raw voxels (eight bytes at most) or, later, a
/// copy in axial order with another for a percentile, its values, and the labels twice.
pub fn host(dims: [usize; 3], file: usize) -> usize {
    let per_voxel = 3 * FLOAT + 2;
    product(dims).saturating_mul(per_voxel).saturating_add(file)
}

/// Bytes on the host to bring a volume to a grid: its values in axial order, and in double precision before and after each
/// axis. Which side becomes which is left open: the worst is taken.
pub fn resampling(mut dims: [usize; 3], mut grid: [usize; 3], content: Content) -> usize {
    dims.sort_unstable();
    grid.sort_unstable_by(|one, other| other.cmp(one));
    let between: [usize; 3] = std::array::from_fn(|axis| dims[axis].max(grid[axis]));
    product(dims)
        .saturating_mul(FLOAT)
        .saturating_add(product(between).saturating_mul(2 * size_of::<f64>()))
        .saturating_add(by_class(dims, grid, content))
}

/// Of several structures each is resampled on its own: where the volume is of it, and on the grid its share, the largest
/// share so far and whose that is, beside the resampled scan.
fn by_class(dims: [usize; 3], grid: [usize; 3], content: Content) -> usize {
    let values = |sides: [usize; 3]| sides.into_iter().fold(FLOAT, usize::saturating_mul);
    match content {
        Content::Scan | Content::Labels(..=2) => 0,
        Content::Labels(_) => values(dims).saturating_add(values(grid).saturating_mul(4)),
    }
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
        // MobileSAM's first blocks: 256 channels on a quarter of the sides.
        assert_eq!(largest("mobile_sam", [512, 512]), 4 * 256 * 256 * 256);
    }

    #[test]
    fn memory_of_an_absurd_scan_saturates() {
        assert_eq!(host([usize::MAX, 2, 1], 1), usize::MAX);
        for content in [Content::Scan, Content::Labels(3)] {
            assert_eq!(resampling([1, 1, 1], [usize::MAX, 2, 1], content), usize::MAX);
        }
        assert_eq!(resampling([usize::MAX, 2, 1], [1, 1, 1], Content::Scan), usize::MAX);
        // 24 values, and from 4 x 3 x 2 to 1 x 1 x 5 perhaps 4 x 3 x 5 between.
        assert_eq!(resampling([4, 3, 2], [1, 1, 5], Content::Scan), 4 * 24 + 2 * 8 * 60);
    }
}
