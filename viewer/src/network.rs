//! A base and its adapter, checked and loaded; and a scan, segmented.

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::burn::tensor::Device;
use flapsam_model::checkpoint::{base_sha256, official, read_safetensors, sha256};
use flapsam_model::labels::{Found, found};
use flapsam_model::memory;
use flapsam_model::sam::Sam;
use flapsam_model::segment::{BATCH, STACK, Scaling, Segmentation};
use flapsam_model::volume::Packing;
use serde::Serialize;

use crate::Error;
use crate::device::Limits;
use crate::promised::{BASE, Promised, SCAN};

/// An adapted network on a device.
#[derive(Debug)]
pub struct Network {
    /// How the adapter was made and is used.
    pub metadata: AdapterMetadata,
    sam: Sam,
    device: Device,
}

impl Network {
    /// Checks both files and puts the network on the device. The base is the very file that the adapter was made for,
    /// or that file in half precision as `flapsam export --format base-f16` writes it.
    ///
    /// # Errors
    /// A file is not the promised one, cannot be read, or does not belong to the other.
    pub fn load(base: Promised, adapter: Promised, device: &Device) -> Result<Self, Error> {
        const ADAPTER: &str = "the adapter";
        base.check(BASE)?;
        adapter.check(ADAPTER)?;
        let adapter = Adapter::from_bytes(adapter.bytes).map_err(Error::content(ADAPTER))?;
        let (state, notes) = read_safetensors(base.bytes).map_err(Error::content(BASE))?;
        let state = official(state).map_err(Error::content(BASE))?;
        // A promise that was kept needs no second look.
        let own = || base.sha256.map_or_else(|| sha256(base.bytes), str::to_owned);
        let sam = adapter
            .network(&state, &base_sha256(&notes, own), device)
            .map_err(Error::content(ADAPTER))?;
        Ok(Self {
            metadata: adapter.metadata,
            sam,
            device: device.clone(),
        })
    }

    /// Segments a NIfTI scan of a site. `progress` is told slices done and slices in all, and stops the work by
    /// returning false; then the result is `None`.
    ///
    /// # Errors
    /// The scan cannot be read, is too large for the limits, or the device stopped.
    pub async fn segment(
        &self,
        scan: Promised<'_>,
        site: Option<&str>,
        limits: Limits,
        mut progress: impl AsyncFnMut(usize, usize) -> Result<bool, Error>,
    ) -> Result<Option<Segmented>, Error> {
        let preprocessing = &self.metadata.preprocessing;
        let volume = scan.volume(limits, preprocessing)?;
        let prepared = preprocessing.prepare(&volume, site).map_err(Error::content(SCAN))?;
        let [count, rows, columns] = prepared.slices.dims;
        let batch = self.batch([rows, columns], limits)?;
        let (scaling, side) = (preprocessing.scaling, self.metadata.sam.image_size);
        let mut work = Segmentation::new(&self.sam, &prepared.slices, scaling, side, &self.device, batch);
        if !progress(0, count).await? {
            return Ok(None);
        }
        while let Some(done) = work.step().await.map_err(Error::content(SCAN))? {
            if !progress(done, count).await? {
                return Ok(None);
            }
        }
        let labels = work.labels();
        let grid_mask = match preprocessing.grid_for(&volume).map_err(Error::content(SCAN))? {
            None => None,
            Some(_) => {
                let mut grid = preprocessing.on_grid(volume.clone()).map_err(Error::content(SCAN))?;
                grid.voxels = Vec::new();
                Some(grid.mask_to_nifti(&grid.axial().restore(&labels), Packing::Gzip))
            }
        };
        let labels = prepared.restore(&labels);
        Ok(Some(Segmented {
            classes: found(&labels, &self.metadata.classes, volume.voxel_mm3()),
            mask: volume.mask_to_nifti(&labels, Packing::Gzip),
            grid_mask,
        }))
    }

    /// How many slices at a time the device can take.
    fn batch(&self, pixels: [usize; 2], limits: Limits) -> Result<usize, Error> {
        let (sam, adapter) = (&self.metadata.sam, &self.metadata.adapter);
        let largest = |batch: usize| memory::largest_tensor(sam, adapter, batch, pixels);
        let fits = |batch: &usize| limits.allow(largest(*batch));
        let sizes = match self.metadata.preprocessing.scaling {
            Scaling::Volume => 1..=BATCH,
            // A stack goes through the network as a whole.
            Scaling::Stack => STACK..=STACK,
        };
        let least = *sizes.start();
        sizes
            .rev()
            .find(fits)
            .ok_or_else(|| limits.refuse(largest(least), pixels))
    }
}

/// A segmented scan.
#[derive(Debug, Clone, Serialize)]
pub struct Segmented {
    /// NIfTI with the scan's own grid, axes, affine and header.
    #[serde(skip)]
    pub mask: Vec<u8>,
    /// The same on the grid that the network worked on, if that is another: what the native program keeps of a run.
    #[serde(skip)]
    pub grid_mask: Option<Vec<u8>>,
    /// What was found, by foreground class.
    pub classes: Vec<Found>,
}

#[cfg(test)]
mod tests;
