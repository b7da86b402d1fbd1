use std::path::PathBuf;

use flapsam_model::preprocessing::Preprocessing;
use rayon::prelude::*;

use super::{Outcome, print_made};
use crate::data::cases::dataset::read_volume;
use crate::data::manifest::croissant::{About, FileSet, Licence};
use crate::data::manifest::{Case, DataFile, Manifest};
use crate::data::synthetic::labels_to_ct::{scan_of, scanner};
use crate::error::{Error, Result};
use crate::files::{read, refuse_input};
use crate::folder_lock::FolderLock;
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of real segmentations: CASE/segmentation.nii.gz, labels 1 kidney and 2 tumour.
    labels: PathBuf,
    /// Table of cases with the columns case_id, site and split (such as Fed-KiTS's).
    #[arg(long)]
    cases: PathBuf,
    /// Folder of data sets; this one gets a folder of its own in it.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// The manifest goes into this folder.
    #[arg(long)]
    manifest: PathBuf,
    /// Seed of everything that is painted.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let chosen = chosen(&args)?;
    let folder = args.data.join("labels-to-ct");
    refuse_input(&folder, &[&args.labels])?;
    let _lock = FolderLock::take(&folder)?;
    let progress = Progress::new(chosen.len());
    let make = |(id, site, train): &(String, String, bool)| {
        let source = args.labels.join(id).join("segmentation.nii.gz");
        let labels = read_volume(&source, None, &Preprocessing::default())?;
        let scan = scan_of(&labels, scanner(site)?, args.seed, id);
        let file = |name: &str, bytes: Vec<u8>| DataFile::write(&folder, format!("{id}/{name}"), &bytes);
        let case = Case {
            id: id.clone(),
            site: site.clone(),
            train: *train,
            slices: scan.axial().dims[0],
            image: file("imaging.nii.gz", scan.to_nifti_i16())?,
            label: file("segmentation.nii.gz", read(&source)?)?,
            patient: None,
            crop: None,
            label_ids: None,
        };
        progress.step(id);
        Ok(case)
    };
    let manifest = Manifest {
        about: About {
            name: "labels-to-ct".into(),
            description: "Semi-synthetic: intensities painted by 'flapsam labels-to-ct' on real segmentations. The \
                          labels are of patients, the scans are not."
                .into(),
            license: Licence::One("https://spdx.org/licenses/CC-BY-NC-SA-4.0".into()),
            url: Some("https://github.com/neheller/kits19".into()),
            version: "1.0.0".into(),
            date_published: "2026-11-22".into(),
            cite_as: "Heller et al., The KiTS19 Challenge Data, arXiv 1904.00445 (the labels only)".into(),
        },
        files: Vec::new(),
        sources: Vec::new(),
        origins: Vec::new(),
        sets: vec![
            FileSet::nifti("images", "Semi-synthetic CT in HU.", "*/imaging.nii.gz"),
            FileSet::nifti(
                "labels",
                "1 is kidney, 2 is tumour; as published.",
                "*/segmentation.nii.gz",
            ),
        ],
        classes: ["background", "kidney", "tumour"].map(str::to_owned).into(),
        cases: chosen.par_iter().map(make).collect::<Result<_>>()?,
        sha256: String::new(),
    };
    manifest.write(&args.manifest)?;
    print_made(&manifest, &args.data, "semi-synthetic", args.json)?;
    Ok(Outcome::Passed)
}

/// What is read of the table's rows; other columns may be there.
#[derive(Debug, serde::Deserialize)]
struct Row {
    case_id: String,
    site: String,
    split: String,
}

/// The table's cases that are in the folder: name, site, whether for training.
fn chosen(args: &Args) -> Result<Vec<(String, String, bool)>> {
    let bytes = read(&args.cases)?;
    let rows: std::result::Result<Vec<Row>, csv::Error> = csv::Reader::from_reader(&bytes[..]).deserialize().collect();
    let rows = rows.map_err(|why| {
        let why = format!("{why}; it must be a table with the columns case_id, site and split");
        Error::invalid(&args.cases, why)
    })?;
    let mut found: Vec<_> = rows
        .into_iter()
        .filter(|row| args.labels.join(&row.case_id).join("segmentation.nii.gz").is_file())
        .map(|row| (row.case_id, row.site, row.split == "train"))
        .collect();
    found.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    match found.is_empty() {
        true => Err(Error::invalid(
            &args.labels,
            "it holds no CASE/segmentation.nii.gz of a case in the table",
        )),
        false => Ok(found),
    }
}
