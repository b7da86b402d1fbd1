//! Label maps: whether one belongs to a scan, and how alike two are.

use serde::Serialize;

use crate::Error;
use crate::volume::Volume;

/// How much of a scan is of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found {
    /// Its name.
    pub class: String,
    /// Voxels of it.
    pub voxels: usize,
    /// Their volume.
    pub millilitres: f64,
}

/// What labels hold of each foreground class. `classes` are all names, the background's first.
pub fn found(labels: &[u8], classes: &[String], voxel_mm3: f64) -> Vec<Found> {
    let measure = |(class, name): (usize, &String)| {
        let voxels = labels.iter().filter(|&&label| label as usize == class).count();
        Found {
            class: name.clone(),
            voxels,
            millilitres: voxels as f64 * voxel_mm3 / 1000.0,
        }
    };
    classes.iter().enumerate().skip(1).map(measure).collect()
}

/// Dice of a class: twice the overlap over the sum of the sizes; both empty is 1, one empty 0.
///
/// ```
/// use flapsam_model::labels::dice;
///
/// let (predicted, truth) = ([0, 1, 1, 1], [0, 0, 1, 1]);
/// assert_eq!(dice(&predicted, &truth, 1), 0.8);
/// assert_eq!(dice(&predicted, &truth, 2), 1.0);
/// ```
///
/// # Panics
/// If the maps are not of one length (a programming error: maps from files go through [`check_pair`]).
pub fn dice(got: &[u8], want: &[u8], class: u8) -> f64 {
    assert_eq!(got.len(), want.len(), "label maps of one grid");
    let (mut overlap, mut sizes) = (0u64, 0u64);
    for (&got, &want) in got.iter().zip(want) {
        overlap += u64::from(got == class && want == class);
        sizes += u64::from(got == class) + u64::from(want == class);
    }
    match sizes {
        0 => 1.0,
        _ => 2.0 * overlap as f64 / sizes as f64,
    }
}

/// Where two label maps of one grid differ: 1 there, 0 elsewhere.
///
/// # Panics
/// If the maps are not of one length (a programming error).
pub fn difference(one: &[u8], other: &[u8]) -> Vec<u8> {
    assert_eq!(one.len(), other.len(), "label maps of one grid");
    one.iter().zip(other).map(|(a, b)| u8::from(a != b)).collect()
}

/// Refuses labels that do not belong to a scan, which the message calls `name`: another shape, another place in space,
/// or values that are no whole numbers.
///
/// # Errors
/// They do not belong together.
pub fn check_pair(scan: &Volume, name: &str, labels: &Volume) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::Volume(why));
    if labels.dims != scan.dims {
        return refuse(format!(
            "its shape {:?} is not that of its scan {name}, {:?}; take both from the same export",
            labels.dims, scan.dims
        ));
    }
    // Headers written by two programs differ in the last digits: a tenth of a voxel at the far corner is more than that.
    let shift = furthest_shift(scan, labels);
    if shift.is_nan() || shift > 0.1 {
        return refuse(format!(
            "it lies {shift:.1} voxels away from its scan {name} (other affines); take both from the same export"
        ));
    }
    match labels
        .voxels
        .iter()
        .find(|value| value.fract() != 0.0 || !(0.0..256.0).contains(*value))
    {
        Some(value) => refuse(format!(
            "it holds {value}, and labels are whole numbers from 0 to 255; is it a scan?"
        )),
        None => Ok(()),
    }
}

/// By how many voxels two volumes of one shape are apart at most, over the eight corners.
fn furthest_shift(one: &Volume, other: &Volume) -> f64 {
    let voxel = one.spacing().into_iter().fold(f64::INFINITY, f64::min);
    let corners = (0..8).map(|corner| {
        let index: [f64; 3] = std::array::from_fn(|axis| match corner >> axis & 1 {
            0 => 0.0,
            _ => one.dims[axis].saturating_sub(1) as f64,
        });
        let place = |affine: &[[f64; 4]; 3], row: usize| {
            affine[row][3] + (0..3).map(|axis| affine[row][axis] * index[axis]).sum::<f64>()
        };
        let square = |row: usize| (place(&one.affine, row) - place(&other.affine, row)).powi(2);
        (0..3).map(square).sum::<f64>().sqrt() / voxel
    });
    corners.fold(0.0, |furthest, shift| {
        if shift > furthest || shift.is_nan() {
            shift
        } else {
            furthest
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_of_empty_and_full() {
        assert_eq!(dice(&[0, 0], &[0, 0], 1), 1.0);
        assert_eq!(dice(&[1, 0], &[0, 0], 1), 0.0);
        assert_eq!(dice(&[0, 0], &[1, 0], 1), 0.0);
        assert_eq!(dice(&[1, 1, 2], &[1, 0, 2], 1), 2.0 / 3.0);
    }

    #[test]
    #[should_panic(expected = "label maps of one grid")]
    fn dice_of_different_grids() {
        dice(&[0, 1], &[0, 1, 1], 1);
    }

    #[test]
    fn a_difference_marks_every_other_label() {
        assert_eq!(difference(&[0, 1, 2, 1], &[0, 2, 2, 0]), [0, 1, 0, 1]);
    }
}
