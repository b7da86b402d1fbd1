//! What a NIfTI header says, of either version and byte order.

use std::io::Read;

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::space::{Affine, Space, is_set, unit};
use super::stream::fill;
use crate::Error;
use crate::foreign::recognise;

/// More voxels than any scanner makes: a header that claims more is wrong.
const MAX_VOXELS: u64 = 1 << 33;
pub(super) const HEADER_1: usize = 348;
pub(super) const HEADER_2: usize = 540;

/// What a header says.
pub(super) struct Fields {
    dims: Vec<u64>,
    datatype: NiftiType,
    slope: f64,
    intercept: f64,
    /// Where the voxels begin, as it claims; the place need not be one.
    claimed_offset: f64,
    pub affine: Affine,
    pub big_endian: bool,
}

/// Where voxels may begin after the header, and what may come before them.
const AFTER_HEADER: usize = 4;
/// Bytes of extensions that a file may have whose header does not say where its voxels begin.
const MOST_EXTENSION: u64 = 16 << 20;

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
        // 16 bits with a sign, whatever the crate's type.
        let dims = sides(header.dim.map(|dim| i64::from(dim as i16)))?;
        let quaternion = [header.quatern_b, header.quatern_c, header.quatern_d];
        let offset = [header.quatern_x, header.quatern_y, header.quatern_z];
        let space = Space {
            spacing: [0, 1, 2, 3].map(|index| header.pixdim[index] as f64),
            qform: is_set(header.qform_code).then_some((quaternion.map(f64::from), offset.map(f64::from))),
            sform: is_set(header.sform_code)
                .then_some([header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from))),
            quaternion_rounding: 3.0 * f32::EPSILON as f64,
            unit: unit(header.xyzt_units),
        };
        Ok(Self {
            affine: space.affine(&dims)?,
            dims,
            datatype,
            slope: header.scl_slope as f64,
            intercept: header.scl_inter as f64,
            claimed_offset: header.vox_offset.into(),
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
        let dims = sides(std::array::from_fn(|axis| long(16 + 8 * axis)))?;
        let row = |at: usize| [0, 1, 2, 3].map(|column| float(at + 8 * column));
        let space = Space {
            spacing: [0, 1, 2, 3].map(|index| float(104 + 8 * index)),
            qform: is_set(code(344)).then(|| ([352, 360, 368].map(float), [376, 384, 392].map(float))),
            sform: is_set(code(348)).then(|| [row(400), row(432), row(464)]),
            quaternion_rounding: 3.0 * f64::EPSILON,
            unit: unit(bytes[if big_endian { 503 } else { 500 }]),
        };
        Ok(Self {
            affine: space.affine(&dims)?,
            dims,
            datatype,
            slope: float(176),
            intercept: float(184),
            claimed_offset: long(168) as f64,
            big_endian,
        })
    }

    /// The three spatial dimensions, and how many volumes to skip.
    pub(super) fn select(&self, index: Option<usize>) -> Result<([usize; 3], usize), Error> {
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

    /// Bytes of all volumes together, of dimensions that [`Fields::select`] lets pass.
    pub(super) fn bytes(&self) -> usize {
        self.dims.iter().product::<u64>() as usize * self.width()
    }

    /// Where the voxels begin, if what the header claims can be: after the header, at a whole number.
    pub(super) fn offset(&self, header: usize) -> Option<u64> {
        let claimed = self.claimed_offset;
        (claimed.fract() == 0.0 && claimed >= (header + AFTER_HEADER) as f64).then_some(claimed as u64)
    }

    /// How many of the bytes after the header come before the voxels, by the length of them all: none, the four that say
    /// whether there are extensions, or these and the extensions.
    ///
    /// # Errors
    /// It is none of these.
    pub(super) fn before_voxels(&self, rest: &[u8]) -> Result<usize, Error> {
        let before = rest.len().checked_sub(self.bytes());
        match before.filter(|&before| before == 0 || self.ends_extensions(rest, before)) {
            Some(before) => Ok(before),
            None => Err(Error::format(
                "the NIfTI header",
                format!(
                    "its voxels cannot begin at byte {} (vox_offset), and the file's length does not tell where they do; \
                     write that field anew or export the scan again",
                    self.claimed_offset
                ),
            )),
        }
    }

    /// Whether the extensions after a header, or the lack of any, end at a place.
    fn ends_extensions(&self, rest: &[u8], place: usize) -> bool {
        let mut end = AFTER_HEADER;
        let has_some = rest.first().is_some_and(|&flag| flag != 0);
        while has_some && end < place {
            let Some(&[a, b, c, d]) = rest.get(end..end + 4) else {
                return false;
            };
            let size = match self.big_endian {
                true => u32::from_be_bytes([a, b, c, d]),
                false => u32::from_le_bytes([a, b, c, d]),
            };
            // Its own size and code at least.
            if size < 8 {
                return false;
            }
            end = end.saturating_add(size as usize);
        }
        end == place
    }

    /// Bytes after the header that a file may have at most: all volumes, and what may come before them.
    pub(super) fn most(&self) -> u64 {
        self.bytes() as u64 + MOST_EXTENSION
    }

    /// Bytes a voxel.
    pub(super) fn width(&self) -> usize {
        self.datatype.size_of()
    }

    /// Raw bytes to scaled values, of the types that [`Fields::select`] lets pass.
    pub(super) fn decode(&self, raw: &[u8]) -> Vec<f32> {
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

/// The dimensions that a header lists behind their number. Those beyond the third that say 0 or less, as some writers fill
/// them, are one.
fn sides(dim: [i64; 8]) -> Result<Vec<u64>, Error> {
    let refuse = |why: String| Err(Error::format("the NIfTI header", why));
    let count = dim[0];
    if !(1..=7).contains(&count) {
        return refuse(format!("it claims {count} dimensions"));
    }
    let claimed = &dim[1..=count as usize];
    if let Some(side) = claimed.iter().take(3).find(|&&side| side < 1) {
        return refuse(format!(
            "it claims {claimed:?} voxels, and a side of {side} is none; export the scan again (a surface's vertices are \
             no scan)"
        ));
    }
    Ok(claimed.iter().map(|&side| side.max(1) as u64).collect())
}

/// A header's bytes, and what they say.
pub(super) fn read_header(input: &mut impl Read) -> Result<(Vec<u8>, Fields), Error> {
    let mut header = Vec::new();
    let read = input.take(HEADER_1 as u64).read_to_end(&mut header);
    let short = read.is_err() || header.len() < HEADER_1;
    let archive = "it is a zip archive; unpack it, and pass the scan in it";
    if let Some(what) = recognise(&header).or(header.starts_with(b"PK\x03\x04").then_some(archive)) {
        return Err(Error::format("the scan", what));
    }
    if short {
        let why = match read {
            Err(why) => why.to_string(),
            Ok(count) => format!("it ends after {count} bytes"),
        };
        return Err(Error::format(
            "the NIfTI file",
            format!("its header is cut off or damaged ({why}); fetch or export it again"),
        ));
    }
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
