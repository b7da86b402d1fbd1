//! How alike two label maps are.

use flapsam_model::labels::{check_pair, dice, difference};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Packing, Volume};
use serde::Serialize;

use crate::Error;

/// Two label maps, voxel by voxel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Dice of each foreground class.
    pub dice: Vec<f64>,
    /// Voxels with the same label, and all voxels.
    pub equal: usize,
    /// See above.
    pub voxels: usize,
    /// Of the axial slice with the most different voxels: the middle of these, mm. None if all are equal.
    pub worst: Option<[f64; 3]>,
    /// NIfTI: 1 where they differ.
    #[serde(skip)]
    pub difference: Vec<u8>,
}

/// Compares two NIfTI label maps with `classes` classes, the background included, on the grid that the network works on.
/// Labels above the last class are merged into it, as in training.
///
/// # Errors
/// One cannot be read, or they are not of one grid.
pub fn compare(one: &[u8], other: &[u8], classes: usize, preprocessing: &Preprocessing) -> Result<Comparison, Error> {
    let read = |bytes: &[u8], file| {
        let map = Volume::from_nifti(bytes, None).map_err(Error::content(file))?;
        match preprocessing.grid_for(&map).map_err(Error::content(file))? {
            Some(_) => preprocessing.labels_on_grid(map, classes).map_err(Error::content(file)),
            None => Ok(map),
        }
    };
    let (one, other) = (read(one, "the first label map")?, read(other, "the second label map")?);
    check_pair(&one, "it is compared with", &other).map_err(Error::content("the second label map"))?;
    let labels = |map: &Volume| -> Vec<u8> {
        let last = classes.saturating_sub(1) as f32;
        map.voxels.iter().map(|value| value.clamp(0.0, last) as u8).collect()
    };
    let (got, want) = (labels(&one), labels(&other));
    let different = difference(&got, &want);
    Ok(Comparison {
        dice: (1..classes).map(|class| dice(&got, &want, class as u8)).collect(),
        equal: different.iter().filter(|&&value| value == 0).count(),
        voxels: different.len(),
        worst: worst(&one, &different),
        difference: one.mask_to_nifti(&different, Packing::Gzip),
    })
}

/// The middle of the different voxels of the axial slice that has the most of them; of several slices the lowest.
fn worst(map: &Volume, different: &[u8]) -> Option<[f64; 3]> {
    let axial = map.axial();
    let of_slice = |slice: usize| -> Vec<usize> {
        let all = axial.indices_of(slice);
        all.filter(|&index| different[index] != 0).collect()
    };
    let slices = (0..axial.dims[0]).map(of_slice);
    let most = slices.max_by_key(Vec::len).filter(|voxels| !voxels.is_empty())?;
    let [columns, rows, _] = map.dims;
    let place = |index: usize| [index % columns, index / columns % rows, index / (columns * rows)];
    let mean = |axis: usize| most.iter().map(|&index| place(index)[axis] as f64).sum::<f64>() / most.len() as f64;
    let middle = [0, 1, 2].map(mean);
    let world = |row: &[f64; 4]| row[3] + (0..3).map(|axis| row[axis] * middle[axis]).sum::<f64>();
    Some([0, 1, 2].map(|row| world(&map.affine[row])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFFINE: [[f64; 4]; 3] = [[-2.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, -5.0], [0.0, 0.0, 3.0, 0.0]];

    fn map(dims: [usize; 3], labels: &[u8]) -> Vec<u8> {
        Volume::new(dims, vec![0.0; labels.len()], AFFINE).mask_to_nifti(labels, Packing::Gzip)
    }

    #[test]
    fn dice_agreement_and_difference() {
        let (one, other) = (map([4, 1, 1], &[0, 1, 1, 3]), map([4, 1, 1], &[0, 1, 2, 2]));
        let found = compare(&one, &other, 3, &Preprocessing::default()).unwrap();
        // The label 3 counts as the last class, 2.
        assert_eq!(found.dice, [2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!((found.equal, found.voxels), (3, 4));
        let difference = Volume::from_nifti(&found.difference, None).unwrap();
        assert_eq!(
            (difference.voxels, difference.affine),
            (vec![0.0, 0.0, 1.0, 0.0], AFFINE)
        );
    }

    /// Two voxels differ on the upper slice and one on the lower: between the two.
    #[test]
    fn the_worst_slice_is_where_most_differs() {
        let one = map([3, 1, 2], &[0, 0, 0, 0, 0, 0]);
        let other = map([3, 1, 2], &[0, 1, 0, 1, 0, 1]);
        let found = |one: &[u8], other: &[u8]| compare(one, other, 2, &Preprocessing::default()).unwrap().worst;
        // The middle voxel along the first axis, on the second slice.
        assert_eq!(found(&one, &other), Some([8.0, -5.0, 3.0]));
        assert_eq!(found(&one, &one), None);
    }

    #[test]
    fn the_truth_is_brought_to_the_grid_of_the_prediction() {
        let preprocessing = Preprocessing {
            resample: Some([2, 1, 1]),
            ..Preprocessing::default()
        };
        let truth = map([4, 1, 1], &[0, 1, 1, 1]);
        let on_grid = preprocessing.labels_on_grid(Volume::from_nifti(&truth, None).unwrap(), 2);
        let prediction = on_grid.unwrap().mask_to_nifti(&[0, 1], Packing::Gzip);
        // By the distance of voxels it is the same grid.
        let by_spacing = Preprocessing {
            spacing_mm: Some([4.0, 1.0, 3.0]),
            ..Preprocessing::default()
        };
        for preprocessing in [preprocessing, by_spacing] {
            let found = compare(&prediction, &truth, 2, &preprocessing).unwrap();
            assert_eq!((found.dice, found.equal, found.voxels), (vec![1.0], 2, 2));
        }
    }

    #[test]
    fn maps_of_two_grids_are_refused() {
        let refusal = compare(
            &map([4, 1, 1], &[0; 4]),
            &map([2, 1, 1], &[0; 2]),
            2,
            &Preprocessing::default(),
        );
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.kind(), "file");
        assert!(refusal.to_string().contains("shape"), "{refusal}");
    }
}
