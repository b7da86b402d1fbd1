use burn::tensor::Tensor;
use flapsam_kernels::{Share, cross_entropy_and_dice};

/// What of the total each part is, in the paper and the reference.
const SHARE: Share = Share {
    cross_entropy: 0.2,
    dice: 0.8,
};

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

/// Compares logits `[slice, class, row, column]` with labels `[slice, row, column]`; labels outside the classes (the
/// reference's -100) are ignored.
pub fn loss(logits: Tensor<4>, labels: &[i32]) -> Loss {
    let parts = cross_entropy_and_dice(logits, labels, SHARE);
    let [total, cross_entropy, dice] = [0, 1, 2].map(|part| parts.clone().narrow(0, part, 1));
    Loss {
        total,
        cross_entropy,
        dice,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use flapsam_model::parameters::to_vec;

    use super::*;

    /// Two classes on a 1 x 2 slice, written out by hand.
    #[test]
    fn loss_by_hand_and_ignored_voxels() {
        let device = Device::flex();
        let logits = |values: [f32; 4]| Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 2, 1, 2]), &device);
        let ln3 = 3f32.ln();
        // Probabilities of class 1: 3/4 and 1/2.
        let result = loss(logits([0.0, 0.0, ln3, 0.0]), &[1, 0]);
        let entropy = -(0.75f64.ln() + 0.5f64.ln()) / 2.0;
        let dice_0 = (2.0 * 0.5) / (0.25 * 0.25 + 0.25 + 1.0);
        let dice_1 = (2.0 * 0.75) / (0.75 * 0.75 + 0.25 + 1.0);
        let dice = 1.0 - (dice_0 + dice_1) / 2.0;
        assert!((to_vec(result.cross_entropy)[0] as f64 - entropy).abs() < 1e-5);
        assert!((to_vec(result.dice)[0] as f64 - dice).abs() < 1e-4);
        assert!((to_vec(result.total)[0] as f64 - 0.2 * entropy - 0.8 * dice).abs() < 1e-4);

        // An ignored voxel counts for nothing, whatever its logits.
        let some = loss(logits([0.0, 5.0, ln3, -5.0]), &[1, -100]);
        let other = loss(logits([0.0, 1.0, ln3, 2.0]), &[1, -100]);
        assert_eq!(to_vec(some.total), to_vec(other.total));
    }
}
