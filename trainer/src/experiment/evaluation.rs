use flapsam_model::burn::tensor::Device;
use flapsam_model::sam::Sam;
use flapsam_model::segment::{Intensity, segment};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::dataset::LabelledCase;

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

/// A named test case.
pub struct TestCase {
    /// Its site.
    pub site: String,
    /// Its name.
    pub id: String,
    /// Scan and labels.
    pub data: LabelledCase,
}

/// Segments every test case; labels in axial order and Dice, in the order of the cases.
pub fn evaluate(
    sam: &Sam,
    cases: &[TestCase],
    intensity: &Intensity,
    side: usize,
    classes: usize,
    device: &Device,
) -> Vec<(Vec<u8>, CaseDice)> {
    let judge = |case: &TestCase| {
        let labels = segment(sam, &case.data.slices, intensity, side, device, |_, _| true);
        let labels = pollster::block_on(labels).unwrap_or_default();
        let dice = (1..classes).map(|class| dice(&labels, &case.data.labels, class as u8));
        let dice = CaseDice {
            site: case.site.clone(),
            case: case.id.clone(),
            dice: dice.collect(),
        };
        (labels, dice)
    };
    cases.par_iter().map(judge).collect()
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
