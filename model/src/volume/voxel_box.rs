//! A box of a file's voxels: the part of a scan that a case is.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::Volume;
use super::patch::Patch;
use crate::Error;

/// Voxels from a start to a stop along each of the file's axes, whatever their order; the stop lies outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoxelBox([Range<usize>; 3]);

impl VoxelBox {
    /// Voxels along the three axes.
    pub fn dims(&self) -> [usize; 3] {
        self.0.each_ref().map(ExactSizeIterator::len)
    }

    /// Labels of the box on the whole file's voxels, 0 around it; both in the file's order.
    ///
    /// # Panics
    /// If the box reaches out of the file, or has other than so many voxels (a programming error).
    pub fn restore(&self, labels: &[u8], whole: [usize; 3]) -> Vec<u8> {
        let mut restored = vec![0; whole.iter().product()];
        let rows = labels.chunks_exact(self.dims()[0].max(1));
        for (place, row) in self.rows(whole).zip(rows) {
            restored[place].copy_from_slice(row);
        }
        restored
    }

    /// Where the box's rows along the first axis are among a whole file's voxels.
    fn rows(&self, [wide, high, _]: [usize; 3]) -> impl Iterator<Item = Range<usize>> {
        let [columns, rows, slices] = self.0.clone();
        slices.flat_map(move |slice| {
            let columns = columns.clone();
            rows.clone().map(move |row| {
                let start = (slice * high + row) * wide;
                start + columns.start..start + columns.end
            })
        })
    }
}

impl FromStr for VoxelBox {
    type Err = Error;

    /// Such as `56:82 46:65 25:44`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Error::Volume(format!(
                "the box '{text}' {why}; write it as start:stop in voxels from 0, along each of the file's three axes, the \
                 stop outside, such as 56:82 46:65 25:44"
            ))
        };
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<usize>().ok().filter(|_| digits)
        };
        let range = |side: &str| {
            let (start, stop) = side.split_once(':')?;
            Some(number(start)?..number(stop)?)
        };
        let sides: Option<Vec<Range<usize>>> = text.split_whitespace().map(range).collect();
        let sides = sides.ok_or_else(|| refuse("holds something else than whole numbers from 0"))?;
        let sides: [Range<usize>; 3] = sides
            .try_into()
            .map_err(|sides: Vec<_>| refuse(&format!("has {} sides", sides.len())))?;
        match sides.iter().find(|side| side.is_empty()) {
            Some(side) => Err(refuse(&format!("is empty ({}:{})", side.start, side.end))),
            None => Ok(Self(sides)),
        }
    }
}

impl fmt::Display for VoxelBox {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let [i, j, k] = &self.0;
        write!(
            formatter,
            "{}:{} {}:{} {}:{}",
            i.start, i.end, j.start, j.end, k.start, k.end
        )
    }
}

impl Volume {
    /// The part of it in a box, which stays at its place in space: the affine is shifted by where the box begins.
    ///
    /// # Errors
    /// The box reaches out of it.
    pub fn cropped(self, part: &VoxelBox) -> Result<Self, Error> {
        let outside = |(side, &length): (&Range<usize>, &usize)| side.end > length;
        if part.0.iter().zip(&self.dims).any(outside) {
            let [i, j, k] = self.dims;
            return Err(Error::Volume(format!(
                "the box {part} reaches out of its {i} x {j} x {k} voxels; correct the box"
            )));
        }
        let dims = part.dims();
        if dims == self.dims {
            return Ok(self);
        }
        let mut affine = self.affine;
        for row in &mut affine {
            let steps = row.iter().zip(&part.0);
            row[3] += steps.map(|(step, side)| step * side.start as f64).sum::<f64>();
        }
        let mut header = Patch::of(self.header, self.big_endian);
        header.dims(dims);
        header.space(&affine);
        // Of a volume that was not read whole there are none.
        let rows = part.rows(self.dims).map_while(|row| self.voxels.get(row));
        Ok(Self {
            voxels: rows.flatten().copied().collect(),
            dims,
            affine,
            header: header.into_bytes(),
            big_endian: self.big_endian,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBLIQUE: [[f64; 4]; 3] = [[0.0, -2.0, 0.5, 10.0], [1.0, 0.0, 0.0, -5.0], [0.0, 0.5, 3.0, 7.0]];

    #[test]
    fn what_is_cut_out_keeps_its_values_and_its_place() {
        let dims = [4, 3, 5];
        let whole = Volume::new(dims, (0..60).map(|value| value as f32).collect(), OBLIQUE);
        let part: VoxelBox = "1:3 0:2 2:5".parse().unwrap();
        let cut = whole.clone().cropped(&part).unwrap();
        assert_eq!((cut.dims, part.dims()), ([2, 2, 3], [2, 2, 3]));
        let place = |affine: &[[f64; 4]; 3], [i, j, k]: [usize; 3]| {
            affine.map(|row| row[0] * i as f64 + row[1] * j as f64 + row[2] * k as f64 + row[3])
        };
        for (index, value) in cut.voxels.iter().enumerate() {
            let [i, j, k] = [index % 2, index / 2 % 2, index / 4];
            assert_eq!(*value as usize, (1 + i) + 4 * (j + 3 * (2 + k)));
            assert_eq!(place(&cut.affine, [i, j, k]), place(&whole.affine, [1 + i, j, 2 + k]));
        }
        // A mask of it says so in its own header.
        let mask = cut.mask_to_nifti(&[1; 12], super::super::Packing::Plain);
        let mask = Volume::from_nifti(&mask, None).unwrap();
        assert_eq!((mask.dims, mask.affine), (cut.dims, cut.affine));
        // And back among the whole file's voxels.
        let restored = part.restore(&[1; 12], dims);
        let inside: Vec<f32> = restored
            .iter()
            .zip(&whole.voxels)
            .filter(|(label, _)| **label == 1)
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(inside, cut.voxels);
        assert_eq!(restored.len(), 60);
    }

    #[test]
    fn the_whole_file_stays_as_it_is() {
        let whole = Volume::new([2, 1, 1], vec![1.0, 2.0], OBLIQUE);
        let cut = whole.clone().cropped(&"0:2 0:1 0:1".parse().unwrap()).unwrap();
        assert_eq!((cut.voxels, cut.header), (whole.voxels, whole.header));
    }

    #[test]
    fn boxes_that_are_none_are_refused() {
        for (text, why) in [
            ("", "has 0 sides"),
            ("1:2 1:2", "has 2 sides"),
            ("1:2 1:2 1:2 1:2", "has 4 sides"),
            ("1:2 1:2 2:2", "is empty (2:2)"),
            ("1:2 5:2 2:3", "is empty (5:2)"),
            ("1:2 1:2 -1:3", "whole numbers"),
            ("1:2 1:2 +1:3", "whole numbers"),
            ("1:2 1:2 1.5:3", "whole numbers"),
            ("1:2 1:2 a:3", "whole numbers"),
            ("1:2 1:2 1:", "whole numbers"),
            ("1:2 1:2 1:2:3", "whole numbers"),
            ("1:2,1:2,1:2", "whole numbers"),
            ("0:1 0:1 0:99999999999999999999999", "whole numbers"),
        ] {
            let said = text.parse::<VoxelBox>().unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("such as 56:82"), "{text}: {said}");
        }
        let part: VoxelBox = "0:1 0:2 0:1".parse().unwrap();
        let said = Volume::new([2, 1, 1], vec![1.0, 2.0], OBLIQUE)
            .cropped(&part)
            .unwrap_err()
            .to_string();
        assert!(said.contains("0:1 0:2 0:1") && said.contains("2 x 1 x 1"), "{said}");
        let huge: VoxelBox = "0:1 0:1 0:18446744073709551615".parse().unwrap();
        assert!(Volume::new([2, 1, 1], vec![1.0, 2.0], OBLIQUE).cropped(&huge).is_err());
        assert_eq!(huge.to_string().parse::<VoxelBox>().unwrap(), huge);
    }
}
