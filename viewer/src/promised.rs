//! Files from the page, and what they are promised to be.

use flapsam_model::checkpoint::sha256;
use flapsam_model::memory::{self, Content};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Volume;

use crate::Error;
use crate::device::{Limits, amount};

/// What messages call the files.
pub const BASE: &str = "the base checkpoint";
/// Likewise.
pub const SCAN: &str = "the scan";

/// A file, and the sha256 that it is promised to have.
#[derive(Debug, Clone, Copy)]
pub struct Promised<'a> {
    /// Its content.
    pub bytes: &'a [u8],
    /// Lower-case hexadecimal; none for a user's own file.
    pub sha256: Option<&'a str>,
}

impl Promised<'_> {
    /// # Errors
    /// Its sha256 is another.
    pub fn check(&self, file: &'static str) -> Result<(), Error> {
        let Some(expected) = self.sha256 else {
            return Ok(());
        };
        let found = sha256(self.bytes);
        if found == expected {
            return Ok(());
        }
        Err(Error::Checksum {
            file,
            found,
            expected: expected.into(),
        })
    }

    /// The scan that it holds, which is to be prepared so.
    ///
    /// # Errors
    /// It is not the promised one, cannot be read, is too large for the page's memory, or has values that are no numbers.
    pub fn volume(&self, limits: Limits, preprocessing: &Preprocessing) -> Result<Volume, Error> {
        self.check(SCAN)?;
        let claimed = Volume::claimed(self.bytes, None).map_err(Error::content(SCAN))?;
        let resampling = preprocessing.resampling_bytes(&claimed, Content::Scan);
        let dims = claimed.dims;
        let needed = memory::host(dims, self.bytes.len()).saturating_add(resampling.map_err(Error::content(SCAN))?);
        if needed > limits.host {
            return Err(Error::Memory(format!(
                "a scan of {} x {} x {} voxels needs about {} of memory, and a page may take {}; segment it with the \
                 native program: flapsam segment",
                dims[0],
                dims[1],
                dims[2],
                amount(needed),
                amount(limits.host)
            )));
        }
        let volume = Volume::from_nifti(self.bytes, None).map_err(Error::content(SCAN))?;
        volume.check_finite().map_err(Error::content(SCAN))?;
        Ok(volume)
    }
}
