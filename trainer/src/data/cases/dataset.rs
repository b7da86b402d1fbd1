//! Volumes and their labels, from files.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use flapsam_model::labels;
use flapsam_model::memory::{self, Content};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Slices, Volume};

use crate::data::manifest::{Case, DataFile};
use crate::error::{Error, Result};
use crate::files::{enough_memory, read};

/// A prepared scan and its labels in axial order.
#[derive(Debug, Clone)]
pub struct LabelledCase {
    /// The scan's grid; its values are in `slices` only.
    pub grid: Volume,
    /// Its values.
    pub slices: Slices,
    /// Its labels.
    pub labels: Vec<u8>,
}

/// Reads a NIfTI file; a series is refused unless `index` names one of its volumes.
///
/// # Errors
/// The file cannot be read, or see [`volume_of`].
pub fn read_volume(path: &Path, index: Option<usize>, preprocessing: &Preprocessing) -> Result<Volume> {
    volume_of(path, &read(path)?, index, preprocessing, Content::Scan)
}

/// The volume in a NIfTI file's bytes, if there is memory for it and for what is to be done with it.
///
/// # Errors
/// It is no volume, or takes more memory than is free.
pub fn volume_of(
    path: &Path,
    bytes: &[u8],
    index: Option<usize>,
    preprocessing: &Preprocessing,
    content: Content,
) -> Result<Volume> {
    let dims = Volume::claimed_dims(bytes, index).map_err(Error::content(path))?;
    let needed = memory::host(dims, bytes.len(), preprocessing.resample, content);
    enough_memory(needed as u64).map_err(|why| {
        let [i, j, k] = dims;
        Error::invalid(path, format!("with {i} x {j} x {k} voxels {why}"))
    })?;
    Volume::from_nifti(bytes, index).map_err(Error::content(path))
}

/// Reads a case from the data set's folder and prepares it.
///
/// # Errors
/// A file cannot be read, is not the one of the manifest, holds voxels that are no numbers, or the two do not belong
/// together.
pub fn read_case(folder: &Path, case: &Case, classes: usize, preprocessing: &Preprocessing) -> Result<LabelledCase> {
    let (image_path, scan) = read_checked(folder, &case.image, preprocessing, Content::Scan)?;
    let (label_path, labels) = read_checked(folder, &case.label, preprocessing, Content::Labels(classes))?;
    scan.check_finite().map_err(Error::content(&image_path))?;
    check_pair(&image_path, &scan, &label_path, &labels)?;
    LabelledCase::new(scan, labels, &case.site, classes, preprocessing).map_err(Error::content(&image_path))
}

impl LabelledCase {
    /// Prepares a scan and its labels.
    ///
    /// # Errors
    /// Sites have ranges of their own, and this one has none.
    pub fn new(
        scan: Volume,
        mut labels: Volume,
        site: &str,
        classes: usize,
        preprocessing: &Preprocessing,
    ) -> std::result::Result<Self, flapsam_model::Error> {
        // They lie where their scan does, whatever their own header rounds to.
        labels.affine = scan.affine;
        let mut grid = preprocessing.on_grid(scan);
        let mut slices = grid.to_slices();
        grid.voxels = Vec::new();
        preprocessing.window(&mut slices, Some(site))?;
        let voxels = preprocessing.labels_on_grid(labels, classes).voxels;
        let label = |index: usize| voxels[index] as u8;
        let labels = grid.axial().indices().map(label).collect();
        Ok(Self { grid, slices, labels })
    }
}

/// Reads a volume whose checksum, where it is known, must be the manifest's.
fn read_checked(
    folder: &Path,
    file: &DataFile,
    preprocessing: &Preprocessing,
    content: Content,
) -> Result<(PathBuf, Volume)> {
    let path = folder.join(&file.path);
    let bytes = read(&path)?;
    if let Some(expected) = &file.sha256 {
        let found = sha256(&bytes);
        if found != *expected {
            let why = format!("its sha256 is {found}, not {expected}; 'flapsam data verify' lists all that changed");
            return Err(Error::invalid(&path, why));
        }
    }
    let volume = volume_of(&path, &bytes, None, preprocessing, content)?;
    Ok((path, volume))
}

/// Refuses a scan and labels that do not belong together, see [`labels::check_pair`].
///
/// # Errors
/// They do not belong together.
pub fn check_pair(image: &Path, scan: &Volume, label: &Path, labels: &Volume) -> Result<()> {
    labels::check_pair(scan, &image.display().to_string(), labels).map_err(Error::content(label))
}
