use std::path::{Path, PathBuf};

use flapsam_kernels::Worker;
use flapsam_model::burn::tensor::Device;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::sam::Sam;
use flapsam_model::segment::segment;
use flapsam_model::volume::Packing;
use serde::{Deserialize, Serialize};

use super::metrics::{Grid, SurfaceDistances, dice};
use crate::data::cases::dataset::{LabelledCase, read_case};
use crate::data::cases::memory::read_all;
use crate::data::manifest::Case;
use crate::error::{Error, Result};
use crate::files::write;

/// How well one test case was segmented, by foreground class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseScores {
    /// Its site.
    pub site: String,
    /// Its name.
    pub case: String,
    /// Of whom it is, where the data set says so: one patient may have several cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Dice of the voxels.
    pub dice: Vec<f64>,
    /// Distance, mm, within which 95 % of either surface lie from the other one; none where the mask or the labels are
    /// empty. No entries where surfaces were not measured.
    #[serde(default)]
    pub hausdorff_95_mm: Vec<Option<f64>>,
    /// Share of both surfaces that lies within the experiment's tolerance of the other one; both empty is 1, one empty
    /// 0. No entries where surfaces were not measured, as on a grid whose axes are not at right angles.
    #[serde(default)]
    pub surface_dice: Vec<f64>,
}

impl CaseScores {
    /// Of whom it is: without a name of its own, a case stands for its patient.
    pub fn patient(&self) -> &str {
        self.patient.as_deref().unwrap_or(&self.case)
    }
}

/// The test cases, and how they are judged. They are read when they are judged, not kept.
#[derive(Debug)]
pub struct Examination<'a> {
    /// The data set's folder.
    pub folder: PathBuf,
    /// Its test cases.
    pub cases: Vec<&'a Case>,
    /// How many classes it has, the background included.
    pub classes: usize,
    /// How scans are prepared.
    pub preprocessing: &'a Preprocessing,
    /// The network's image size.
    pub side: usize,
    /// Where the network runs.
    pub device: &'a Device,
}

impl Examination<'_> {
    /// Segments every test case with every network; scores by network, in the order of the cases. The first network's
    /// masks go into the folder `masks`, if one is given. Surfaces are measured if a tolerance, mm, is given.
    ///
    /// # Errors
    /// A case cannot be read, or a mask not written.
    pub fn judge(
        &self,
        networks: &[Sam],
        masks: Option<&Path>,
        surface_tolerance_mm: Option<f64>,
    ) -> Result<Vec<Vec<CaseScores>>> {
        let judge = |case: &Case| {
            let _worker = Worker::new();
            let data = read_case(&self.folder, case, self.classes, self.preprocessing)?;
            let mut all = Vec::with_capacity(networks.len());
            for (place, network) in networks.iter().enumerate() {
                let failed = |why| Error::invalid(&self.folder.join(&case.image.path), why);
                let labels = self.segment(network, &data).map_err(failed)?;
                if let Some(masks) = masks.filter(|_| place == 0) {
                    let mask = data
                        .grid
                        .mask_to_nifti(&data.grid.axial().restore(&labels), Packing::Gzip);
                    write(&masks.join(&case.site).join(format!("{}.nii.gz", case.id)), &mask)?;
                }
                all.push(self.scores(case, &labels, &data, surface_tolerance_mm));
            }
            Ok(all)
        };
        let by_case: Vec<Vec<CaseScores>> = read_all(&self.cases, judge)?;
        let of_network = |place: usize| by_case.iter().map(|all| all[place].clone()).collect();
        Ok((0..networks.len()).map(of_network).collect())
    }

    fn scores(&self, case: &Case, labels: &[u8], data: &LabelledCase, surface_tolerance_mm: Option<f64>) -> CaseScores {
        let foreground = (1..self.classes).map(|class| class as u8);
        let mut scores = CaseScores {
            site: case.site.clone(),
            case: case.id.clone(),
            patient: case.patient.clone(),
            dice: foreground
                .clone()
                .map(|class| dice(labels, &data.labels, class))
                .collect(),
            hausdorff_95_mm: Vec::new(),
            surface_dice: Vec::new(),
        };
        if let Some(tolerance) = surface_tolerance_mm {
            let Some(grid) = Grid::axial(&data.grid) else {
                eprintln!(
                    "flapsam: the axes of case {} are not at right angles, so distances between surfaces are not measured",
                    case.id
                );
                scores.hausdorff_95_mm = foreground.map(|_| None).collect();
                return scores;
            };
            for class in foreground {
                let surfaces = SurfaceDistances::new(labels, &data.labels, class, grid);
                scores.hausdorff_95_mm.push(surfaces.hausdorff_95());
                scores.surface_dice.push(surfaces.dice(tolerance));
            }
        }
        scores
    }

    fn segment(&self, network: &Sam, data: &LabelledCase) -> std::result::Result<Vec<u8>, flapsam_model::Error> {
        let scaling = self.preprocessing.scaling;
        let labels = segment(network, &data.slices, scaling, self.side, self.device, |_, _| true);
        Ok(pollster::block_on(labels)?.unwrap_or_default())
    }
}

/// Means over cases, by foreground class.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanScores {
    /// Of Dice.
    pub dice: Vec<f64>,
    /// Of the Hausdorff distances, mm, that are there; none where no case has one.
    pub hausdorff_95_mm: Vec<Option<f64>>,
    /// Of how many cases that is the mean.
    pub hausdorff_95_cases: Vec<usize>,
    /// Of surface Dice.
    pub surface_dice: Vec<f64>,
}

impl MeanScores {
    /// The means over cases of the same classes.
    pub fn of<'a>(cases: impl Iterator<Item = &'a CaseScores> + Clone) -> Self {
        let mut hausdorff: Vec<Vec<f64>> = Vec::new();
        for case in cases.clone() {
            hausdorff.resize(hausdorff.len().max(case.hausdorff_95_mm.len()), Vec::new());
            let defined = hausdorff.iter_mut().zip(&case.hausdorff_95_mm);
            defined.for_each(|(all, distance)| all.extend(distance));
        }
        let mean = |all: &Vec<f64>| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        Self {
            dice: mean_dice(cases.clone()),
            hausdorff_95_mm: hausdorff.iter().map(mean).collect(),
            hausdorff_95_cases: hausdorff.iter().map(Vec::len).collect(),
            surface_dice: mean_by_class(cases.map(|case| &case.surface_dice[..])),
        }
    }
}

/// The mean Dice over cases, by class.
pub fn mean_dice<'a>(cases: impl Iterator<Item = &'a CaseScores>) -> Vec<f64> {
    mean_by_class(cases.map(|case| &case.dice[..]))
}

/// Of the cases that have values.
fn mean_by_class<'a>(cases: impl Iterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut count = 0.0;
    let mut sums: Vec<f64> = Vec::new();
    for values in cases.filter(|values| !values.is_empty()) {
        sums.resize(values.len(), 0.0);
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sums.into_iter().map(|sum| sum / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_by_class_and_of_what_is_there() {
        let case = |dice: [f64; 2], hausdorff: [Option<f64>; 3], surface: [f64; 2]| CaseScores {
            site: "A".into(),
            case: "c".into(),
            patient: None,
            dice: dice.into(),
            hausdorff_95_mm: hausdorff.into(),
            surface_dice: surface.into(),
        };
        let cases = [
            case([1.0, 0.0], [Some(2.0), None, None], [1.0, 0.0]),
            case([0.5, 0.25], [Some(5.0), Some(7.0), None], [0.5, 0.0]),
        ];
        // On a grid whose axes are not at right angles.
        let skew = CaseScores {
            hausdorff_95_mm: vec![None; 3],
            surface_dice: Vec::new(),
            ..case([0.75, 0.125], [None; 3], [0.0; 2])
        };
        let cases = [&cases[..], &[skew]].concat();
        let means = MeanScores {
            dice: vec![0.75, 0.125],
            hausdorff_95_mm: vec![Some(3.5), Some(7.0), None],
            hausdorff_95_cases: vec![2, 1, 0],
            surface_dice: vec![0.75, 0.0],
        };
        assert_eq!(MeanScores::of(cases.iter()), means);
    }
}
