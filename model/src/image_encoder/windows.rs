//! Square windows of tokens.

use burn::tensor::Tensor;

/// Splits `[batch, row, column, channel]` into square windows, padded with zeros: `[batch * windows, side, side, channel]`.
pub fn to_windows(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, high, wide, channels] = x.dims();
    let (down, across) = (high.div_ceil(side), wide.div_ceil(side));
    let (below, right) = (down * side - high, across * side - wide);
    let x = match (below, right) {
        (0, 0) => x,
        _ => x.pad([(0, 0), (0, below), (0, right), (0, 0)], 0.0),
    };
    x.reshape([batch, down, side, across, side, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch * down * across, side, side, channels])
}

/// Undoes [`to_windows`] and cuts the padding off.
pub fn from_windows(windows: Tensor<4>, side: usize, high: usize, wide: usize) -> Tensor<4> {
    let (down, across) = (high.div_ceil(side), wide.div_ceil(side));
    let [count, _, _, channels] = windows.dims();
    let batch = count / (down * across);
    windows
        .reshape([batch, down, across, side, side, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch, down * side, across * side, channels])
        .narrow(1, 0, high)
        .narrow(2, 0, wide)
}
