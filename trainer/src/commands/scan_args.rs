use std::path::PathBuf;

use crate::data::cases::scan::Scan;
use crate::error::Result;

/// Which scan is meant.
#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// The scan: NIfTI, gzipped or not, or a DICOM file or folder.
    pub scan: PathBuf,
    /// Which volume of a NIfTI file of several, from 0.
    #[arg(long)]
    volume: Option<usize>,
    /// Which series of a DICOM folder of several, by its description, number or UID.
    #[arg(long, value_name = "NAME", conflicts_with = "volume")]
    series: Option<String>,
}

impl ScanArgs {
    /// Opens it.
    ///
    /// # Errors
    /// See [`Scan::open`].
    pub fn open(&self) -> Result<Scan> {
        Scan::open(&self.scan, self.volume, self.series.as_deref())
    }
}
