//! Resizing slices on the host, as the reference's `scipy.ndimage.zoom` does it: corner voxels map to corners.

use flapsam_kernels::elementary;

/// Cubic B-spline resizing of a `[rows, columns]` image (`order=3`).
pub fn cubic(image: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    if from == to {
        return image.to_vec();
    }
    let [rows, columns] = from;
    let mut coefficients: Vec<f64> = image.iter().map(|&value| value as f64).collect();
    // Each row is a line of `columns` neighbouring values, each column one of `rows` values a row apart.
    prefilter_lines(&mut coefficients, [rows, columns], [columns, 1]);
    prefilter_lines(&mut coefficients, [columns, rows], [1, columns]);
    let (down, across) = (taps(rows, to[0]), taps(columns, to[1]));
    // Columns first, on every input row; then rows.
    let mut wide = Vec::with_capacity(rows * to[1]);
    for row in coefficients.chunks_exact(columns) {
        wide.extend(
            across
                .iter()
                .map(|taps| taps.iter().map(|&(at, weight)| row[at] * weight).sum::<f64>()),
        );
    }
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for taps in &down {
        for column in 0..to[1] {
            let value: f64 = taps
                .iter()
                .map(|&(row, weight)| wide[row * to[1] + column] * weight)
                .sum();
            out.push(value as f32);
        }
    }
    out
}

/// Nearest-neighbour resizing of a `[rows, columns]` image (`order=0`), for labels.
pub fn nearest<T: Copy>(image: &[T], from: [usize; 2], to: [usize; 2]) -> Vec<T> {
    if from == to {
        return image.to_vec();
    }
    let places = |axis: usize| -> Vec<usize> {
        let place = |index| (position(index, from[axis], to[axis]) + 0.5).floor() as usize;
        (0..to[axis]).map(|index| place(index).min(from[axis] - 1)).collect()
    };
    let (rows, columns) = (places(0), places(1));
    rows.iter()
        .flat_map(|row| columns.iter().map(move |column| image[row * from[1] + column]))
        .collect()
}

/// By how much places along rows and columns grow from one size to the other: corner pixels stay at the corners.
pub fn factors(from: [usize; 2], to: [usize; 2]) -> [f32; 2] {
    [0, 1].map(|axis| match from[axis] {
        1 => 0.0,
        _ => (to[axis] as f32 - 1.0) / (from[axis] as f32 - 1.0),
    })
}

fn position(index: usize, from: usize, to: usize) -> f64 {
    match to {
        1 => 0.0,
        _ => index as f64 * (from - 1) as f64 / (to - 1) as f64,
    }
}

/// For each output place, four input places and their weights. Places past the edge are mirrored at the last voxel.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    let mirror = |at: isize| -> usize {
        if from == 1 {
            return 0;
        }
        let period = 2 * (from as isize - 1);
        let at = at.rem_euclid(period);
        at.min(period - at) as usize
    };
    let tap = |index: usize| {
        let position = position(index, from, to);
        let start = position.floor() as isize;
        let t = position - start as f64;
        let s = 1.0 - t;
        let weights = [
            s * s * s / 6.0,
            (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0,
            (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0,
            t * t * t / 6.0,
        ];
        [0, 1, 2, 3].map(|k| (mirror(start - 1 + k as isize), weights[k]))
    };
    (0..to).map(tap).collect()
}

/// Filters every line of an image: so many lines of so many values, with so many places from one to the next.
fn prefilter_lines(image: &mut [f64], [lines, length]: [usize; 2], [line_step, step]: [usize; 2]) {
    /// Lines that are filtered side by side, since the steps of one line have to wait for each other.
    const ABREAST: usize = 16;
    let mut block = Vec::new();
    for first in (0..lines).step_by(ABREAST) {
        let width = ABREAST.min(lines - first);
        block.clear();
        for k in 0..length {
            let places = (first..first + width).map(|line| line * line_step + k * step);
            block.extend(places.map(|place| image[place]));
        }
        prefilter(&mut block, length);
        for (k, values) in block.chunks_exact(width).enumerate() {
            for (line, value) in (first..).zip(values) {
                image[line * line_step + k * step] = *value;
            }
        }
    }
}

/// Samples to cubic B-spline coefficients down every column of an image with `count` rows, mirrored at the ends (Unser's
/// recursive filter).
fn prefilter(image: &mut [f64], count: usize) {
    if count < 2 {
        return;
    }
    let width = image.len() / count;
    let pole = 3f64.sqrt() - 2.0;
    image.iter_mut().for_each(|value| *value *= 6.0);
    // The exact start of a mirrored signal: the sum over one period.
    let mut power = pole;
    let last = elementary::power(pole, count - 1);
    let end = (count - 1) * width;
    let mut sums: Vec<f64> = (0..width).map(|at| image[at] + last * image[end + at]).collect();
    for row in image[width..end].chunks_exact(width) {
        // In long lines the powers end at zero.
        if power == 0.0 {
            break;
        }
        let weight = power + last * last / power;
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
        power *= pole;
    }
    let start = image.iter_mut().zip(&sums);
    start.for_each(|(value, sum)| *value = sum / (1.0 - last * last));
    for k in 1..count {
        let (before, row) = neighbours(image, k, width);
        row.iter_mut()
            .zip(before)
            .for_each(|(value, before)| *value += pole * *before);
    }
    let (before, row) = neighbours(image, count - 1, width);
    row.iter_mut()
        .zip(before)
        .for_each(|(value, before)| *value = pole / (pole * pole - 1.0) * (*value + pole * *before));
    for k in (1..count).rev() {
        let (row, after) = neighbours(image, k, width);
        row.iter_mut()
            .zip(after)
            .for_each(|(value, after)| *value = pole * (*after - *value));
    }
}

/// The rows `k - 1` and `k`.
fn neighbours(image: &mut [f64], k: usize, width: usize) -> (&mut [f64], &mut [f64]) {
    let (above, below) = image.split_at_mut(k * width);
    (&mut above[(k - 1) * width..], &mut below[..width])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splines_go_through_their_samples() {
        let image: Vec<f32> = (0..35).map(|i| ((i * 37) % 11) as f32).collect();
        // 7 x 5 to 13 x 9: every second place is a sample.
        let large = cubic(&image, [7, 5], [13, 9]);
        for row in 0..7 {
            for column in 0..5 {
                let (got, want) = (large[2 * row * 9 + 2 * column], image[row * 5 + column]);
                assert!((got - want).abs() < 1e-5, "{row} {column}: {got} {want}");
            }
        }
    }

    /// The filter's powers underflow after 566 places.
    #[test]
    fn long_lines_stay_numbers() {
        for side in [566, 567, 568, 569, 1024, 2000] {
            let image: Vec<f32> = (0..side * 2).map(|i| ((i * 37) % 11) as f32).collect();
            for (from, to) in [([2, side], [2, 2 * side - 1]), ([side, 2], [2 * side - 1, 2])] {
                let large = cubic(&image, from, to);
                // Every second place along the long side is a sample.
                for (place, want) in image.iter().enumerate() {
                    let (row, column) = (place / from[1], place % from[1]);
                    let at = match from[0] {
                        2 => row * to[1] + 2 * column,
                        _ => 2 * row * to[1] + column,
                    };
                    assert!((large[at] - want).abs() < 1e-4, "{side}: {} {want}", large[at]);
                }
            }
        }
    }

    #[test]
    fn nearest_keeps_labels() {
        assert_eq!(nearest(&[1u8, 2, 3, 4], [2, 2], [3, 3]), [1, 2, 2, 3, 4, 4, 3, 4, 4]);
    }
}
