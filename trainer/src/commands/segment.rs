use std::path::PathBuf;

use flapsam_model::adapter::Adapter;
use flapsam_model::checkpoint::sha256;
use flapsam_model::labels::{Found, found};
use flapsam_model::segment::segment;
use flapsam_model::volume::VoxelBox;
use serde::Serialize;

use super::scan_args::ScanArgs;
use super::{Outcome, print_json};
use crate::data::cases::scan::MaskFormat;
use crate::data::dicom::segmentation::About;
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::files::{read, refuse_input, write};
use crate::progress::Progress;
use crate::shipped::{NANO, shipped};
use crate::state_dict::read_state_dict;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    scan: ScanArgs,
    /// The adapter of a run.
    #[arg(long)]
    adapter: PathBuf,
    /// The base checkpoint that the adapter was made for.
    #[arg(long, default_value_os_t = shipped(NANO))]
    base: PathBuf,
    /// Where the mask goes: NIfTI with the scan's shape and affine, gzipped if its name says so (.nii.gz), or of a DICOM
    /// series a DICOM segmentation (.dcm).
    #[arg(long, short)]
    out: PathBuf,
    /// Put the patient's name, number, sex and birth date, and the study's date and numbers, into the DICOM segmentation.
    /// Without it they are empty there; the study's and series' UIDs always go in, since they say what it belongs to.
    #[arg(long)]
    with_patient: bool,
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

pub fn run(args: Args) -> Result<Outcome> {
    let format = MaskFormat::of(&args.out)?;
    refuse_input(&args.out, &[&args.scan.scan, &args.adapter, &args.base])?;
    let source = args.scan.open()?;
    source.check_output(&args.out, format)?;
    let adapter_bytes = read(&args.adapter)?;
    let adapter = Adapter::from_bytes(&adapter_bytes).map_err(Error::content(&args.adapter))?;
    let (base, base_sha256) = read_state_dict(&args.base)?;
    let part = args.part.as_ref();
    let (whole, volume) = source.read(part, &adapter.metadata.preprocessing)?;
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
    let about = About {
        classes: &metadata.classes,
        model_sha256: &sha256(&adapter_bytes),
        with_patient: args.with_patient,
    };
    write(&args.out, &source.mask(&whole, &labels, format, &about)?)?;

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
