//! A report of one run or of several: one HTML file that needs nothing else, and an RO-Crate description of each run's
//! folder.
//!
//! Everything is taken from what the runs left behind, so that the same folders give the same report, to the byte.

mod comparison;
pub mod crate_metadata;
mod details;
mod figures;
mod format;
mod page;
pub mod papers;
mod pictures;
pub(crate) mod plots;
mod runs;
mod site_tables;
mod sites;
mod tables;
mod variant;
mod verdicts;

use std::path::Path;

use serde::Serialize;

pub use comparison::{ClassFigures, Comparison, DataKind, Experiment, Fewer, Group, Point, Spread, SurfaceFigures};
pub use crate_metadata::{CRATE_FILE, write_crate};
pub use figures::files as figure_files;
pub(crate) use format::{count, grouped};
pub use page::page;
pub use pictures::{Contour, Picture, Source};
pub use runs::{LeftOut, RunFolder, find_runs};
pub use sites::{Cell, LeftOutRow, LeftOutSites, ModelRow, SiteBySite, TestSite};
pub use variant::Departure;

use crate::error::Result;
use crate::verification::claims::ours::OursJudged;
use crate::verification::claims::{Judged, NotCounted};

/// All that a report says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The runs, by the data that they were judged on: only those of one data set can be compared.
    pub comparisons: Vec<Comparison>,
    /// The paper's claims, judged by these runs; none hides their section.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Judged>,
    /// Claims of ours, apart from those.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ours: Vec<OursJudged>,
    /// Runs below the folder that cannot be shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The runs that no claim is judged by.
    #[serde(skip)]
    pub not_counted: Vec<NotCounted>,
}

impl Report {
    /// Reads the run folder `root`, or every run below it. The report says nothing of claims; whoever judges them puts
    /// them in.
    ///
    /// # Errors
    /// There is no run, or none whose own files can be read and belong together. Of several, those that do not are left out;
    /// what only pictures need may be missing. The report says so.
    pub fn gather(root: &Path, source: &Source) -> Result<Self> {
        let (runs, left_out) = find_runs(root)?;
        Ok(Self {
            comparisons: Comparison::of(runs, source),
            left_out,
            claims: Vec::new(),
            ours: Vec::new(),
            not_counted: Vec::new(),
        })
    }

    /// Every run of the report.
    pub fn runs(&self) -> impl Iterator<Item = &RunFolder> {
        let experiments = self.comparisons.iter().flat_map(|comparison| &comparison.experiments);
        experiments.flat_map(|experiment| &experiment.runs)
    }
}
