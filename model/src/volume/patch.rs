//! Fields of a header written anew, in its own version and byte order.

use super::header::{HEADER_1, HEADER_2};
use super::space::{Affine, column_length};

/// What follows a header that no extensions follow.
pub(super) const NO_EXTENSIONS: [u8; 4] = [0; 4];

/// A header, and how it writes numbers.
pub(super) struct Patch {
    header: Vec<u8>,
    big_endian: bool,
}

impl Patch {
    pub(super) fn of(header: Vec<u8>, big_endian: bool) -> Self {
        Self { header, big_endian }
    }

    /// A little-endian header that says nothing yet but its version, NIfTI-2 or NIfTI-1.
    pub(super) fn blank(version_2: bool) -> Self {
        let (size, magic_at, magic): (usize, usize, &[u8]) = match version_2 {
            true => (HEADER_2, 4, b"n+2\0\r\n\x1a\n"),
            false => (HEADER_1, 344, b"n+1\0"),
        };
        let mut header = vec![0; size];
        header[..4].copy_from_slice(&(size as i32).to_le_bytes());
        header[magic_at..magic_at + magic.len()].copy_from_slice(magic);
        Self::of(header, false)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.header
    }

    fn is_version_2(&self) -> bool {
        self.header.len() == HEADER_2
    }

    fn put(&mut self, at: usize, little_endian: &[u8]) {
        let place = &mut self.header[at..at + little_endian.len()];
        place.copy_from_slice(little_endian);
        if self.big_endian {
            place.reverse();
        }
    }

    /// Numbers in a row, of 64 bits in NIfTI-2, else of 32.
    fn floats(&mut self, at: usize, values: &[f64]) {
        for (place, &value) in values.iter().enumerate() {
            match self.is_version_2() {
                true => self.put(at + 8 * place, &value.to_le_bytes()),
                false => self.put(at + 4 * place, &(value as f32).to_le_bytes()),
            }
        }
    }

    /// A code of 32 bits in NIfTI-2, else of 16.
    fn code(&mut self, at: usize, code: i16) {
        match self.is_version_2() {
            true => self.put(at, &i32::from(code).to_le_bytes()),
            false => self.put(at, &code.to_le_bytes()),
        }
    }

    /// One volume of three dimensions.
    pub(super) fn dims(&mut self, dims: [usize; 3]) {
        let sides = [3, dims[0], dims[1], dims[2], 1, 1, 1, 1];
        for (place, side) in sides.into_iter().enumerate() {
            match self.is_version_2() {
                true => self.put(16 + 8 * place, &(side as i64).to_le_bytes()),
                false => self.put(40 + 2 * place, &(side as u16).to_le_bytes()),
            }
        }
    }

    /// Values of another type, without scaling; what the header said of their range goes.
    pub(super) fn values(&mut self, datatype: i16, bits: i16) {
        let (types, [slope, intercept, most, least]) = match self.is_version_2() {
            true => (12, [176, 184, 192, 200]),
            false => (70, [112, 116, 124, 128]),
        };
        self.put(types, &datatype.to_le_bytes());
        self.put(types + 2, &bits.to_le_bytes());
        self.floats(slope, &[1.0]);
        [intercept, most, least]
            .into_iter()
            .for_each(|at| self.floats(at, &[0.0]));
    }

    /// An affine to millimetres, and no other word of space.
    pub(super) fn space(&mut self, affine: &Affine) {
        let (distances, forms, rows, units) = match self.is_version_2() {
            true => (104, [344, 348], 400, if self.big_endian { 503 } else { 500 }),
            false => (76, [252, 254], 280, 123),
        };
        let [x, y, z] = [0, 1, 2].map(|axis| column_length(affine, axis));
        self.floats(distances, &[1.0, x, y, z]);
        self.code(forms[0], 0);
        self.code(forms[1], 1);
        self.floats(rows, affine.as_flattened());
        self.header[units] = 2;
    }

    /// The file: the header, no extensions (they may speak of what was there before), and the voxels.
    pub(super) fn followed_by(mut self, voxels: &[u8]) -> Vec<u8> {
        let start = self.header.len() + NO_EXTENSIONS.len();
        match self.is_version_2() {
            true => self.put(168, &(start as i64).to_le_bytes()),
            false => self.put(108, &(start as f32).to_le_bytes()),
        }
        let mut file = self.header;
        file.extend(NO_EXTENSIONS);
        file.extend(voxels);
        file
    }
}
