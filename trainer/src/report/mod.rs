//! A report of one run or of several: one HTML file that needs nothing else, and an RO-Crate description of each run's
//! folder.
//!
//! Everything is taken from what the runs left behind, so that the same folders give the same report, to the byte.

mod comparison;
mod crate_metadata;
mod page;
mod pictures;
mod plots;
mod runs;

use std::path::Path;

use serde::Serialize;

pub use comparison::{ClassFigures, Comparison, DataKind, Experiment, Fewer, Point, Spread};
pub use crate_metadata::{CRATE_FILE, write_crate};
pub use page::page;
pub use pictures::{Contour, Picture, Source};
pub use runs::{RunFolder, find_runs};

use crate::error::Result;

/// All that a report says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The runs, by the data that they were judged on: only those of one data set can be compared.
    pub comparisons: Vec<Comparison>,
    /// Claims that were checked; none hides their section.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimRow>,
}

/// A claim of the paper beside what was found here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimRow {
    /// A short name.
    pub id: String,
    /// What is claimed.
    pub statement: String,
    /// The paper's figure, in words.
    pub paper: String,
    /// Ours.
    pub ours: String,
    /// What the two come to.
    pub verdict: Verdict,
}

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds here.
    Holds,
    /// It does not.
    Fails,
    /// It could not be tested with these runs.
    Untested,
}

impl Report {
    /// Reads the run folder `root`, or every run below it.
    ///
    /// # Errors
    /// There is no run, or a run's own files cannot be read or contradict each other. What only pictures need may be
    /// missing; the report says so.
    pub fn gather(root: &Path, source: &Source, claims: Vec<ClaimRow>) -> Result<Self> {
        let comparisons = Comparison::of(find_runs(root)?, source);
        Ok(Self { comparisons, claims })
    }

    /// Every run of the report.
    pub fn runs(&self) -> impl Iterator<Item = &RunFolder> {
        let experiments = self.comparisons.iter().flat_map(|comparison| &comparison.experiments);
        experiments.flat_map(|experiment| &experiment.runs)
    }
}
