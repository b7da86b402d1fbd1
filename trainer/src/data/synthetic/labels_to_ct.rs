//! Semi-synthetic CT: the phantom's intensities painted on real label maps, so that anatomy, shapes and sizes of
//! kidneys and tumours are real. Called semi-synthetic wherever it is shown.

use flapsam_model::random::Random;
use flapsam_model::volume::Volume;

use super::paint::{SITES, Scanner, Tissue, paint};
use super::phantom::Body;
use crate::error::{Error, Result};

/// The scanner of a site.
///
/// # Errors
/// The letter is none of the six.
pub fn scanner(site: &str) -> Result<&'static Scanner> {
    let found = SITES
        .iter()
        .find(|scanner| site.len() == 1 && site.starts_with(scanner.site));
    found.ok_or_else(|| Error::Message(format!("there is no site '{site}'; the sites are A to F")))
}

/// A scan of the label map's shape and place: the labels are real, everything else is painted.
pub fn scan_of(labels: &Volume, scanner: &Scanner, seed: u64, id: &str) -> Volume {
    let mut random = Random::new(seed, id);
    let body = Body::new(&mut random);
    let slices = labels.to_slices();
    let [count, rows, columns] = slices.dims;
    let spacing = axial_spacing(labels);
    let offset = body_offset(&slices.values, slices.dims, spacing);
    let place = |index: usize, axis: usize| index as f64 * spacing[axis] - offset[axis];
    let mut tissues = Vec::with_capacity(slices.values.len());
    for slice in 0..count {
        for row in 0..rows {
            for column in 0..columns {
                let point = [place(column, 2), place(row, 1), place(slice, 0)];
                tissues.push(match slices.values[tissues.len()] as u8 {
                    1 => Tissue::Kidney,
                    2 => Tissue::Tumour,
                    _ => body.background(point),
                });
            }
        }
    }
    let image = paint(&tissues, slices.dims, scanner, &mut random);
    let mut scan = labels.clone();
    scan.voxels = labels.axial().restore(&image);
    scan
}

/// mm between slices, rows, columns.
fn axial_spacing(volume: &Volume) -> [f64; 3] {
    let spacing = volume.spacing();
    let mut sizes = [0.0; 3];
    for (axis, dim) in volume.axial().axes().into_iter().enumerate() {
        sizes[axis] = spacing[dim];
    }
    sizes
}

/// Where the phantom's origin lies (mm from the first slice, row, column), so that its empty kidney beds surround the
/// real kidneys: their common centre is where the phantom has its own.
fn body_offset(labels: &[f32], [count, rows, columns]: [usize; 3], spacing: [f64; 3]) -> [f64; 3] {
    let mut sums = [0f64; 3];
    let mut found = 0f64;
    for (place, _) in labels.iter().enumerate().filter(|(_, label)| **label > 0.0) {
        let index = [place / (rows * columns), place / columns % rows, place % columns];
        (0..3).for_each(|axis| sums[axis] += index[axis] as f64);
        found += 1.0;
    }
    let middle = [count, rows, columns].map(|side| side as f64 / 2.0);
    let centre = |axis: usize| if found > 0.0 { sums[axis] / found } else { middle[axis] };
    [
        centre(0) * spacing[0] - 5.0,
        centre(1) * spacing[1] - 38.0,
        // A patient may have one kidney only: left and right stay where the image's middle is.
        middle[2] * spacing[2],
    ]
}
