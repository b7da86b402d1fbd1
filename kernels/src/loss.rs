//! The training loss: cross entropy and Dice of class probabilities against labels.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::elementary::{exp, ln};
use crate::operation::{Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::sums;
use crate::threads::{self, Shared};

/// Keeps Dice defined where a class is neither there nor found.
const SMOOTH: f32 = 1e-5;

/// What of the total each part is.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Of the cross entropy, a mean over voxels.
    pub cross_entropy: f32,
    /// Of the Dice loss, a mean over classes, background included; its sums run over the whole batch.
    pub dice: f32,
}

/// The total, the cross entropy and the Dice loss, `[3]`, of logits `[slice, class, row, column]` against labels
/// `[slice, row, column]`; voxels of a label that is no class are ignored.
pub fn cross_entropy_and_dice(logits: Tensor<4>, labels: &[i32], share: Share) -> Tensor<1> {
    if !on_cpu(&logits) {
        return by_operations(logits, labels, share);
    }
    let classes = logits.dims()[1];
    let operation = Loss {
        counted: labels
            .iter()
            .filter(|label| class_of(**label, classes).is_some())
            .count(),
        labels: labels.into(),
        share,
    };
    apply(operation, [logits.into()])
}

fn class_of(label: i32, classes: usize) -> Option<usize> {
    usize::try_from(label).ok().filter(|class| *class < classes)
}

/// The same by burn's operations.
fn by_operations(logits: Tensor<4>, labels: &[i32], share: Share) -> Tensor<1> {
    let ([slices, classes, rows, columns], device) = (logits.dims(), logits.device());
    let (one_hot, counted) = one_hot(labels, classes, rows * columns);
    let valid: f64 = counted.iter().map(|&counts| counts as f64).sum();
    let from = |values: Vec<f32>, channels, device: &Device| {
        Tensor::<4>::from_data(TensorData::new(values, [slices, channels, rows, columns]), device)
    };
    let (one_hot, counted) = (from(one_hot, classes, &device), from(counted, 1, &device));
    let log_probabilities = log_softmax(logits, 1);
    // Axis by axis: one sum over all voxels in a row would lose digits.
    let agreement = (log_probabilities.clone() * one_hot.clone())
        .sum_dims(&[3, 2, 1, 0])
        .reshape([1]);
    let cross_entropy = agreement / -valid.max(1.0);
    let probabilities = log_probabilities.exp() * counted;
    let per_class = |x: Tensor<4>| x.sum_dims(&[3, 2, 0]).reshape([classes]);
    let overlap = per_class(probabilities.clone() * one_hot.clone());
    let sizes = per_class(probabilities.square()) + per_class(one_hot);
    let dice: Tensor<1> = -((overlap * 2.0 + SMOOTH) / (sizes + SMOOTH)).mean() + 1.0;
    let total = cross_entropy.clone() * share.cross_entropy + dice.clone() * share.dice;
    Tensor::cat(vec![total, cross_entropy, dice], 0)
}

/// `[slice, class, voxel]`, one where the voxel is of the class; and `[slice, voxel]`, one where it is of any.
fn one_hot(labels: &[i32], classes: usize, area: usize) -> (Vec<f32>, Vec<f32>) {
    let mut one_hot = vec![0f32; labels.len() * classes];
    let mut counted = vec![0f32; labels.len()];
    for (place, &label) in labels.iter().enumerate() {
        if let Some(class) = class_of(label, classes) {
            one_hot[(place / area * classes + class) * area + place % area] = 1.0;
            counted[place] = 1.0;
        }
    }
    (one_hot, counted)
}

#[derive(Debug, Clone)]
struct Loss {
    labels: Arc<[i32]>,
    /// Labels that are a class.
    counted: usize,
    share: Share,
}

/// What a class's Dice is made of, over the whole batch.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Of probabilities where the label is the class.
    overlap: f64,
    /// Of squared probabilities.
    squares: f64,
    /// Voxels of the class.
    labels: f64,
}

impl Sums {
    fn add(&mut self, more: Sums) {
        self.overlap += more.overlap;
        self.squares += more.squares;
        self.labels += more.labels;
    }

    fn dice(&self) -> f64 {
        (2.0 * self.overlap + SMOOTH as f64) / (self.squares + self.labels + SMOOTH as f64)
    }
}

vectorised! {
    /// Softmax over classes: `[class, voxel]` in place; `logs` gets the logarithm of each voxel's divisor, with its largest
    /// logit.
    fn probabilities(values: &mut [f32], logs: &mut [f32]) {
        let area = logs.len();
        logs.fill(f32::NEG_INFINITY);
        for class in values.chunks_exact(area) {
            for (largest, &value) in logs.iter_mut().zip(class) {
                *largest = if value > *largest { value } else { *largest };
            }
        }
        let mut divisors = vec![0f32; area];
        for class in values.chunks_exact_mut(area) {
            for ((value, &largest), divisor) in class.iter_mut().zip(&*logs).zip(&mut divisors) {
                *value = exp(*value - largest);
                *divisor += *value;
            }
        }
        for class in values.chunks_exact_mut(area) {
            for (value, &divisor) in class.iter_mut().zip(&divisors) {
                *value /= divisor;
            }
        }
        for (log, &divisor) in logs.iter_mut().zip(&divisors) {
            *log += ln(divisor);
        }
    }

    fn sum(values: &[f32]) -> f32 {
        sums::line(values, |x| x)
    }

    /// The sums of values and of squares, where voxels count.
    fn overlap_and_squares(values: &[f32], of_class: &[f32], counted: &[f32], squares: &mut [f32]) -> [f32; 2] {
        for (square, (&value, &counted)) in squares.iter_mut().zip(values.iter().zip(counted)) {
            *square = value * value * counted;
        }
        let overlap = sums::pairs(values, of_class, |value, one| value * one);
        [overlap, sums::line(squares, |x| x)]
    }
}

impl Loss {
    /// Probabilities `[slice, class, voxel]`, the mean cross entropy and every class's sums. Each line of voxels is summed in
    /// 32 bits, lines in 64.
    fn measure(&self, logits: &[f32], classes: usize, area: usize) -> (Vec<f32>, f64, Vec<Sums>) {
        let mut values = logits.to_vec();
        let shared = Shared::new(&mut values);
        let (count, length) = (self.labels.len() / area, classes * area);
        let slices = threads::map(count, 32 * values.len(), |number| {
            // SAFETY: every slice's own.
            let values = unsafe { shared.slice(number * length, length) };
            let labels = &self.labels[number * area..][..area];
            Self::measure_slice(values, &logits[number * length..][..length], labels)
        });
        let (mut entropy, mut of_classes) = (0f64, vec![Sums::default(); classes]);
        for (of_slice, sums_of_slice) in slices {
            entropy += of_slice;
            of_classes
                .iter_mut()
                .zip(sums_of_slice)
                .for_each(|(sums, more)| sums.add(more));
        }
        (values, entropy / self.counted.max(1) as f64, of_classes)
    }

    /// Turns a slice's logits in `values` into probabilities; its summed cross entropy, and every class's sums.
    fn measure_slice(values: &mut [f32], logits: &[f32], labels: &[i32]) -> (f64, Vec<Sums>) {
        let area = labels.len();
        let (mut logs, mut terms) = (vec![0f32; area], vec![0f32; area]);
        probabilities(values, &mut logs);
        for ((voxel, &label), term) in labels.iter().enumerate().zip(&mut terms) {
            let class = class_of(label, logits.len() / area);
            *term = class.map_or(0.0, |class| logs[voxel] - logits[class * area + voxel]);
        }
        let entropy = sum(&terms) as f64;
        let (one_hot, counted) = one_hot(labels, logits.len() / area, area);
        let classes = values.chunks_exact(area).zip(one_hot.chunks_exact(area));
        let sums = classes.map(|(values, of_class)| {
            let [overlap, squares] = overlap_and_squares(values, of_class, &counted, &mut terms);
            Sums {
                overlap: overlap as f64,
                squares: squares as f64,
                labels: of_class.iter().map(|&one| one as f64).sum(),
            }
        });
        (entropy, sums.collect())
    }
}

impl Operation<1> for Loss {
    /// Probabilities, their extents, and every class's sums.
    type Kept = (Values, Vec<Sums>);

    fn forward(&self, [logits]: &[Values; 1], _: [bool; 1]) -> (Values, Self::Kept) {
        let extents = shape(logits);
        let (classes, area) = (extents[1], extents[2] * extents[3]);
        let (values, cross_entropy, sums) = self.measure(&dense(logits), classes, area);
        let dice = 1.0 - sums.iter().map(Sums::dice).sum::<f64>() / classes as f64;
        let total = self.share.cross_entropy as f64 * cross_entropy + self.share.dice as f64 * dice;
        let result = [total, cross_entropy, dice].map(|part| part as f32);
        (tensor(result.to_vec(), [3]), (tensor(values, extents), sums))
    }

    fn backward(&self, (values, sums): Self::Kept, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        let extents = shape(&values);
        let (classes, area) = (extents[1], extents[2] * extents[3]);
        let parts = dense(&gradient);
        let of_entropy = (self.share.cross_entropy * parts[0] + parts[1]) / self.counted.max(1) as f32;
        let of_dice = (self.share.dice * parts[0] + parts[2]) / classes as f32;
        // A probability's slope: so much if the label is the class, and so much for each unit of itself.
        let slopes: Vec<[f32; 2]> = sums
            .iter()
            .map(|sums| {
                let divisor = sums.squares + sums.labels + SMOOTH as f64;
                [-2.0 / divisor, 2.0 * sums.dice() / divisor].map(|slope| (slope * of_dice as f64) as f32)
            })
            .collect();
        let values = dense(&values);
        let (mut out, length) = (vec![0.0; values.len()], classes * area);
        let work = 16 * out.len();
        let of_slice = |number: usize, out: &mut [f32]| {
            let (values, labels) = (
                &values[number * length..][..length],
                &self.labels[number * area..][..area],
            );
            let (one_hot, counted) = one_hot(labels, classes, area);
            let mut along = vec![0f32; area];
            for (class, slopes) in slopes.iter().enumerate() {
                let at = class * area..(class + 1) * area;
                dice_slopes(
                    &values[at.clone()],
                    &one_hot[at.clone()],
                    *slopes,
                    &mut out[at],
                    &mut along,
                );
            }
            for class in 0..classes {
                let at = class * area..(class + 1) * area;
                logit_slopes(
                    &values[at.clone()],
                    &one_hot[at.clone()],
                    &counted,
                    &along,
                    of_entropy,
                    &mut out[at],
                );
            }
        };
        threads::chunks(&mut out, length, work, |first, out| {
            let slices = out.chunks_exact_mut(length).enumerate();
            slices.for_each(|(number, out)| of_slice(first + number, out));
        });
        [Some(tensor(out, extents))]
    }
}

vectorised! {
    /// The slope of each probability, and what the softmax takes from all of a voxel's.
    fn dice_slopes(values: &[f32], one_hot: &[f32], slopes: [f32; 2], out: &mut [f32], along: &mut [f32]) {
        let [if_class, by_value] = slopes;
        for ((out, along), (&value, &one)) in out.iter_mut().zip(along).zip(values.iter().zip(one_hot)) {
            *out = if_class * one + by_value * value;
            *along += *out * value;
        }
    }

    fn logit_slopes(values: &[f32], one_hot: &[f32], counted: &[f32], along: &[f32], of_entropy: f32, out: &mut [f32]) {
        let voxels = values.iter().zip(one_hot).zip(counted.iter().zip(along));
        for (out, ((&value, &one), (&counted, &along))) in out.iter_mut().zip(voxels) {
            *out = (value * (*out - along) + (value - one) * of_entropy) * counted;
        }
    }
}
