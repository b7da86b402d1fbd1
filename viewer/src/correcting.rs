//! Masks that a user draws or keeps of SAM's answers: labels on a scan's own grid, in a file with the scan's own header.

use flapsam_model::labels::check_pair;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::prompts::Slice;
use flapsam_model::volume::{Packing, Plane, Volume};

use crate::Error;
use crate::device::Limits;
use crate::promised::Promised;

/// What messages call a user's mask.
const MASK: &str = "the mask";

/// A mask as it is drawn, as a file that belongs to its scan.
///
/// # Errors
/// A file cannot be read, or the mask is on another grid or holds what is no label.
pub fn corrected(scan: Promised, drawn: &[u8], classes: usize, limits: Limits) -> Result<Vec<u8>, Error> {
    let scan = scan.volume(limits, &Preprocessing::default())?;
    let labels = labels_of(&scan, drawn, classes)?;
    Ok(scan.mask_to_nifti(&labels, Packing::Gzip))
}

/// A mask with a slice's answer in it: `inside` is 1 for each pixel that becomes `label`; the others stay. Without a mask
/// all of it is background. The slice is one of [`Slice::numbered`].
///
/// # Errors
/// As of [`corrected`], or the answer is none of that slice.
pub fn kept(
    scan: Promised,
    drawn: Option<&[u8]>,
    (plane, number, inside): (Plane, usize, &[u8]),
    (label, classes): (u8, usize),
    limits: Limits,
) -> Result<Vec<u8>, Error> {
    let scan = scan.volume(limits, &Preprocessing::default())?;
    let slice = Slice::numbered(&scan, plane, number).map_err(Error::content(MASK))?;
    if inside.len() != slice.values.len() || usize::from(label) >= classes {
        return Err(Error::Request(format!(
            "{} pixels of label {label} are no answer about a slice of {:?} and {classes} classes",
            inside.len(),
            slice.pixels
        )));
    }
    let mut labels = match drawn {
        Some(drawn) => labels_of(&scan, drawn, classes)?,
        None => vec![0; scan.voxels.len()],
    };
    for (voxel, _) in slice.voxels(&scan).zip(inside).filter(|(_, inside)| **inside != 0) {
        labels[voxel] = label;
    }
    Ok(scan.mask_to_nifti(&labels, Packing::Gzip))
}

fn labels_of(scan: &Volume, drawn: &[u8], classes: usize) -> Result<Vec<u8>, Error> {
    let drawn = Volume::from_nifti(drawn, None).map_err(Error::content(MASK))?;
    check_pair(scan, "on the page", &drawn).map_err(Error::content(MASK))?;
    // Labels above the last class are merged into it, as in training.
    let last = classes.saturating_sub(1) as f32;
    Ok(drawn.voxels.iter().map(|label| label.min(last) as u8).collect())
}

#[cfg(test)]
mod tests {
    use flapsam_model::volume::restated;

    use super::*;

    /// Voxels to the left, to the back and up: not as NiiVue draws them.
    const AFFINE: [[f64; 4]; 3] = [[-1.0, 0.0, 0.0, 9.0], [0.0, -2.0, 0.0, 4.0], [0.0, 0.0, 3.0, -1.0]];

    fn scan() -> (Volume, Vec<u8>) {
        let scan = Volume::new([2, 3, 4], (0..24).map(|value| value as f32).collect(), AFFINE);
        let file = scan.to_nifti_f32();
        (scan, file)
    }

    fn promised(bytes: &[u8]) -> Promised<'_> {
        Promised { bytes, sha256: None }
    }

    fn labels(file: &[u8]) -> Vec<f32> {
        Volume::from_nifti(file, None).unwrap().voxels
    }

    #[test]
    fn a_drawing_gets_the_scans_header() {
        let (scan, file) = scan();
        let mut drawn = vec![0; 24];
        [drawn[5], drawn[6]] = [2, 9];
        // As it comes back from NiiVue: plain, of the header that was drawn.
        let shown = Volume::from_nifti(&restated(&file).unwrap(), None).unwrap();
        let found = corrected(
            promised(&file),
            &shown.mask_to_nifti(&drawn, Packing::Plain),
            3,
            Limits::CPU,
        )
        .unwrap();
        drawn[6] = 2;
        assert_eq!(found, scan.mask_to_nifti(&drawn, Packing::Gzip));
    }

    #[test]
    fn answers_are_kept_slice_by_slice() {
        let (_, file) = scan();
        let first = kept(
            promised(&file),
            None,
            (Plane::Axial, 2, &[0, 1, 0, 0, 0, 0]),
            (1, 3),
            Limits::CPU,
        )
        .unwrap();
        let second = kept(
            promised(&file),
            Some(&first),
            (Plane::Axial, 3, &[1, 0, 0, 0, 0, 1]),
            (2, 3),
            Limits::CPU,
        )
        .unwrap();
        let found = labels(&second);
        // Front right first: as the file's voxels lie, since its axes go to the left and to the back. The second slice from
        // the feet begins at voxel 6.
        let marked: Vec<(usize, f32)> = found
            .into_iter()
            .enumerate()
            .filter(|(_, label)| *label > 0.0)
            .collect();
        assert_eq!(marked, [(7, 1.0), (12, 2.0), (17, 2.0)]);
        // Of the front half, the head's right: the file's row that goes to the back comes first, and its last slice.
        let inside = [1, 0, 0, 0, 0, 0, 0, 0];
        let coronal = kept(
            promised(&file),
            Some(&second),
            (Plane::Coronal, 3, &inside),
            (1, 3),
            Limits::CPU,
        )
        .unwrap();
        let changed = labels(&coronal)
            .iter()
            .zip(labels(&second))
            .position(|(one, other)| *one != other);
        assert_eq!(changed, Some(18));
    }

    #[test]
    fn what_is_no_mask_of_the_scan_is_refused() {
        let (scan, file) = scan();
        let mut elsewhere = AFFINE;
        elsewhere[0][3] = 0.0;
        let elsewhere = Volume::new(scan.dims, vec![0.0; 24], elsewhere).mask_to_nifti(&[0; 24], Packing::Plain);
        let mut half = scan.clone();
        half.voxels[3] = 0.5;
        let other = Volume::new([2, 3, 3], vec![0.0; 18], AFFINE).mask_to_nifti(&[0; 18], Packing::Plain);
        for (drawn, why) in [
            (other, "its shape [2, 3, 3]"),
            (elsewhere, "voxels away"),
            (half.to_nifti_f32(), "0.5"),
            (b"no mask".to_vec(), "mask"),
        ] {
            let said = corrected(promised(&file), &drawn, 3, Limits::CPU)
                .unwrap_err()
                .to_string();
            assert!(said.contains(why), "{said}");
        }
        for (number, inside, label) in [(0, 6, 1), (5, 6, 1), (1, 5, 1), (1, 6, 3)] {
            let answer = vec![1; inside];
            kept(
                promised(&file),
                None,
                (Plane::Axial, number, &answer),
                (label, 3),
                Limits::CPU,
            )
            .unwrap_err();
        }
    }
}
