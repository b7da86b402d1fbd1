use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

const CROSS_ENTROPY_SHARE: f64 = 0.2;
const DICE_SHARE: f64 = 0.8;
const SMOOTH: f64 = 1e-5;

/// What a batch of slices should have become.
#[derive(Debug, Clone)]
pub struct Target {
    /// `[slice, class, row, column]`, one where the voxel is of the class, zero everywhere where it is ignored.
    one_hot: Tensor<4>,
    /// `[slice, 1, row, column]`, zero where the voxel is ignored; `None` when none is.
    valid: Option<Tensor<4>>,
    /// Voxels that count.
    count: usize,
}

impl Target {
    /// From labels `[slice, row, column]`; labels outside `0..classes` (the reference's -100) are ignored.
    pub fn new(labels: &[i32], [slices, classes, rows, columns]: [usize; 4], device: &Device) -> Self {
        let area = rows * columns;
        let mut one_hot = vec![0f32; slices * classes * area];
        let mut valid = vec![0f32; slices * area];
        for (place, &label) in labels.iter().enumerate() {
            if (0..classes as i32).contains(&label) {
                let (slice, voxel) = (place / area, place % area);
                one_hot[(slice * classes + label as usize) * area + voxel] = 1.0;
                valid[place] = 1.0;
            }
        }
        let count = valid.iter().filter(|&&valid| valid > 0.0).count();
        let data = TensorData::new(one_hot, [slices, classes, rows, columns]);
        Self {
            one_hot: Tensor::from_data(data, device),
            valid: (count < labels.len()).then(|| {
                let data = TensorData::new(valid, [slices, 1, rows, columns]);
                Tensor::from_data(data, device)
            }),
            count,
        }
    }
}

/// The training loss and its parts, each `[1]`.
#[derive(Debug, Clone)]
pub struct Loss {
    /// `0.2 * cross entropy + 0.8 * Dice loss`
    pub total: Tensor<1>,
    /// Mean over voxels.
    pub cross_entropy: Tensor<1>,
    /// Mean over classes, background included; sums run over the whole batch.
    pub dice: Tensor<1>,
}

/// Compares logits `[slice, class, row, column]` with their target.
pub fn loss(logits: Tensor<4>, target: &Target) -> Loss {
    let classes = logits.dims()[1];
    let log_probabilities = log_softmax(logits, 1);
    // Axis by axis: one sum over all voxels in a row would lose digits.
    let agreement = (log_probabilities.clone() * target.one_hot.clone()).sum_dims(&[3, 2, 1, 0]);
    let agreement = agreement.reshape([1]);
    let cross_entropy = agreement / -(target.count.max(1) as f64);

    let probabilities = log_probabilities.exp();
    let probabilities = match &target.valid {
        Some(valid) => probabilities * valid.clone(),
        None => probabilities,
    };
    let per_class = |x: Tensor<4>| x.sum_dims(&[3, 2, 0]).reshape([classes]);
    let overlap = per_class(probabilities.clone() * target.one_hot.clone());
    let sizes = per_class(probabilities.square()) + per_class(target.one_hot.clone());
    let dice = (overlap * 2.0 + SMOOTH) / (sizes + SMOOTH);
    let dice = -dice.mean() + 1.0;
    Loss {
        total: cross_entropy.clone() * CROSS_ENTROPY_SHARE + dice.clone() * DICE_SHARE,
        cross_entropy,
        dice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flapsam_model::parameters::to_vec;

    /// Two classes on a 1 x 2 slice, written out by hand.
    #[test]
    fn loss_by_hand_and_ignored_voxels() {
        let device = Device::flex();
        let logits = |values: [f32; 4]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 2, 1, 2]), &device);
        let ln3 = 3f32.ln();
        // Probabilities of class 1: 3/4 and 1/2.
        let result = loss(
            logits([0.0, 0.0, ln3, 0.0]),
            &Target::new(&[1, 0], [1, 2, 1, 2], &device),
        );
        let entropy = -(0.75f64.ln() + 0.5f64.ln()) / 2.0;
        let dice_0 = (2.0 * 0.5) / (0.25 * 0.25 + 0.25 + 1.0);
        let dice_1 = (2.0 * 0.75) / (0.75 * 0.75 + 0.25 + 1.0);
        let dice = 1.0 - (dice_0 + dice_1) / 2.0;
        assert!((to_vec(result.cross_entropy)[0] as f64 - entropy).abs() < 1e-5);
        assert!((to_vec(result.dice)[0] as f64 - dice).abs() < 1e-4);
        assert!((to_vec(result.total)[0] as f64 - 0.2 * entropy - 0.8 * dice).abs() < 1e-4);

        // An ignored voxel counts for nothing, whatever its logits.
        let some = loss(
            logits([0.0, 5.0, ln3, -5.0]),
            &Target::new(&[1, -100], [1, 2, 1, 2], &device),
        );
        let other = loss(
            logits([0.0, 1.0, ln3, 2.0]),
            &Target::new(&[1, -100], [1, 2, 1, 2], &device),
        );
        assert_eq!(to_vec(some.total), to_vec(other.total));
    }
}
