//! The exact Euclidean distance transform in linear time.

/// The distance, mm, of every point of a grid from the nearest of the points that `is_site` names by their index;
/// infinite where there is none. The last axis of `dims` runs fastest; `spacing` is in mm, by axis.
///
/// Squared distances are minimised along one axis after the other, each line as the lower envelope of a parabola for
/// each of its points (Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, 2012).
pub fn distances(is_site: impl Fn(usize) -> bool, dims: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let count = dims.iter().product();
    let start = |index| if is_site(index) { 0.0 } else { f64::INFINITY };
    let mut squares: Vec<f64> = (0..count).map(start).collect();
    let mut envelope = Envelope::default();
    for axis in 0..3 {
        let stride: usize = dims[axis + 1..].iter().product();
        let span = stride * dims[axis];
        let starts = (0..count).step_by(span.max(1));
        for first in starts.flat_map(|block| block..block + stride) {
            let line = &mut squares[first..];
            envelope.minimise(line, stride, dims[axis], spacing[axis]);
        }
    }
    squares.iter_mut().for_each(|square| *square = square.sqrt());
    squares
}

/// The lower envelope of the parabolas of one line; kept, so that the next line needs no new memory.
#[derive(Debug, Default)]
struct Envelope {
    /// Heights of the parabolas' feet: squared distances by the axes before.
    heights: Vec<f64>,
    /// The points whose parabola is the lowest somewhere, and from where on, in points along the line.
    lowest: Vec<(usize, f64)>,
}

impl Envelope {
    /// Replaces every height of a line by the least of `height + distance²` over its points.
    fn minimise(&mut self, line: &mut [f64], stride: usize, length: usize, step: f64) {
        self.heights.clear();
        self.heights.extend(line.iter().step_by(stride).take(length));
        self.build(step);
        let Some(&(mut foot, _)) = self.lowest.first() else {
            return;
        };
        let mut next = 1;
        for (point, value) in line.iter_mut().step_by(stride).take(length).enumerate() {
            while let Some(&(other, from)) = self.lowest.get(next)
                && from <= point as f64
            {
                (foot, next) = (other, next + 1);
            }
            let distance = point.abs_diff(foot) as f64 * step;
            *value = self.heights[foot] + distance * distance;
        }
    }

    fn build(&mut self, step: f64) {
        self.lowest.clear();
        for (point, &height) in self.heights.iter().enumerate() {
            if height.is_infinite() {
                continue;
            }
            let mut from = f64::NEG_INFINITY;
            while let Some(&(foot, begins)) = self.lowest.last() {
                let middle = (foot + point) as f64 / 2.0;
                from = middle + (height - self.heights[foot]) / (2.0 * step * step * (point - foot) as f64);
                if from > begins {
                    break;
                }
                self.lowest.pop();
                from = f64::NEG_INFINITY;
            }
            self.lowest.push((point, from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flapsam_model::random::Random;

    #[test]
    fn distances_equal_those_to_every_site() {
        let mut random = Random::new(5, "sites");
        for (dims, spacing) in [
            ([5, 6, 7], [1.0, 1.0, 1.0]),
            ([1, 9, 4], [3.7, 0.41, 1.3]),
            ([6, 1, 1], [0.2, 5.0, 1.0]),
        ] {
            let [_, rows, columns] = dims;
            let place = |index: usize| [index / (rows * columns), index / columns % rows, index % columns];
            let count = dims.iter().product::<usize>();
            let sites: Vec<usize> = (0..count).filter(|_| random.chance(0.1)).collect();
            let distance = |one: usize, other: usize| {
                let along = |axis: usize| place(one)[axis].abs_diff(place(other)[axis]) as f64 * spacing[axis];
                (0..3).map(|axis| along(axis).powi(2)).sum::<f64>().sqrt()
            };
            let got = distances(|index| sites.contains(&index), dims, spacing);
            for (index, got) in got.into_iter().enumerate() {
                let want = sites
                    .iter()
                    .map(|&site| distance(index, site))
                    .fold(f64::INFINITY, f64::min);
                assert!(got == want || (got - want).abs() < 1e-12, "{index}: {got}, {want}");
            }
        }
    }
}
