use std::path::{Path, PathBuf};

use flapsam_model::burn::tensor::Device;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::sam::Sam;
use flapsam_model::segment::segment;
use serde::{Deserialize, Serialize};

use crate::data::cases::dataset::{LabelledCase, read_case};
use crate::data::cases::memory::read_all;
use crate::data::manifest::Case;
use crate::error::Result;
use crate::files::write;

/// Dice of one test case, by foreground class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseDice {
    /// Its site.
    pub site: String,
    /// Its name.
    pub case: String,
    /// One value for each foreground class.
    pub dice: Vec<f64>,
}

/// Dice of a class: twice the overlap over the sum of the sizes; both empty is 1, one empty 0.
pub fn dice(got: &[u8], want: &[u8], class: u8) -> f64 {
    let (mut overlap, mut sizes) = (0u64, 0u64);
    for (&got, &want) in got.iter().zip(want) {
        overlap += u64::from(got == class && want == class);
        sizes += u64::from(got == class) + u64::from(want == class);
    }
    match sizes {
        0 => 1.0,
        _ => 2.0 * overlap as f64 / sizes as f64,
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
    /// Segments every test case with every network; Dice by network, in the order of the cases. The first network's
    /// masks go into the folder `masks`, if one is given.
    ///
    /// # Errors
    /// A case cannot be read, or a mask not written.
    pub fn judge(&self, networks: &[Sam], masks: Option<&Path>) -> Result<Vec<Vec<CaseDice>>> {
        let judge = |case: &Case| {
            let data = read_case(&self.folder, case, self.classes, self.preprocessing)?;
            let mut all = Vec::with_capacity(networks.len());
            for (place, network) in networks.iter().enumerate() {
                let labels = self.segment(network, &data);
                if let Some(masks) = masks.filter(|_| place == 0) {
                    let mask = data.grid.mask_to_nifti(&data.grid.axial().restore(&labels));
                    write(&masks.join(&case.site).join(format!("{}.nii.gz", case.id)), &mask)?;
                }
                let dice = (1..self.classes).map(|class| dice(&labels, &data.labels, class as u8));
                all.push(CaseDice {
                    site: case.site.clone(),
                    case: case.id.clone(),
                    dice: dice.collect(),
                });
            }
            Ok(all)
        };
        let by_case: Vec<Vec<CaseDice>> = read_all(&self.cases, judge)?;
        let of_network = |place: usize| by_case.iter().map(|all| all[place].clone()).collect();
        Ok((0..networks.len()).map(of_network).collect())
    }

    fn segment(&self, network: &Sam, data: &LabelledCase) -> Vec<u8> {
        let scaling = self.preprocessing.scaling;
        let labels = segment(network, &data.slices, scaling, self.side, self.device, |_, _| true);
        pollster::block_on(labels).unwrap_or_default()
    }
}

/// The mean over cases, by class.
pub fn mean_dice<'a>(cases: impl Iterator<Item = &'a CaseDice>) -> Vec<f64> {
    let mut count = 0.0;
    let mut sums: Vec<f64> = Vec::new();
    for case in cases {
        sums.resize(case.dice.len(), 0.0);
        sums.iter_mut().zip(&case.dice).for_each(|(sum, dice)| *sum += dice);
        count += 1.0;
    }
    sums.into_iter().map(|sum| sum / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_of_empty_and_full() {
        assert_eq!(dice(&[0, 0], &[0, 0], 1), 1.0);
        assert_eq!(dice(&[1, 0], &[0, 0], 1), 0.0);
        assert_eq!(dice(&[0, 0], &[1, 0], 1), 0.0);
        assert_eq!(dice(&[1, 1, 2], &[1, 0, 2], 1), 2.0 / 3.0);
    }

    #[test]
    fn means_are_by_class() {
        let case = |dice: [f64; 2]| CaseDice {
            site: "A".into(),
            case: "c".into(),
            dice: dice.into(),
        };
        assert_eq!(mean_dice([case([1.0, 0.0]), case([0.5, 0.25])].iter()), [0.75, 0.125]);
    }
}
