use std::path::{Path, PathBuf};

use flapsam_model::adapter::Adapter;
use flapsam_model::labels::{Found, found};
use flapsam_model::memory::Content;
use flapsam_model::segment::segment;
use flapsam_model::volume::{Packing, Volume, VoxelBox};
use serde::Serialize;

use super::{Outcome, print_json};
use crate::data::cases::dataset::volume_of;
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::files::{read, refuse_input, write};
use crate::progress::Progress;
use crate::state_dict::read_state_dict;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The scan, NIfTI, gzipped or not.
    scan: PathBuf,
    /// The adapter of a run.
    #[arg(long)]
    adapter: PathBuf,
    /// The base checkpoint that the adapter was made for.
    #[arg(long, default_value = "golden/nano.safetensors")]
    base: PathBuf,
    /// Where the mask goes: NIfTI with the scan's shape and affine, gzipped if its name says so (.nii.gz).
    #[arg(long, short)]
    out: PathBuf,
    /// Which volume of a series, from 0.
    #[arg(long)]
    volume: Option<usize>,
    /// The part of the scan to segment, for an adapter that was trained on boxes: start:stop in voxels from 0 along each of
    /// the file's axes, such as "56:82 46:65 25:44". The mask is 0 around it.
    #[arg(long = "box", value_name = "BOX")]
    part: Option<VoxelBox>,
    /// The site whose intensities the scan has, for an adapter that was trained with a window for each site.
    #[arg(long)]
    site: Option<String>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    mask: PathBuf,
    device: String,
    classes: Vec<Found>,
}

/// How a mask of this name is packed.
pub(super) fn packing(path: &Path) -> Result<Packing> {
    let name = path.to_string_lossy().to_lowercase();
    if name.ends_with(".nii.gz") {
        Ok(Packing::Gzip)
    } else if name.ends_with(".nii") {
        Ok(Packing::Plain)
    } else {
        let why = "a mask is NIfTI; give it a name that ends in .nii.gz, or in .nii for one that is not gzipped";
        Err(Error::invalid(path, why))
    }
}

pub fn run(args: Args) -> Result<Outcome> {
    let packing = packing(&args.out)?;
    refuse_input(&args.out, &[&args.scan, &args.adapter, &args.base])?;
    let adapter = Adapter::from_bytes(&read(&args.adapter)?).map_err(Error::content(&args.adapter))?;
    let (base, base_sha256) = read_state_dict(&args.base)?;
    let bytes = read(&args.scan)?;
    let whole = Volume::claimed(&bytes, args.volume).map_err(Error::content(&args.scan))?;
    let part = args.part.as_ref();
    let volume = volume_of(
        &args.scan,
        &bytes,
        args.volume,
        part,
        &adapter.metadata.preprocessing,
        Content::Scan,
    )?;
    volume.check_finite().map_err(Error::content(&args.scan))?;
    let device = OpenDevice::open(args.device)?;
    let sam = adapter
        .network(&base, &base_sha256, &device.device)
        .map_err(Error::content(&args.adapter))?;

    let metadata = &adapter.metadata;
    let preprocessing = &metadata.preprocessing;
    let scan = preprocessing.prepare(&volume, args.site.as_deref())?;
    let progress = Progress::new(scan.slices.dims[0]);
    let mut shown = 0;
    let labels = segment(
        &sam,
        &scan.slices,
        preprocessing.scaling,
        metadata.sam.image_size,
        &device.device,
        |done, _| {
            (shown..done).for_each(|_| progress.step("segmenting"));
            shown = shown.max(done);
            true
        },
    );
    let labels = pollster::block_on(labels)?.unwrap_or_default();
    drop(progress);
    let labels = scan.restore(&labels);
    let labels = match part {
        Some(part) => part.restore(&labels, whole.dims),
        None => labels,
    };
    write(&args.out, &whole.mask_to_nifti(&labels, packing))?;

    let report = Report {
        classes: found(&labels, &metadata.classes, volume.voxel_mm3()),
        mask: args.out,
        device: device.name,
    };
    match args.json {
        true => print_json(&report)?,
        false => print_report(&report),
    }
    Ok(Outcome::Passed)
}

fn print_report(report: &Report) {
    println!("{} on {}", report.mask.display(), report.device);
    for found in &report.classes {
        println!("{}: {} voxels, {:.1} ml", found.class, found.voxels, found.millilitres);
    }
}
