//! Volumes and their labels, from files.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use flapsam_model::labels;
use flapsam_model::memory::{self, Content};
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::{Slices, Volume, VoxelBox};

use crate::data::manifest::label_ids::LabelIds;
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
    volume_of(path, &read(path)?, index, None, preprocessing, Content::Scan)
}

/// The volume in a NIfTI file's bytes, or the part of it in a box, if there is memory for it and for what is to be done
/// with it.
///
/// # Errors
/// It is no volume, the box reaches out of it, or it takes more memory than is free.
pub fn volume_of(
    path: &Path,
    bytes: &[u8],
    index: Option<usize>,
    crop: Option<&VoxelBox>,
    preprocessing: &Preprocessing,
    content: Content,
) -> Result<Volume> {
    let cropped = |volume: Volume| match crop {
        Some(part) => volume.cropped(part).map_err(Error::content(path)),
        None => Ok(volume),
    };
    let claimed = Volume::claimed(bytes, index).map_err(Error::content(path))?;
    let [i, j, k] = claimed.dims;
    let whole = memory::host(claimed.dims, bytes.len());
    let resampling = preprocessing.resampling_bytes(&cropped(claimed)?, content);
    let needed = whole.saturating_add(resampling.map_err(Error::content(path))?);
    enough_memory(needed as u64).map_err(|why| Error::invalid(path, format!("with {i} x {j} x {k} voxels {why}")))?;
    cropped(Volume::from_nifti(bytes, index).map_err(Error::content(path))?)
}

/// Reads a case from the data set's folder and prepares it.
///
/// # Errors
/// A file cannot be read, is not the one of the manifest, holds voxels that are no numbers, or the two do not belong
/// together.
pub fn read_case(folder: &Path, case: &Case, classes: usize, preprocessing: &Preprocessing) -> Result<LabelledCase> {
    let (scan, labels) = read_pair(folder, case, classes, preprocessing)?;
    LabelledCase::new(scan, labels, &case.site, classes, preprocessing)
        .map_err(Error::content(&folder.join(&case.image.path)))
}

/// Reads a case's scan and labels from the data set's folder: of its files the part that it is, and its label ids as
/// classes.
///
/// # Errors
/// As of [`read_case`].
pub fn read_pair(
    folder: &Path,
    case: &Case,
    classes: usize,
    preprocessing: &Preprocessing,
) -> Result<(Volume, Volume)> {
    let read = |file, content| read_checked(folder, file, case.crop.as_ref(), preprocessing, content);
    let (image_path, scan) = read(&case.image, Content::Scan)?;
    let (label_path, labels) = read(&case.label, Content::Labels(classes))?;
    let labels = labels_of(&image_path, &scan, &label_path, labels, case.label_ids.as_ref())?;
    Ok((scan, labels))
}

impl LabelledCase {
    /// Prepares a scan and its labels.
    ///
    /// # Errors
    /// Sites have ranges of their own, and this one has none; or the scan has too many voxels at the wanted spacing.
    pub fn new(
        scan: Volume,
        mut labels: Volume,
        site: &str,
        classes: usize,
        preprocessing: &Preprocessing,
    ) -> std::result::Result<Self, flapsam_model::Error> {
        // They lie where their scan does, whatever their own header rounds to.
        labels.affine = scan.affine;
        let mut grid = preprocessing.on_grid(scan)?;
        let mut slices = grid.to_slices();
        grid.voxels = Vec::new();
        preprocessing.window(&mut slices, Some(site))?;
        let voxels = preprocessing.labels_on_grid(labels, classes)?.voxels;
        let label = |index: usize| voxels[index] as u8;
        let labels = grid.axial().indices().map(label).collect();
        Ok(Self { grid, slices, labels })
    }
}

/// Reads a volume whose checksum, where it is known, must be the manifest's.
fn read_checked(
    folder: &Path,
    file: &DataFile,
    crop: Option<&VoxelBox>,
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
    let volume = volume_of(&path, &bytes, None, crop, preprocessing, content)?;
    Ok((path, volume))
}

/// The classes of a scan's voxels: its labels, or what their ids stand for.
///
/// # Errors
/// The scan holds voxels that are no numbers, the labels values that are no ids, or the two do not belong together, see
/// [`labels::check_pair`].
pub fn labels_of(
    image: &Path,
    scan: &Volume,
    label: &Path,
    mut labels: Volume,
    ids: Option<&LabelIds>,
) -> Result<Volume> {
    scan.check_finite().map_err(Error::content(image))?;
    if let Some(ids) = ids {
        ids.to_classes(&mut labels).map_err(Error::content(label))?;
    }
    labels::check_pair(scan, &image.display().to_string(), &labels).map_err(Error::content(label))?;
    Ok(labels)
}
