//! A scan that a user names: NIfTI, or a DICOM series.

use std::path::{Path, PathBuf};

use flapsam_model::memory::Content;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Packing, Volume, VoxelBox};

use super::dataset::volume_of;
use crate::data::dicom::segmentation::{self, About};
use crate::data::dicom::series::{Series, is_dicom};
use crate::error::{Error, Result};
use crate::files::{enough_memory, read, refuse_input};

/// A scan that has been opened.
#[derive(Debug)]
pub struct Scan {
    path: PathBuf,
    content: Opened,
}

#[derive(Debug)]
enum Opened {
    Nifti { bytes: Vec<u8>, index: Option<usize> },
    Dicom(Box<Series>),
}

impl Scan {
    /// Opens a file or folder: of NIfTI the volume at `index`, if it holds several; of DICOM the `series` of this name, if
    /// there are several.
    ///
    /// # Errors
    /// It cannot be read, or is not what it was asked for as.
    pub fn open(path: &Path, index: Option<usize>, series: Option<&str>) -> Result<Self> {
        let content = match (is_dicom(path), index, series) {
            (true, None, series) => Opened::Dicom(Box::new(Series::open(path, series)?)),
            (true, Some(_), _) => {
                let why = "a DICOM series is one volume; name another one with --series instead of --volume";
                return Err(Error::invalid(path, why));
            }
            (false, _, Some(_)) => {
                let why = "it is no DICOM folder, so it has no series; leave --series out";
                return Err(Error::invalid(path, why));
            }
            (false, index, None) => Opened::Nifti {
                bytes: read(path)?,
                index,
            },
        };
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// The whole scan's grid, and the part of the scan that is meant, with finite values.
    ///
    /// # Errors
    /// It is no volume, the box reaches out of it, it holds values that are no numbers, or it takes more memory than is free.
    pub fn read(&self, part: Option<&VoxelBox>, preprocessing: &Preprocessing) -> Result<(Volume, Volume)> {
        let (whole, volume) = match &self.content {
            Opened::Nifti { bytes, index } => {
                let whole = Volume::claimed(bytes, *index).map_err(Error::content(&self.path))?;
                let volume = volume_of(&self.path, bytes, *index, part, preprocessing, Content::Scan)?;
                (whole, volume)
            }
            Opened::Dicom(series) => {
                let volume = series.volume()?;
                let whole = volume.grid();
                let volume = match part {
                    Some(part) => volume.cropped(part).map_err(Error::content(&self.path))?,
                    None => volume,
                };
                let needed = preprocessing.resampling_bytes(&volume, Content::Scan);
                let needed = needed.map_err(Error::content(&self.path))?;
                enough_memory(needed as u64).map_err(|why| Error::invalid(&self.path, why))?;
                (whole, volume)
            }
        };
        volume.check_finite().map_err(Error::content(&self.path))?;
        Ok((whole, volume))
    }

    /// Refuses a mask's file that is one of a series' files, or whose format this scan's mask cannot have.
    ///
    /// # Errors
    /// It is, or it cannot.
    pub fn check_output(&self, out: &Path, format: MaskFormat) -> Result<()> {
        match (format, &self.content) {
            (_, Opened::Dicom(series)) => refuse_input(out, &series.paths()),
            (MaskFormat::Nifti(_), Opened::Nifti { .. }) => Ok(()),
            (MaskFormat::DicomSegmentation, Opened::Nifti { .. }) => Err(self.no_series()),
        }
    }

    /// A mask of the whole scan's grid as a file.
    ///
    /// # Errors
    /// A DICOM segmentation is wanted of a scan that is NIfTI.
    pub fn mask(&self, whole: &Volume, labels: &[u8], format: MaskFormat, about: &About) -> Result<Vec<u8>> {
        match (format, &self.content) {
            (MaskFormat::Nifti(packing), _) => Ok(whole.mask_to_nifti(labels, packing)),
            (MaskFormat::DicomSegmentation, Opened::Dicom(series)) => segmentation::to_bytes(series, labels, about),
            (MaskFormat::DicomSegmentation, Opened::Nifti { .. }) => Err(self.no_series()),
        }
    }

    fn no_series(&self) -> Error {
        let why = "a DICOM segmentation names the images that it belongs to, and this scan is NIfTI; pass the DICOM folder, \
                   or an output that ends in .nii.gz";
        Error::invalid(&self.path, why)
    }
}

/// What a mask's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskFormat {
    /// With the scan's shape and affine.
    Nifti(Packing),
    /// DICOM SEG.
    DicomSegmentation,
}

impl MaskFormat {
    /// By the file's name.
    ///
    /// # Errors
    /// The name says none that is written here.
    pub fn of(path: &Path) -> Result<Self> {
        let name = path.to_string_lossy().to_lowercase();
        if name.ends_with(".nii.gz") {
            Ok(Self::Nifti(Packing::Gzip))
        } else if name.ends_with(".nii") {
            Ok(Self::Nifti(Packing::Plain))
        } else if name.ends_with(".dcm") {
            Ok(Self::DicomSegmentation)
        } else {
            let why = "a mask is NIfTI; give it a name that ends in .nii.gz, or in .nii for one that is not gzipped, or in \
                       .dcm for a DICOM segmentation";
            Err(Error::invalid(path, why))
        }
    }
}
