use std::path::{Path, PathBuf};

use flapsam_model::volume::Packing;
use rayon::prelude::*;

use super::{Outcome, print_made};
use crate::data::manifest::croissant::{About, FileSet, Licence};
use crate::data::manifest::{Case, DataFile, Manifest};
use crate::data::synthetic::phantom::{PhantomCase, cases};
use crate::error::Result;
use crate::folder_lock::FolderLock;
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of data sets; the phantom gets a folder of its own in it.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// Also write the manifest, into this folder.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let manifest = make(&args.data)?;
    if let Some(folder) = args.manifest {
        manifest.write(&folder)?;
    }
    print_made(&manifest, &args.data, "synthetic", args.json)?;
    Ok(Outcome::Passed)
}

/// Makes the phantom's files. The same program gives the same bytes.
pub fn make(data: &Path) -> Result<Manifest> {
    let all = cases();
    let folder = data.join("phantom");
    let _lock = FolderLock::take(&folder)?;
    let progress = Progress::new(all.len());
    let make = |case: &PhantomCase| {
        let (volume, labels) = case.make();
        let file = |name: &str, bytes: Vec<u8>| DataFile::write(&folder, format!("{}/{name}", case.id), &bytes);
        let made = Case {
            id: case.id.clone(),
            site: case.scanner.site.to_string(),
            train: case.train,
            slices: volume.axial().dims[0],
            image: file("imaging.nii.gz", volume.to_nifti_i16())?,
            label: file("segmentation.nii.gz", volume.mask_to_nifti(&labels, Packing::Gzip))?,
            patient: None,
            crop: None,
            label_ids: None,
        };
        progress.step(&case.id);
        Ok(made)
    };
    Ok(Manifest {
        about: About {
            name: "phantom".into(),
            description: "Synthetic: procedural abdominal CT of six sites, made from seeds by 'flapsam phantom'. No \
                          patient is in it."
                .into(),
            license: Licence::One("https://spdx.org/licenses/CC0-1.0".into()),
            url: None,
            version: "1.0.0".into(),
            date_published: "2026-11-22".into(),
            cite_as: "flapsam, the phantom data set (synthetic), version 1.0.0".into(),
        },
        files: Vec::new(),
        sources: Vec::new(),
        origins: Vec::new(),
        sets: vec![
            FileSet::nifti("images", "Synthetic CT in HU.", "*/imaging.nii.gz"),
            FileSet::nifti("labels", "1 is kidney, 2 is tumour.", "*/segmentation.nii.gz"),
        ],
        classes: ["background", "kidney", "tumour"].map(str::to_owned).into(),
        cases: all.par_iter().map(make).collect::<Result<_>>()?,
        sha256: String::new(),
    })
}
