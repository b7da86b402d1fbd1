//! Volumes and their labels, from files.

use std::path::Path;

use flapsam_model::volume::{Slices, Volume};

use super::manifest::Case;
use crate::error::{Error, Result};
use crate::files::read;

/// A scan and its labels in axial order.
#[derive(Debug, Clone)]
pub struct LabelledCase {
    /// The scan's file, for its grid.
    pub volume: Volume,
    /// Its values in axial order.
    pub slices: Slices,
    /// Its labels in axial order.
    pub labels: Vec<u8>,
}

/// Reads a NIfTI file; a series is refused unless `index` names one of its volumes.
///
/// # Errors
/// The file cannot be read, or is no volume.
pub fn read_volume(path: &Path, index: Option<usize>) -> Result<Volume> {
    Volume::from_nifti(&read(path)?, index).map_err(Error::content(path))
}

/// Reads a case from the data set's folder.
///
/// # Errors
/// A file cannot be read, holds voxels that are no numbers, or the two differ in shape.
pub fn read_case(folder: &Path, case: &Case, classes: usize) -> Result<LabelledCase> {
    let (image_path, label_path) = (folder.join(&case.image.path), folder.join(&case.label.path));
    let volume = read_volume(&image_path, None)?;
    volume.check_finite().map_err(Error::content(&image_path))?;
    let labels = read_volume(&label_path, None)?;
    if labels.dims != volume.dims {
        let why = format!(
            "its shape {:?} is not that of its scan {}, {:?}; take both from the same export",
            labels.dims,
            image_path.display(),
            volume.dims
        );
        return Err(Error::invalid(&label_path, why));
    }
    let slices = volume.to_slices();
    let labels = labels.to_slices().values.into_iter();
    // Labels above the last class are merged into it (method section "Data sets").
    let labels = labels
        .map(|label| label.clamp(0.0, classes as f32 - 1.0) as u8)
        .collect();
    Ok(LabelledCase { volume, slices, labels })
}
