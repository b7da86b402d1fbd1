//! What of a scan is asked about.

use serde::Serialize;

use super::Seen;
use crate::Error;
use crate::preprocessing::percentile;
use crate::volume::{Plane, Volume};

/// Of each axis so much on either side is left out when a window is chosen: there is air.
const MARGIN: usize = 4;
/// Percentiles of the values that become black and white.
const ENDS: [f64; 2] = [2.0, 98.0];

/// A slice of a [`Plane`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slice {
    /// Along which it lies.
    pub plane: Plane,
    /// Row-major.
    #[serde(skip)]
    pub values: Vec<f32>,
    /// Rows and columns.
    pub pixels: [usize; 2],
    /// Distance between the centres of rows, and of columns, mm.
    pub spacing: [f64; 2],
    /// Its number, from 1, from the first of [`Plane::ends`].
    pub number: usize,
    /// How many slices there are.
    pub of: usize,
}

impl Slice {
    /// The scan's slice of a number, from 1, from the first of [`Plane::ends`].
    ///
    /// # Errors
    /// There is none.
    pub fn numbered(scan: &Volume, plane: Plane, number: usize) -> Result<Self, Error> {
        let of = scan.slicing(plane).dims[0];
        let [first, last] = plane.ends();
        match (1..=of).contains(&number) {
            true => Ok(Self::counted_back(scan, plane, of - number)),
            false => Err(Error::Volume(format!(
                "it has no slice {number}: its {plane} slices are numbered from 1 at {first} to {of} at {last}"
            ))),
        }
    }

    /// The scan's slice at a place, mm; outside of the scan the nearest one in it.
    pub fn at(scan: &Volume, plane: Plane, mm: [f64; 3]) -> Self {
        Self::counted_back(scan, plane, scan.slicing(plane).slice_of(scan.voxel_at(mm)))
    }

    /// By its place in the plane's [`Slicing`](crate::volume::Slicing), whose first slice has the highest number.
    fn counted_back(scan: &Volume, plane: Plane, slice: usize) -> Self {
        let (slicing, spacing) = (scan.slicing(plane), scan.spacing());
        let [_, down, across] = slicing.axes();
        let [of, rows, columns] = slicing.dims;
        Self {
            plane,
            values: slicing.indices_of(slice).map(|index| scan.voxels[index]).collect(),
            pixels: [rows, columns],
            spacing: [spacing[down], spacing[across]],
            number: of - slice,
            of,
        }
    }

    /// The slice through a window (black, white).
    pub fn seen(&self, window: [f32; 2]) -> Seen<'_> {
        Seen {
            values: &self.values,
            pixels: self.pixels,
            window,
        }
    }

    /// The voxel of each pixel, by its index in the scan that the slice is of, or in labels on the same grid.
    pub fn voxels(&self, scan: &Volume) -> impl Iterator<Item = usize> + use<> {
        scan.slicing(self.plane).indices_of(self.of - self.number)
    }
}

/// What of a scan is shown from black to white unless the user says otherwise: from the 2nd to the 98th percentile of its
/// middle, half as long as the scan along each axis; of all values where those are alike.
pub fn window(scan: &Volume) -> [f32; 2] {
    let ends = |values: &[f32]| ENDS.map(|percent| percentile(values, percent));
    let [black, white] = ends(&middle(scan));
    match black < white {
        true => [black, white],
        false => ends(&scan.voxels),
    }
}

fn middle(scan: &Volume) -> Vec<f32> {
    let [i, j, k] = scan.dims.map(|side| side / MARGIN..side - side / MARGIN);
    let [columns, rows, _] = scan.dims;
    let lines = k.flat_map(|slice| j.clone().map(move |row| (slice * rows + row) * columns));
    let values = lines.flat_map(|start| &scan.voxels[start + i.start..start + i.end]);
    values.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voxels along right, front and up, of 1, 2 and 3 mm.
    const AFFINE: [[f64; 4]; 3] = [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]];

    fn counting(dims: [usize; 3]) -> Volume {
        let count = dims.iter().product::<usize>();
        Volume::new(dims, (0..count).map(|value| value as f32).collect(), AFFINE)
    }

    #[test]
    fn slices_are_counted_from_the_feet_and_seen_as_by_radiologists() {
        let scan = counting([2, 3, 4]);
        let slice = Slice::at(&scan, Plane::Axial, [0.4, 3.0, 3.9]);
        assert_eq!((slice.number, slice.of), (2, 4));
        assert_eq!((slice.pixels, slice.spacing), ([3, 2], [2.0, 1.0]));
        // The patient's front right first.
        assert_eq!(slice.values, [11.0, 10.0, 9.0, 8.0, 7.0, 6.0]);
        assert_eq!(slice.voxels(&scan).collect::<Vec<_>>(), [11, 10, 9, 8, 7, 6]);
        assert_eq!(Slice::numbered(&scan, Plane::Axial, 2).unwrap(), slice);
        // Outside of the scan, its last slice.
        assert_eq!(Slice::at(&scan, Plane::Axial, [0.0, 0.0, 90.0]).number, 4);
        assert_eq!(Slice::at(&scan, Plane::Axial, [f64::NAN; 3]).number, 1);
        for number in [0, 5, usize::MAX] {
            let said = Slice::numbered(&scan, Plane::Axial, number).unwrap_err().to_string();
            assert!(said.contains("from 1 at the feet to 4 at the head"), "{said}");
        }
    }

    #[test]
    fn the_other_planes_have_the_head_up_too() {
        let scan = counting([2, 3, 4]);
        let coronal = Slice::at(&scan, Plane::Coronal, [0.4, 3.9, 0.0]);
        assert_eq!((coronal.number, coronal.of), (3, 3));
        assert_eq!((coronal.pixels, coronal.spacing), ([4, 2], [3.0, 1.0]));
        // The patient's right first, from the head down.
        let wanted = [23, 22, 17, 16, 11, 10, 5, 4];
        assert_eq!(coronal.voxels(&scan).collect::<Vec<_>>(), wanted);
        assert_eq!(coronal.values, wanted.map(|value| value as f32));
        let sagittal = Slice::at(&scan, Plane::Sagittal, [0.4, 0.0, 0.0]);
        assert_eq!((sagittal.number, sagittal.of), (1, 2));
        assert_eq!((sagittal.pixels, sagittal.spacing), ([4, 3], [3.0, 2.0]));
        // The back first.
        let wanted = [18, 20, 22, 12, 14, 16, 6, 8, 10, 0, 2, 4];
        assert_eq!(sagittal.voxels(&scan).collect::<Vec<_>>(), wanted);
        let said = Slice::numbered(&scan, Plane::Sagittal, 3).unwrap_err().to_string();
        assert!(
            said.contains("from 1 at the patient's left to 2 at the right"),
            "{said}"
        );
    }

    #[test]
    fn a_window_is_of_the_scans_middle() {
        let mut scan = counting([4, 4, 8]);
        // Voxel (1, 1, 2) is the middle's first, (2, 2, 5) its last: 37 and 90.
        let inside = middle(&scan);
        assert_eq!((inside.len(), inside[0], inside[15]), (16, 37.0, 90.0));
        assert_eq!(window(&scan), [percentile(&inside, 2.0), percentile(&inside, 98.0)]);
        scan.voxels[0] = 1e9;
        assert!(window(&scan)[1] < 91.0);
        // One value in the middle: then of all.
        scan.voxels.fill(7.0);
        scan.voxels[..16].fill(5.0);
        assert_eq!(window(&scan), [5.0, 7.0]);
        assert_eq!(window(&counting([1, 1, 1])), [0.0, 0.0]);
    }
}
