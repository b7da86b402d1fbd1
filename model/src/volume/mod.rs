//! NIfTI bytes to volumes and back.
//!
//! The `nifti` crate reads NIfTI-1 headers of either byte order. What it lacks is here: NIfTI-2, the affine in double
//! precision, limits that hold before memory is taken, and masks that keep the scan's own header to the bit.

mod header;
mod patch;
mod slicing;
mod space;
mod stream;
mod voxel_box;

use std::io::Read;

use flate2::Compression;
use flate2::write::GzEncoder;
use header::{Fields, read_header};
use patch::Patch;
pub use slicing::{Plane, Slicing};
pub use space::Affine;
use space::column_length;
use stream::{Unpacked, finish, skip, take, take_up_to};
pub use voxel_box::VoxelBox;

use crate::Error;

/// A 3D scan or label map.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Voxels along the file's three axes; the first is the fastest in [`Volume::voxels`].
    pub dims: [usize; 3],
    /// Values after the file's own scaling (HU for CT).
    pub voxels: Vec<f32>,
    /// Rows of the affine: voxel indices to millimetres, in right-anterior-superior directions.
    pub affine: Affine,
    /// The file's header as it was, so that a mask can carry the same.
    header: Vec<u8>,
    big_endian: bool,
}

impl Volume {
    /// Reads a NIfTI-1 or NIfTI-2 file, gzipped or not. A series of volumes (4D) is refused unless `index` names one.
    ///
    /// # Errors
    /// The bytes are cut off, are no NIfTI, claim absurd dimensions, or hold several volumes.
    pub fn from_nifti(bytes: &[u8], index: Option<usize>) -> Result<Self, Error> {
        Self::read(Unpacked::new(bytes), index)
    }

    /// The volume that a NIfTI file claims to hold, without its voxels: known before memory is taken for them.
    ///
    /// # Errors
    /// As of [`Volume::from_nifti`], as far as the header shows them.
    pub fn claimed(bytes: &[u8], index: Option<usize>) -> Result<Self, Error> {
        let (header, fields) = read_header(&mut Unpacked::new(bytes))?;
        Ok(Self {
            dims: fields.select(index)?.0,
            voxels: Vec::new(),
            affine: fields.affine,
            header,
            big_endian: fields.big_endian,
        })
    }

    fn read(input: impl Read, index: Option<usize>) -> Result<Self, Error> {
        let (header, fields, dims, raw) = read_raw(input, index)?;
        Ok(Self {
            dims,
            voxels: fields.decode(&raw),
            affine: fields.affine,
            header,
            big_endian: fields.big_endian,
        })
    }

    /// A volume of our own making, with a header that says no more than the affine: NIfTI-1, or NIfTI-2 where a side is
    /// more than its 16 bits hold.
    ///
    /// ```
    /// use flapsam_model::volume::Volume;
    ///
    /// # fn main() -> Result<(), flapsam_model::Error> {
    /// // Voxels of 1 x 1 x 2.5 mm, the first of them 10 mm to the left of the origin.
    /// let affine = [[1.0, 0.0, 0.0, -10.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.5, 0.0]];
    /// let scan = Volume::new([2, 2, 1], vec![0.0, 1.0, 2.0, 3.0], affine);
    /// let read = Volume::from_nifti(&scan.to_nifti_f32(), None)?;
    /// assert_eq!(read.voxels, scan.voxels);
    /// assert_eq!(read.spacing(), [1.0, 1.0, 2.5]);
    /// assert_eq!(read.voxel_at([-9.0, 1.0, 0.0]), [1, 1, 0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the number of voxels is not the product of the dimensions (a programming error).
    pub fn new(dims: [usize; 3], voxels: Vec<f32>, affine: Affine) -> Self {
        assert_eq!(dims.iter().product::<usize>(), voxels.len());
        let mut header = Patch::blank(dims.iter().any(|&side| side > i16::MAX as usize));
        header.dims(dims);
        header.space(&affine);
        Self {
            dims,
            voxels,
            affine,
            header: header.into_bytes(),
            big_endian: false,
        }
    }

    /// The same grid without values.
    pub fn grid(&self) -> Self {
        Self {
            voxels: Vec::new(),
            header: self.header.clone(),
            ..*self
        }
    }

    /// The same volume with its axes in axial order: columns first, then rows, then slices (towards the patient's left,
    /// back and feet), whatever the file's order is.
    pub fn oriented(self) -> Self {
        let axial = self.axial();
        let [slices, rows, columns] = axial.dims;
        let voxels = self.to_slices().values;
        Self::new([columns, rows, slices], voxels, axial.affine(&self.affine))
    }

    /// The voxels as 16-bit integers (HU) in a gzipped NIfTI file. The same volume gives the same bytes.
    pub fn to_nifti_i16(&self) -> Vec<u8> {
        let clamp = |value: &f32| value.round().clamp(i16::MIN as f32, i16::MAX as f32) as i16;
        let voxels = self.voxels.iter().map(clamp);
        let data = match self.big_endian {
            true => voxels.flat_map(i16::to_be_bytes).collect(),
            false => voxels.flat_map(i16::to_le_bytes).collect(),
        };
        self.gzip(&self.encode(4, 16, data))
    }

    /// The voxels as 32-bit floats, which they are here, in a gzipped NIfTI file with this volume's header.
    pub fn to_nifti_f32(&self) -> Vec<u8> {
        let data = match self.big_endian {
            true => self.voxels.iter().flat_map(|value| value.to_be_bytes()).collect(),
            false => self.voxels.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        self.gzip(&self.encode(16, 32, data))
    }

    /// Labels on this volume's grid, in a NIfTI file with this volume's header: same shape, same affine, to the bit.
    ///
    /// # Panics
    /// If there are more or fewer labels than voxels (a programming error).
    pub fn mask_to_nifti(&self, labels: &[u8], packing: Packing) -> Vec<u8> {
        assert_eq!(labels.len(), self.dims.iter().product::<usize>());
        let file = self.encode(2, 8, labels.to_vec());
        match packing {
            Packing::Plain => file,
            Packing::Gzip => self.gzip(&file),
        }
    }

    /// The header with another data type and no scaling, then the data.
    fn encode(&self, datatype: i16, bits: i16, data: Vec<u8>) -> Vec<u8> {
        let mut header = Patch::of(self.header.clone(), self.big_endian);
        header.dims(self.dims);
        header.values(datatype, bits);
        header.followed_by(&data)
    }

    /// A file of this volume's header, gzipped: the header by itself and then the voxels, since the compressor's bytes, whose
    /// checksums the phantom's manifest has, depend on how they are passed.
    fn gzip(&self, file: &[u8]) -> Vec<u8> {
        let (header, voxels) = file.split_at(self.header.len() + patch::NO_EXTENSIONS.len());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for part in [header, voxels] {
            std::io::Write::write_all(&mut encoder, part).expect("writing to memory cannot fail");
        }
        encoder.finish().expect("writing to memory cannot fail")
    }

    /// Distance between voxel centres along the file's axes, mm.
    pub fn spacing(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| column_length(&self.affine, axis))
    }

    /// What a voxel takes up, mm³: less than the product of the distances where axes are not at right angles.
    pub fn voxel_mm3(&self) -> f64 {
        space::volume(&self.affine)
    }

    /// What a pixel of a plane's slice takes up, mm²: less than the product of its sides where these are not at right angles.
    pub fn pixel_mm2(&self, plane: Plane) -> f64 {
        let [_, down, across] = self.slicing(plane).axes();
        space::area(&self.affine, [down, across])
    }

    /// Whether each of the file's axes is at right angles to the others.
    pub fn has_right_angles(&self) -> bool {
        space::has_right_angles(&self.affine)
    }

    /// Refuses voxels that are not numbers.
    pub fn check_finite(&self) -> Result<(), Error> {
        match self.voxels.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(first) => {
                let [i, j, _] = self.dims;
                let place = (first % i, first / i % j, first / (i * j));
                Err(Error::Volume(format!(
                    "voxel {place:?} is {}; replace such voxels (by air, -1000 HU, in CT) and try again",
                    self.voxels[first]
                )))
            }
        }
    }

    /// The voxel nearest to a place in millimetres; outside of the scan the nearest one in it.
    pub fn voxel_at(&self, mm: [f64; 3]) -> [usize; 3] {
        let place = space::inverse(&self.affine, mm);
        // A place that is none counts as the first voxel.
        std::array::from_fn(|axis| (place[axis].round().max(0.0) as usize).min(self.dims[axis].saturating_sub(1)))
    }

    /// Whether a place in millimetres is in one of the voxels.
    pub fn holds(&self, mm: [f64; 3]) -> bool {
        let place = space::inverse(&self.affine, mm);
        (0..3).all(|axis| (-0.5..=self.dims[axis] as f64 - 0.5).contains(&place[axis]))
    }

    /// The slices of a plane.
    pub fn slicing(&self, plane: Plane) -> Slicing {
        Slicing::new(self.dims, &self.affine, plane)
    }

    /// The axial slices: what networks are trained on.
    pub fn axial(&self) -> Slicing {
        self.slicing(Plane::Axial)
    }

    /// The voxels in axial order: `slice, row, column`.
    pub fn to_slices(&self) -> Slices {
        let axial = self.axial();
        Slices {
            dims: axial.dims,
            values: axial.indices().map(|index| self.voxels[index]).collect(),
        }
    }
}

/// A file's header, what it says, the volume's dimensions, and its voxels as the file has them.
type Raw = (Vec<u8>, Fields, [usize; 3], Vec<u8>);

fn read_raw(mut input: impl Read, index: Option<usize>) -> Result<Raw, Error> {
    let (header, fields) = read_header(&mut input)?;
    let (dims, volumes_before) = fields.select(index)?;
    let size = dims.iter().product::<usize>() * fields.width();
    let before = volumes_before * size;
    let raw = match fields.offset(header.len()) {
        Some(offset) => {
            skip(&mut input, offset - header.len() as u64, "extension")?;
            skip(&mut input, before as u64, "voxel data")?;
            take(&mut input, size)?
        }
        None => {
            let mut rest = take_up_to(&mut input, fields.most())?;
            let start = fields.before_voxels(&rest)? + before;
            rest.truncate(start + size);
            rest.split_off(start)
        }
    };
    finish(&mut input, fields.most())?;
    Ok((header, fields, dims, raw))
}

/// The same scan for programs that read headers otherwise than we do: plain bytes, one volume, and of space nothing but the
/// affine as we take it, as an sform in millimetres. The voxels stay as they are.
///
/// # Errors
/// As of [`Volume::from_nifti`].
pub fn restated(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (header, fields, dims, raw) = read_raw(Unpacked::new(bytes), None)?;
    let mut header = Patch::of(header, fields.big_endian);
    header.dims(dims);
    header.space(&fields.affine);
    Ok(header.followed_by(&raw))
}

/// How a NIfTI file keeps its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As they are: `.nii`.
    Plain,
    /// Gzipped: `.nii.gz`.
    Gzip,
}

/// Values of axial slices: `slice` towards the feet, `row` towards the back, `column` towards the patient's left.
#[derive(Debug, Clone, PartialEq)]
pub struct Slices {
    /// Slices, rows, columns.
    pub dims: [usize; 3],
    /// Row-major.
    pub values: Vec<f32>,
}

impl Slices {
    /// Values of one slice.
    pub fn slice(&self, index: usize) -> &[f32] {
        let area = self.dims[1] * self.dims[2];
        &self.values[index * area..(index + 1) * area]
    }
}
