//! NIfTI bytes to volumes and back.
//!
//! The `nifti` crate reads NIfTI-1 headers of either byte order. What it lacks is here: NIfTI-2, the affine in double
//! precision, limits that hold before memory is taken, and masks that keep the scan's own header to the bit.

use std::io::Read;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use nifti::{Endianness, NiftiHeader, NiftiType};

use crate::Error;

/// More voxels than any scanner makes: a header that claims more is wrong.
const MAX_VOXELS: u64 = 1 << 33;
const HEADER_1: usize = 348;
const HEADER_2: usize = 540;

/// A 3D scan or label map.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Voxels along the file's three axes; the first is the fastest in [`Volume::voxels`].
    pub dims: [usize; 3],
    /// Values after the file's own scaling (HU for CT).
    pub voxels: Vec<f32>,
    /// Rows of the affine: voxel indices to millimetres, in right-anterior-superior directions.
    pub affine: [[f64; 4]; 3],
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
        Self::read(unpacked(bytes), index)
    }

    /// The dimensions that a NIfTI file claims: known before memory is taken for its voxels.
    ///
    /// # Errors
    /// As of [`Volume::from_nifti`], as far as the header shows them.
    pub fn claimed_dims(bytes: &[u8], index: Option<usize>) -> Result<[usize; 3], Error> {
        let (_, fields) = read_header(&mut unpacked(bytes))?;
        Ok(fields.select(index)?.0)
    }

    fn read(mut input: impl Read, index: Option<usize>) -> Result<Self, Error> {
        let (header, fields) = read_header(&mut input)?;
        let (dims, skip) = fields.select(index)?;
        let size = dims.iter().product::<usize>() * fields.width();
        // An absurd offset saturates and is found to lie past the end of the file.
        discard(
            &mut input,
            fields
                .data_offset
                .saturating_sub(header.len())
                .saturating_add(skip * size),
        )?;
        let raw = take(&mut input, size)?;
        // A gzip's checksum stands at its end: without reading on, damage to the voxels would go unseen.
        std::io::copy(&mut input, &mut std::io::sink()).map_err(|why| cut_off("checksum", why))?;
        Ok(Self {
            dims,
            voxels: fields.decode(&raw),
            affine: fields.affine,
            header,
            big_endian: fields.big_endian,
        })
    }

    /// A volume of our own making, with a NIfTI-1 header that says no more than the affine.
    ///
    /// # Panics
    /// If the number of voxels is not the product of the dimensions, or a side is over 65,535 (programming errors).
    pub fn new(dims: [usize; 3], voxels: Vec<f32>, affine: [[f64; 4]; 3]) -> Self {
        assert_eq!(dims.iter().product::<usize>(), voxels.len());
        assert!(dims.iter().all(|&side| side <= u16::MAX as usize));
        let mut header = vec![0; HEADER_1];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(HEADER_1 as i32).to_le_bytes());
        put(40, &3i16.to_le_bytes());
        put(76, &1f32.to_le_bytes());
        for axis in 0..3 {
            put(42 + 2 * axis, &(dims[axis] as u16).to_le_bytes());
            let spacing = column_length(&affine, axis) as f32;
            put(80 + 4 * axis, &spacing.to_le_bytes());
            for (column, value) in affine[axis].iter().enumerate() {
                put(280 + 16 * axis + 4 * column, &(*value as f32).to_le_bytes());
            }
        }
        for axis in 3..7 {
            put(42 + 2 * axis, &1i16.to_le_bytes());
        }
        // Millimetres; an sform to scanner coordinates; one file.
        put(123, &[2]);
        put(254, &1i16.to_le_bytes());
        put(344, b"n+1\0");
        Self {
            dims,
            voxels,
            affine,
            header,
            big_endian: false,
        }
    }

    /// The voxels as 16-bit integers (HU) in a gzipped NIfTI file. The same volume gives the same bytes.
    pub fn to_nifti_i16(&self) -> Vec<u8> {
        let clamp = |value: &f32| value.round().clamp(i16::MIN as f32, i16::MAX as f32) as i16;
        let voxels = self.voxels.iter().map(clamp);
        let data = match self.big_endian {
            true => voxels.flat_map(i16::to_be_bytes).collect(),
            false => voxels.flat_map(i16::to_le_bytes).collect(),
        };
        self.encode(4, 16, data)
    }

    /// Labels on this volume's grid, in a gzipped NIfTI file with this volume's header: same shape, same affine,
    /// to the bit.
    ///
    /// # Panics
    /// If there are more or fewer labels than voxels (a programming error).
    pub fn mask_to_nifti(&self, labels: &[u8]) -> Vec<u8> {
        assert_eq!(labels.len(), self.dims.iter().product::<usize>());
        self.encode(2, 8, labels.to_vec())
    }

    /// The header with another data type and no scaling, then the data.
    fn encode(&self, datatype: i16, bits: i16, data: Vec<u8>) -> Vec<u8> {
        let mut header = self.header.clone();
        let mut put = |at: usize, little: &[u8]| {
            let mut bytes = little.to_vec();
            if self.big_endian {
                bytes.reverse();
            }
            header[at..at + bytes.len()].copy_from_slice(&bytes);
        };
        if self.header.len() == HEADER_2 {
            put(12, &datatype.to_le_bytes());
            put(14, &bits.to_le_bytes());
            put(16, &3i64.to_le_bytes());
            for axis in 0..7 {
                let side = self.dims.get(axis).map_or(1, |&side| side as i64);
                put(24 + 8 * axis, &side.to_le_bytes());
            }
            put(168, &(HEADER_2 as i64 + 4).to_le_bytes());
            for (at, value) in [(176, 1f64), (184, 0.0), (192, 0.0), (200, 0.0)] {
                put(at, &value.to_le_bytes());
            }
        } else {
            put(40, &3i16.to_le_bytes());
            for axis in 0..7 {
                let side = self.dims.get(axis).map_or(1, |&side| side as u16);
                put(42 + 2 * axis, &side.to_le_bytes());
            }
            put(70, &datatype.to_le_bytes());
            put(72, &bits.to_le_bytes());
            put(108, &(HEADER_1 as f32 + 4.0).to_le_bytes());
            for (at, value) in [(112, 1f32), (116, 0.0), (124, 0.0), (128, 0.0)] {
                put(at, &value.to_le_bytes());
            }
        }
        // No extensions follow: they may speak of the scan's own values.
        header.extend([0; 4]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let write = |encoder: &mut GzEncoder<Vec<u8>>, bytes: &[u8]| {
            std::io::Write::write_all(encoder, bytes).expect("writing to memory cannot fail");
        };
        write(&mut encoder, &header);
        write(&mut encoder, &data);
        encoder.finish().expect("writing to memory cannot fail")
    }

    /// Distance between voxel centres along the file's axes, mm.
    pub fn spacing(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| column_length(&self.affine, axis))
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

    /// The axial slices, see [`Axial`].
    pub fn axial(&self) -> Axial {
        Axial::new(self.dims, &self.affine)
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

/// How a file's axes map to axial slices. Fed-KiTS stores its volumes in this very order (axes I-P-L).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axial {
    /// Slices, rows, columns.
    pub dims: [usize; 3],
    /// The file's axes along slices, rows, columns.
    axes: [usize; 3],
    /// Voxel index of slice 0, row 0, column 0.
    origin: usize,
    /// Voxel index step along slices, rows, columns.
    steps: [isize; 3],
}

impl Axial {
    fn new(dims: [usize; 3], affine: &[[f64; 4]; 3]) -> Self {
        let strides = [1, dims[0], dims[0] * dims[1]];
        let world = closest_axes(affine);
        let mut origin = 0;
        // Inferior is -z, posterior -y, left -x of the affine's right-anterior-superior space.
        let mapped = [2, 1, 0].map(|direction| {
            let axis = world.iter().position(|(to, _)| *to == direction);
            let axis = axis.expect("closest_axes gives each direction once");
            let step = strides[axis] as isize;
            match world[axis].1 {
                true => {
                    origin += (dims[axis] - 1) * strides[axis];
                    (axis, -step)
                }
                false => (axis, step),
            }
        });
        Self {
            dims: mapped.map(|(axis, _)| dims[axis]),
            axes: mapped.map(|(axis, _)| axis),
            origin,
            steps: mapped.map(|(_, step)| step),
        }
    }

    /// The file's axes along slices, rows and columns.
    pub fn axes(self) -> [usize; 3] {
        self.axes
    }

    /// The file's voxel index of every place in axial order.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        let [slices, rows, columns] = self.dims;
        let [by_slice, by_row, by_column] = self.steps;
        (0..slices as isize).flat_map(move |slice| {
            (0..rows as isize).flat_map(move |row| {
                let start = self.origin as isize + slice * by_slice + row * by_row;
                (0..columns as isize).map(move |column| (start + column * by_column) as usize)
            })
        })
    }

    /// Puts values from axial order back into the file's order.
    pub fn restore<T: Copy + Default>(self, axial: &[T]) -> Vec<T> {
        let mut voxels = vec![T::default(); axial.len()];
        for (value, index) in axial.iter().zip(self.indices()) {
            voxels[index] = *value;
        }
        voxels
    }
}

/// For each voxel axis the world axis it runs along most, and whether its index grows with it.
fn closest_axes(affine: &[[f64; 4]; 3]) -> [(usize, bool); 3] {
    let mut result = [(usize::MAX, true); 3];
    let share = |world: usize, axis: usize| {
        let length = column_length(affine, axis);
        if length > 0.0 {
            affine[world][axis] / length
        } else {
            0.0
        }
    };
    for _ in 0..3 {
        let free_world = |world: &usize| !result.iter().any(|(taken, _)| taken == world);
        let pairs = (0..3).filter(free_world).flat_map(|world| {
            let free_axis = |axis: &usize| result[*axis].0 == usize::MAX;
            (0..3).filter(free_axis).map(move |axis| (world, axis))
        });
        let best = pairs.max_by(|a, b| share(a.0, a.1).abs().total_cmp(&share(b.0, b.1).abs()));
        let (world, axis) = best.expect("a free axis remains in each of three turns");
        result[axis] = (world, share(world, axis) >= 0.0);
    }
    result
}

fn column_length(affine: &[[f64; 4]; 3], axis: usize) -> f64 {
    affine.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt()
}

/// What a header says.
struct Fields {
    dims: Vec<u64>,
    datatype: NiftiType,
    slope: f64,
    intercept: f64,
    data_offset: usize,
    affine: [[f64; 4]; 3],
    big_endian: bool,
}

impl Fields {
    fn version_1(bytes: &[u8]) -> Result<Self, Error> {
        let header = NiftiHeader::from_reader(bytes).map_err(|why| Error::format("the NIfTI header", why))?;
        if header.sizeof_hdr != HEADER_1 as i32 || !header.magic.starts_with(b"n") {
            return Err(Error::format(
                "the file",
                "it is not NIfTI (no 'n+1' mark in its header)",
            ));
        }
        if !header.magic.starts_with(b"n+") {
            let why = "its voxels are in a second file (.img); convert it to a single .nii file";
            return Err(Error::format("the file", why));
        }
        let datatype = header
            .data_type()
            .map_err(|why| Error::format("the NIfTI header", why))?;
        let count = header.dim[0] as usize;
        if !(1..=7).contains(&count) {
            return Err(Error::format(
                "the NIfTI header",
                format!("it claims {count} dimensions"),
            ));
        }
        let quaternion = [header.quatern_b, header.quatern_c, header.quatern_d];
        let offset = [header.quatern_x, header.quatern_y, header.quatern_z];
        let space = Space {
            spacing: [0, 1, 2, 3].map(|index| header.pixdim[index] as f64),
            qform: (header.qform_code > 0).then_some((quaternion.map(f64::from), offset.map(f64::from))),
            sform: (header.sform_code > 0)
                .then_some([header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from))),
            quaternion_rounding: 3.0 * f32::EPSILON as f64,
        };
        let dims: Vec<u64> = header.dim[1..=count].iter().map(|&dim| dim as u64).collect();
        Ok(Self {
            affine: space.affine(&dims),
            dims,
            datatype,
            slope: header.scl_slope as f64,
            intercept: header.scl_inter as f64,
            data_offset: header.vox_offset as usize,
            big_endian: header.endianness == Endianness::Big,
        })
    }

    fn version_2(bytes: &[u8]) -> Result<Self, Error> {
        let big_endian = bytes[0] == 0;
        let raw = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            raw
        };
        let float = |at: usize| match big_endian {
            true => f64::from_be_bytes(raw(at)),
            false => f64::from_le_bytes(raw(at)),
        };
        let long = |at: usize| match big_endian {
            true => i64::from_be_bytes(raw(at)),
            false => i64::from_le_bytes(raw(at)),
        };
        let short = |at: usize| match big_endian {
            true => i16::from_be_bytes([bytes[at], bytes[at + 1]]),
            false => i16::from_le_bytes([bytes[at], bytes[at + 1]]),
        };
        // Form codes are 32-bit; every defined one fits its low half.
        let code = |at: usize| short(if big_endian { at + 2 } else { at });
        if !bytes[4..].starts_with(b"n+2\0") {
            return Err(Error::format(
                "the file",
                "it is not a single-file NIfTI-2 (no 'n+2' mark)",
            ));
        }
        // The crate's own list of data types, by way of a header that has no other content.
        let named = NiftiHeader {
            datatype: short(12),
            ..NiftiHeader::default()
        };
        let datatype = named
            .data_type()
            .map_err(|why| Error::format("the NIfTI header", why))?;
        let count = long(16);
        if !(1..=7).contains(&count) {
            return Err(Error::format(
                "the NIfTI header",
                format!("it claims {count} dimensions"),
            ));
        }
        let dims: Vec<u64> = (1..=count as usize)
            .map(|axis| long(16 + 8 * axis).max(0) as u64)
            .collect();
        let row = |at: usize| [0, 1, 2, 3].map(|column| float(at + 8 * column));
        let space = Space {
            spacing: [0, 1, 2, 3].map(|index| float(104 + 8 * index)),
            qform: (code(344) > 0).then(|| ([352, 360, 368].map(float), [376, 384, 392].map(float))),
            sform: (code(348) > 0).then(|| [row(400), row(432), row(464)]),
            quaternion_rounding: 3.0 * f64::EPSILON,
        };
        Ok(Self {
            affine: space.affine(&dims),
            dims,
            datatype,
            slope: float(176),
            intercept: float(184),
            data_offset: long(168).max(0) as usize,
            big_endian,
        })
    }

    /// The three spatial dimensions, and how many volumes to skip.
    fn select(&self, index: Option<usize>) -> Result<([usize; 3], usize), Error> {
        let single = !matches!(
            self.datatype,
            NiftiType::Rgb24
                | NiftiType::Rgba32
                | NiftiType::Complex64
                | NiftiType::Complex128
                | NiftiType::Complex256
                | NiftiType::Float128
        );
        if !single {
            let why = format!(
                "its voxels are of type {:?}; convert it to integers or 32-bit floats",
                self.datatype
            );
            return Err(Error::format("the NIfTI file", why));
        }
        let total = self.dims.iter().try_fold(1u64, |total, &dim| total.checked_mul(dim));
        let fits = |total: u64| usize::try_from(total.saturating_mul(self.width() as u64)).is_ok();
        match total {
            Some(total @ 1..=MAX_VOXELS) if fits(total) => (),
            _ => {
                let why = format!("it claims absurd dimensions, {:?} voxels", self.dims);
                return Err(Error::format("the NIfTI header", why));
            }
        }
        let side = |axis: usize| self.dims.get(axis).map_or(1, |&dim| dim as usize);
        let dims = [side(0), side(1), side(2)];
        let series: usize = (3..self.dims.len()).map(side).product();
        match (series, index) {
            (1, None | Some(0)) => Ok((dims, 0)),
            (_, Some(index)) if index < series => Ok((dims, index)),
            (_, Some(index)) => Err(Error::Volume(format!(
                "there is no volume {index}: the file holds {series} (count from 0)"
            ))),
            (_, None) => Err(Error::Volume(format!(
                "the file holds a series of {series} volumes ({:?}), not one; name one of them (0 to {})",
                self.dims,
                series - 1
            ))),
        }
    }

    /// Bytes a voxel.
    fn width(&self) -> usize {
        self.datatype.size_of()
    }

    /// Raw bytes to scaled values, of the types that [`Fields::select`] lets pass.
    fn decode(&self, raw: &[u8]) -> Vec<f32> {
        macro_rules! values {
            ($type:ty) => {
                raw.chunks_exact(size_of::<$type>())
                    .map(|bytes| {
                        let mut value = [0; size_of::<$type>()];
                        value.copy_from_slice(bytes);
                        match self.big_endian {
                            true => <$type>::from_be_bytes(value) as f64,
                            false => <$type>::from_le_bytes(value) as f64,
                        }
                    })
                    .map(|value| self.scale(value) as f32)
                    .collect()
            };
        }
        match self.datatype {
            NiftiType::Uint8 => values!(u8),
            NiftiType::Int8 => values!(i8),
            NiftiType::Uint16 => values!(u16),
            NiftiType::Int16 => values!(i16),
            NiftiType::Uint32 => values!(u32),
            NiftiType::Int32 => values!(i32),
            NiftiType::Uint64 => values!(u64),
            NiftiType::Int64 => values!(i64),
            NiftiType::Float32 => values!(f32),
            NiftiType::Float64 => values!(f64),
            _ => vec![f32::NAN; raw.len() / self.width()],
        }
    }

    /// A slope of zero (or none) means that the values are not scaled.
    fn scale(&self, value: f64) -> f64 {
        match self.slope == 0.0 || !self.slope.is_finite() || !self.intercept.is_finite() {
            true => value,
            false => value * self.slope + self.intercept,
        }
    }
}

/// What a header says about space.
struct Space {
    /// `pixdim`: the handedness of the quaternion, then three distances.
    spacing: [f64; 4],
    qform: Option<([f64; 3], [f64; 3])>,
    sform: Option<[[f64; 4]; 3]>,
    /// How far rounding carries the squares of the quaternion's parts: three units of the header's own precision.
    quaternion_rounding: f64,
}

impl Space {
    /// The affine by the standard's order of preference: sform, qform, or the bare spacing around the centre.
    fn affine(self, dims: &[u64]) -> [[f64; 4]; 3] {
        if let Some(sform) = self.sform {
            return sform;
        }
        let [handedness, x, y, z] = self.spacing;
        if let Some(([b, c, d], offset)) = self.qform {
            // Rounded to the header's precision, a half turn leaves a little more or less than nothing for the real part.
            let rest = 1.0 - (b * b + c * c + d * d);
            let a = if rest.abs() < self.quaternion_rounding {
                0.0
            } else {
                rest.max(0.0).sqrt()
            };
            let z = if handedness < 0.0 { -z } else { z };
            let twice = 2.0 / (a * a + b * b + c * c + d * d);
            let rotation = [
                [
                    1.0 - twice * (c * c + d * d),
                    twice * (b * c - a * d),
                    twice * (b * d + a * c),
                ],
                [
                    twice * (b * c + a * d),
                    1.0 - twice * (b * b + d * d),
                    twice * (c * d - a * b),
                ],
                [
                    twice * (b * d - a * c),
                    twice * (c * d + a * b),
                    1.0 - twice * (b * b + c * c),
                ],
            ];
            return [0, 1, 2].map(|row| {
                let [i, j, k] = rotation[row];
                [i * x, j * y, k * z, offset[row]]
            });
        }
        let centre = |axis: usize, step: f64| -step * (dims.get(axis).map_or(0.0, |&dim| dim as f64 - 1.0)) / 2.0;
        // Without any form the standard's tools take the first axis to run to the left.
        [
            [-x, 0.0, 0.0, centre(0, -x)],
            [0.0, y, 0.0, centre(1, y)],
            [0.0, 0.0, z, centre(2, z)],
        ]
    }
}

/// The file's bytes, without their gzip if they have one.
fn unpacked(bytes: &[u8]) -> Box<dyn Read + '_> {
    match bytes.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(MultiGzDecoder::new(bytes)),
        false => Box::new(bytes),
    }
}

/// A header's bytes, and what they say.
fn read_header(input: &mut impl Read) -> Result<(Vec<u8>, Fields), Error> {
    let mut header = vec![0; HEADER_1];
    fill(input, &mut header, "header")?;
    let size = [&header[..4]].map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]])[0];
    let version_2 = [u32::from_le_bytes(size), u32::from_be_bytes(size)].contains(&(HEADER_2 as u32));
    if !version_2 {
        let fields = Fields::version_1(&header)?;
        return Ok((header, fields));
    }
    let mut rest = vec![0; HEADER_2 - HEADER_1];
    fill(input, &mut rest, "header")?;
    header.extend(rest);
    let fields = Fields::version_2(&header)?;
    Ok((header, fields))
}

fn fill(input: &mut impl Read, buffer: &mut [u8], what: &str) -> Result<(), Error> {
    input.read_exact(buffer).map_err(|why| cut_off(what, why))
}

fn cut_off(what: &str, why: std::io::Error) -> Error {
    Error::format(
        "the NIfTI file",
        format!("its {what} is cut off or damaged ({why}); fetch or export it again"),
    )
}

fn discard(input: &mut impl Read, bytes: usize) -> Result<(), Error> {
    let copied = std::io::copy(&mut input.take(bytes as u64), &mut std::io::sink());
    match copied.map_err(|why| cut_off("extension", why))? {
        all if all == bytes as u64 => Ok(()),
        _ => Err(cut_off("extension", std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Reads exactly so many bytes, taking memory only as they come.
fn take(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut raw = Vec::new();
    let read = input.take(bytes as u64).read_to_end(&mut raw);
    read.map_err(|why| cut_off("voxel data", why))?;
    if raw.len() < bytes {
        let why = format!("it ends after {} of {bytes} bytes of voxels", raw.len());
        return Err(Error::format(
            "the NIfTI file",
            format!("{why}; fetch or export it again"),
        ));
    }
    Ok(raw)
}
