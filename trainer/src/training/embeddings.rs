use std::collections::BTreeMap;
use std::mem::size_of;

use burn::tensor::Tensor;
use sha2::{Digest, Sha256};

/// Bytes that are kept at most; what comes later is computed each time.
const MOST: usize = 256 << 20;

/// Image embeddings of the slices that were seen before, for a network whose image encoder stays as it is.
///
/// Slices are known by their content, so whoever augments them, or cuts them otherwise, gets what belongs to what they
/// pass, only not sooner.
#[derive(Debug, Clone, Default)]
pub struct Embeddings {
    /// By the SHA-256 of a slice: `[1, channel, row, column]`, outside the autodiff graph.
    kept: BTreeMap<[u8; 32], Tensor<4>>,
    bytes: usize,
}

impl Embeddings {
    /// The embeddings `[slice, channel, row, column]` of slices of `area` values; `encode` makes those that are not kept.
    pub fn of(&mut self, slices: &[f32], area: usize, encode: impl FnOnce(Vec<f32>) -> Tensor<4>) -> Tensor<4> {
        let slices: Vec<&[f32]> = slices.chunks_exact(area).collect();
        let keys: Vec<[u8; 32]> = slices.iter().map(|slice| sha256(slice)).collect();
        let mut found: BTreeMap<[u8; 32], Tensor<4>> = BTreeMap::new();
        let mut missing: BTreeMap<[u8; 32], &[f32]> = BTreeMap::new();
        for (key, slice) in keys.iter().zip(slices) {
            match self.kept.get(key) {
                Some(embedding) => drop(found.insert(*key, embedding.clone())),
                None => drop(missing.insert(*key, slice)),
            }
        }
        if !missing.is_empty() {
            let encoded = encode(missing.values().copied().flatten().copied().collect());
            let bytes = size_of::<f32>() * encoded.dims()[1..].iter().product::<usize>();
            for (place, key) in missing.into_keys().enumerate() {
                let embedding = encoded.clone().narrow(0, place, 1);
                if self.bytes + bytes <= MOST {
                    self.bytes += bytes;
                    self.kept.insert(key, embedding.clone());
                }
                found.insert(key, embedding);
            }
        }
        Tensor::cat(keys.iter().map(|key| found[key].clone()).collect(), 0)
    }
}

fn sha256(slice: &[f32]) -> [u8; 32] {
    let bytes: Vec<u8> = slice.iter().flat_map(|value| value.to_le_bytes()).collect();
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use flapsam_model::parameters::to_vec;

    use super::*;

    #[test]
    fn a_slice_is_encoded_once_and_found_in_any_company() {
        let mut embeddings = Embeddings::default();
        let mut asked = Vec::new();
        let mut of = |slices: &[f32]| {
            let encode = |missing: Vec<f32>| {
                asked.push(missing.len() / 2);
                let doubled: Vec<f32> = missing.iter().map(|value| 2.0 * value).collect();
                let shape = [doubled.len() / 2, 1, 1, 2];
                Tensor::from_data(TensorData::new(doubled, shape), &Device::flex())
            };
            to_vec(embeddings.of(slices, 2, encode))
        };
        // The edge slice stands twice in a stack.
        assert_eq!(of(&[1.0, 2.0, 1.0, 2.0, 0.5, -1.0]), [2.0, 4.0, 2.0, 4.0, 1.0, -2.0]);
        assert_eq!(of(&[0.5, -1.0, 3.0, 0.0, 1.0, 2.0]), [1.0, -2.0, 6.0, 0.0, 2.0, 4.0]);
        assert_eq!(of(&[3.0, 0.0]), [6.0, 0.0]);
        assert_eq!(asked, [2, 1]);
    }
}
