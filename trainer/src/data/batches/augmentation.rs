//! Training augmentation of a stack of neighbouring slices: the reference's operations, drawn apart from being applied.

use flapsam_model::random::Random;

/// Slices with their labels, all of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// Intensities in `[0, 1]`, `[slice, row, column]` in a row.
    pub slices: Vec<f32>,
    /// One label for each intensity; 0 is the background.
    pub labels: Vec<u8>,
    /// Rows of a slice.
    pub rows: usize,
    /// Columns of a slice.
    pub columns: usize,
}

/// A direction in the plane of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Along a row, over the columns.
    X,
    /// Down a column, over the rows.
    Y,
}

/// The values that replace a rectangle of every slice, in which it must lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of columns; it divides the number of values.
    pub width: usize,
    /// Intensities in `[0, 1]`, `[row, column]` in a row.
    pub values: Vec<f32>,
}

/// One operation with its drawn parameters, the same for all slices of a stack.
///
/// Values and labels are those of the reference behaviour with numpy, scipy and Pillow. From [`Self::Shear`] on,
/// operations that change anything work on pictures of 8 bits, so that they leave intensities at multiples of 1/255.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Quarter turns to the left (`numpy.rot90`), then a mirroring (`numpy.flip`). Odd turns swap rows and columns.
    Turn {
        /// Number of quarter turns, 0 to 3.
        quarters: usize,
        /// The direction in which the order is reversed.
        flip: Axis,
    },
    /// A rotation to the left about the centre, in degrees (`scipy.ndimage.rotate` with order 0, without reshaping).
    Rotate(i32),
    /// Intensities to the power of one over this, by a table of 8 bits.
    Gamma(f64),
    /// A rectangle replaced by noise; its labels become 0.
    Erase(Patch),
    /// A shear along an axis, in pixels for each pixel across it (`Image.transform` of Pillow).
    Shear(Axis, f64),
    /// Places multiplied by this: above 1 the picture shrinks towards its upper left corner (`Image.transform`).
    Scale(f64),
    /// A shift against an axis, as a share of the slice's length along it (`Image.transform`).
    Translate(Axis, f64),
    /// The number of bits that intensities keep, 1 to 8 (`ImageOps.posterize`).
    Posterize(u32),
    /// Distances from the mean intensity multiplied by this (`ImageEnhance.Contrast`).
    Contrast(f64),
    /// Intensities multiplied by this (`ImageEnhance.Brightness`).
    Brightness(f64),
    /// Distances from the smoothed slice multiplied by this (`ImageEnhance.Sharpness`).
    Sharpness(f64),
    /// Nothing.
    Identity,
}

/// The operations of which two different ones are drawn, each with its range of parameters (reference behaviour).
const CHOICES: [fn(&mut Random) -> Operation; 10] = [
    |random| Operation::Shear(Axis::X, random.uniform(-0.3, 0.3)),
    |random| Operation::Shear(Axis::Y, random.uniform(-0.3, 0.3)),
    |random| Operation::Scale(random.uniform(0.8, 1.2)),
    |random| Operation::Translate(Axis::X, random.uniform(-0.2, 0.2)),
    |random| Operation::Translate(Axis::Y, random.uniform(-0.2, 0.2)),
    |random| Operation::Posterize(random.uniform(4.0, 8.99) as u32),
    |random| Operation::Contrast(random.uniform(0.7, 1.3)),
    |random| Operation::Brightness(random.uniform(0.7, 1.3)),
    |random| Operation::Sharpness(random.uniform(0.1, 1.9)),
    |_| Operation::Identity,
];

/// Draws the operations of a stack of this size, in the order in which they are applied (reference behaviour): each of
/// the first four with probability 1/2, then two different ones out of ten.
pub fn draw(rows: usize, columns: usize, random: &mut Random) -> Vec<Operation> {
    let (mut rows, mut columns) = (rows, columns);
    let mut operations = Vec::new();
    if random.chance(0.5) {
        let quarters = random.below(4);
        let flip = if random.chance(0.5) { Axis::X } else { Axis::Y };
        operations.push(Operation::Turn { quarters, flip });
        if quarters % 2 == 1 {
            (rows, columns) = (columns, rows);
        }
    }
    if random.chance(0.5) {
        operations.push(Operation::Rotate(random.below(30) as i32 - 15));
    }
    if random.chance(0.5) {
        operations.push(Operation::Gamma(random.uniform(0.5, 3.5)));
    }
    if random.chance(0.5) {
        operations.extend(Patch::draw(rows, columns, random).map(Operation::Erase));
    }
    let first = random.below(CHOICES.len());
    let second = (first + 1 + random.below(CHOICES.len() - 1)) % CHOICES.len();
    operations.extend([first, second].map(|choice| CHOICES[choice](random)));
    operations
}

impl Patch {
    /// Noise for 2 to 5 percent of a slice. `None` where no such rectangle is found to fit, as in a slice of one row.
    fn draw(rows: usize, columns: usize, random: &mut Random) -> Option<Self> {
        // In a slice of usual proportions the first try fits nearly always.
        let (width, height) = (0..100).find_map(|_| {
            let area = random.uniform(0.02, 0.05) * rows as f64 * columns as f64;
            let ratio = random.uniform(0.3, 3.3);
            let (width, height) = ((area * ratio).sqrt() as usize, (area / ratio).sqrt() as usize);
            (width < columns && height < rows).then_some((width, height))
        })?;
        Some(Self {
            top: random.below(rows - height + 1),
            left: random.below(columns - width + 1),
            width,
            values: (0..width * height).map(|_| random.unit() as f32).collect(),
        })
    }
}

impl Operation {
    /// Applies the operation to every slice of the stack and to the labels.
    pub fn apply(&self, stack: &mut Stack) {
        let (rows, columns) = (stack.rows, stack.columns);
        match *self {
            Self::Turn { quarters, flip } => {
                if quarters % 2 == 1 {
                    (stack.rows, stack.columns) = (columns, rows);
                }
                stack.rearrange(&turned(rows, columns, quarters, flip));
            }
            Self::Rotate(degrees) => stack.rearrange(&rotated(rows, columns, degrees)),
            Self::Gamma(gamma) => {
                // libm, so that the bits are the same everywhere.
                let table: [u8; 256] = std::array::from_fn(|level| {
                    let raised = libm::pow(level as f64 / 255.0, 1.0 / gamma);
                    (raised * 255.0) as u8
                });
                stack.map_pictures(|picture| picture.iter().map(|&level| table[usize::from(level)]).collect());
            }
            Self::Erase(ref patch) => stack.erase(patch),
            Self::Shear(Axis::X, by) => stack.transform([1.0, by, -by * columns as f64 / 2.0, 0.0, 1.0, 0.0]),
            Self::Shear(Axis::Y, by) => stack.transform([1.0, 0.0, 0.0, by, 1.0, -by * rows as f64 / 2.0]),
            Self::Scale(by) => stack.transform([by, 0.0, 0.0, 0.0, by, 0.0]),
            Self::Translate(Axis::X, by) => stack.transform([1.0, 0.0, by * columns as f64, 0.0, 1.0, 0.0]),
            Self::Translate(Axis::Y, by) => stack.transform([1.0, 0.0, 0.0, 0.0, 1.0, by * rows as f64]),
            Self::Posterize(bits) => {
                let mask = u8::MAX << 8_u32.saturating_sub(bits).min(7);
                stack.map_pictures(|picture| picture.iter().map(|level| level & mask).collect());
            }
            Self::Contrast(factor) => stack.map_pictures(|picture| {
                let sum: u64 = picture.iter().map(|&level| u64::from(level)).sum();
                let mean = (sum as f64 / picture.len() as f64 + 0.5) as u8;
                picture.iter().map(|&level| blend(mean, level, factor)).collect()
            }),
            Self::Brightness(factor) => {
                stack.map_pictures(|picture| picture.iter().map(|&level| blend(0, level, factor)).collect());
            }
            Self::Sharpness(factor) => stack.map_pictures(|picture| {
                let pairs = smoothed(picture, rows, columns).into_iter().zip(picture);
                pairs.map(|(smooth, &level)| blend(smooth, level, factor)).collect()
            }),
            Self::Identity => {}
        }
    }
}

/// Where each value of a slice comes from, `[row, column]` in a row: its place there, or `None` outside.
type Sources = Vec<Option<usize>>;

/// `x_in = a x + b y + c`, `y_in = d x + e y + f` between pixels' centres, which are at halves: a matrix as Pillow's.
type Matrix = [f64; 6];

impl Stack {
    /// Number of values in a slice, and 1 for an empty one, so that stacks can be cut by it.
    fn area(&self) -> usize {
        (self.rows * self.columns).max(1)
    }

    /// Takes intensities and labels from the sources.
    fn rearrange(&mut self, sources: &Sources) {
        let area = self.area();
        self.slices = gather(&self.slices, area, sources);
        self.labels = gather(&self.labels, area, sources);
    }

    /// Replaces each slice by what becomes of its picture of 8 bits.
    fn map_pictures(&mut self, operation: impl Fn(&[u8]) -> Vec<u8>) {
        let area = self.area();
        for slice in self.slices.chunks_exact_mut(area) {
            // Truncated, as numpy's conversion does; out of the range of a byte, Rust clips.
            let picture: Vec<u8> = slice.iter().map(|value| (value * 255.0) as u8).collect();
            for (value, level) in slice.iter_mut().zip(operation(&picture)) {
                *value = f32::from(level) / 255.0;
            }
        }
    }

    /// Moves pixels by a matrix: intensities between the four nearest pixels, labels from the nearest.
    fn transform(&mut self, matrix: Matrix) {
        let (rows, columns) = (self.rows, self.columns);
        self.map_pictures(|picture| bilinear(picture, rows, columns, matrix));
        self.labels = gather(&self.labels, self.area(), &nearest(rows, columns, matrix));
    }

    /// Puts a patch into every slice, and the background into its labels.
    fn erase(&mut self, patch: &Patch) {
        let (area, columns) = (self.area(), self.columns);
        let slices = self.slices.chunks_exact_mut(area);
        for (slice, labels) in slices.zip(self.labels.chunks_exact_mut(area)) {
            for (row, values) in patch.values.chunks_exact(patch.width.max(1)).enumerate() {
                let start = (patch.top + row) * columns + patch.left;
                slice[start..start + patch.width].copy_from_slice(values);
                labels[start..start + patch.width].fill(0);
            }
        }
    }
}

/// Every slice's values from their sources in it; 0 from outside.
fn gather<T: Copy + Default>(values: &[T], area: usize, sources: &Sources) -> Vec<T> {
    let mut gathered = Vec::with_capacity(values.len());
    for slice in values.chunks_exact(area) {
        gathered.extend(sources.iter().map(|source| source.map_or(T::default(), |at| slice[at])));
    }
    gathered
}

/// Asks for the source of each place `(row, column)` of a slice.
fn sources(rows: usize, columns: usize, source: impl Fn(usize, usize) -> Option<usize>) -> Sources {
    let mut sources = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        sources.extend((0..columns).map(|column| source(row, column)));
    }
    sources
}

/// Quarter turns to the left of a slice of this size, then a mirroring.
fn turned(rows: usize, columns: usize, quarters: usize, flip: Axis) -> Sources {
    let (out_rows, out_columns) = if quarters % 2 == 1 {
        (columns, rows)
    } else {
        (rows, columns)
    };
    sources(out_rows, out_columns, |row, column| {
        let (row, column) = match flip {
            Axis::X => (row, out_columns - 1 - column),
            Axis::Y => (out_rows - 1 - row, column),
        };
        let (row, column) = match quarters % 4 {
            0 => (row, column),
            1 => (column, columns - 1 - row),
            2 => (rows - 1 - row, columns - 1 - column),
            _ => (rows - 1 - column, row),
        };
        Some(row * columns + column)
    })
}

/// A rotation to the left about the centre, from the nearest pixel.
fn rotated(rows: usize, columns: usize, degrees: i32) -> Sources {
    let angle = f64::from(degrees).to_radians();
    let (sine, cosine) = (libm::sin(angle), libm::cos(angle));
    let (last_row, last_column) = (rows as f64 - 1.0, columns as f64 - 1.0);
    let (middle_row, middle_column) = (last_row / 2.0, last_column / 2.0);
    let first_row = middle_row - (cosine * middle_row + sine * middle_column);
    let first_column = middle_column - (cosine * middle_column - sine * middle_row);
    sources(rows, columns, |row, column| {
        let from_row = first_row + row as f64 * cosine + column as f64 * sine;
        let from_column = first_column - row as f64 * sine + column as f64 * cosine;
        // As in scipy, what lies outside the outermost pixels' centres is outside.
        let inside = (0.0..=last_row).contains(&from_row) && (0.0..=last_column).contains(&from_column);
        inside.then(|| (from_row + 0.5) as usize * columns + (from_column + 0.5) as usize)
    })
}

/// A picture moved by a matrix, interpolated in double precision and truncated, as Pillow does.
fn bilinear(picture: &[u8], rows: usize, columns: usize, [a, b, c, d, e, f]: Matrix) -> Vec<u8> {
    let mut moved = Vec::with_capacity(picture.len());
    for row in 0..rows {
        let y = row as f64 + 0.5;
        moved.extend((0..columns).map(|column| {
            let x = column as f64 + 0.5;
            let (from_x, from_y) = (a * x + b * y + c, d * x + e * y + f);
            if !(0.0..columns as f64).contains(&from_x) || !(0.0..rows as f64).contains(&from_y) {
                return 0;
            }
            let (left, right, along) = neighbours(from_x, columns);
            let (above, below, down) = neighbours(from_y, rows);
            let between = |row: usize| {
                let line = row * columns;
                mix(f64::from(picture[line + left]), f64::from(picture[line + right]), along)
            };
            mix(between(above), between(below), down) as u8
        }));
    }
    moved
}

/// The two pixels whose centres a place in `0..count` lies between, and how far it is from the first towards the
/// second. At the ends both are the outermost pixel.
fn neighbours(place: f64, count: usize) -> (usize, usize, f64) {
    let place = place - 0.5;
    if place < 0.0 {
        return (0, 0, place + 1.0);
    }
    let first = place as usize;
    (first, (first + 1).min(count - 1), place - first as f64)
}

/// The value at a share of the way between two.
fn mix(first: f64, second: f64, share: f64) -> f64 {
    first + (second - first) * share
}

/// The nearest pixel's place for each place under a matrix.
///
/// Pillow adds up steps, in double precision where rows stay rows and columns stay columns, else in units of 1/65536 of
/// a pixel. Its rounding decides which of two pixels is the nearest, so it is kept.
fn nearest(rows: usize, columns: usize, [a, b, c, d, e, f]: Matrix) -> Sources {
    if b == 0.0 && d == 0.0 {
        let (from_columns, from_rows) = (steps(columns, a, c), steps(rows, e, f));
        return sources(rows, columns, |row, column| {
            Some(from_rows[row]? * columns + from_columns[column]?)
        });
    }
    let fixed = |value: f64| (value * 65536.0 + 0.5).floor() as i64;
    let [first_x, first_y] = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
    let [a, b, d, e] = [a, b, d, e].map(fixed);
    sources(rows, columns, |row, column| {
        let (x, y) = (column as i64, row as i64);
        let from_x = usize::try_from((first_x + a * x + b * y) >> 16).ok()?;
        let from_y = usize::try_from((first_y + d * x + e * y) >> 16).ok()?;
        (from_x < columns && from_y < rows).then_some(from_y * columns + from_x)
    })
}

/// The pixels that equal steps from a shift on fall into, among `count`.
fn steps(count: usize, step: f64, shift: f64) -> Vec<Option<usize>> {
    let mut place = shift + step * 0.5;
    (0..count)
        .map(|_| {
            let here = place;
            place += step;
            (0.0..count as f64).contains(&here).then_some(here as usize)
        })
        .collect()
}

/// From a base level to a level and beyond, in single precision, truncated and clipped, as `Image.blend` does.
fn blend(base: u8, level: u8, factor: f64) -> u8 {
    let difference = f32::from(level) - f32::from(base);
    (f32::from(base) + factor as f32 * difference) as u8
}

/// The mean of each pixel, with weight 5, and its eight neighbours (`ImageFilter.SMOOTH`); the border stays as it is.
fn smoothed(picture: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    let mut smooth = picture.to_vec();
    for row in 1..rows.saturating_sub(1) {
        for at in row * columns + 1..(row + 1) * columns - 1 {
            let lines = [at - columns, at, at + columns];
            let around: u16 = lines
                .iter()
                .flat_map(|&at| &picture[at - 1..=at + 1])
                .map(|&level| u16::from(level))
                .sum();
            // To the nearest whole. No sum lies halfway between two, so Pillow's single precision gives the same.
            smooth[at] = ((around + 4 * u16::from(picture[at]) + 6) / 13) as u8;
        }
    }
    smooth
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 40;
    const COLUMNS: usize = 64;

    fn drawn(name: &str) -> Vec<Operation> {
        draw(ROWS, COLUMNS, &mut Random::new(1, name))
    }

    /// Two slices with values above 0 and labels above 0 everywhere.
    fn stack(rows: usize, columns: usize) -> Stack {
        let count = 2 * rows * columns;
        Stack {
            slices: (0..count).map(|at| (at % 255 + 1) as f32 / 255.0).collect(),
            labels: (0..count).map(|at| (at % 2 + 1) as u8).collect(),
            rows,
            columns,
        }
    }

    #[test]
    fn the_same_random_draws_the_same_operations() {
        let streams: Vec<String> = (0..20).map(|index| index.to_string()).collect();
        for pair in streams.windows(2) {
            assert_eq!(drawn(&pair[0]), drawn(&pair[0]));
            assert_ne!(drawn(&pair[0]), drawn(&pair[1]));
        }
    }

    /// The place of an operation's kind in the order of drawing; the ten of which two are drawn come from 4 on.
    fn kind(operation: &Operation) -> usize {
        match operation {
            Operation::Turn { .. } => 0,
            Operation::Rotate(_) => 1,
            Operation::Gamma(_) => 2,
            Operation::Erase(_) => 3,
            Operation::Shear(Axis::X, _) => 4,
            Operation::Shear(Axis::Y, _) => 5,
            Operation::Scale(_) => 6,
            Operation::Translate(Axis::X, _) => 7,
            Operation::Translate(Axis::Y, _) => 8,
            Operation::Posterize(_) => 9,
            Operation::Contrast(_) => 10,
            Operation::Brightness(_) => 11,
            Operation::Sharpness(_) => 12,
            Operation::Identity => 13,
        }
    }

    #[test]
    fn operations_are_as_frequent_as_stated() {
        const DRAWS: usize = 20_000;
        let mut random = Random::new(3, "frequencies");
        let (mut counts, mut pairs) = ([0_usize; 14], [[0_usize; 10]; 10]);
        for _ in 0..DRAWS {
            let kinds: Vec<usize> = draw(ROWS, COLUMNS, &mut random).iter().map(kind).collect();
            kinds.iter().for_each(|&kind| counts[kind] += 1);
            let [first @ .., last_but_one, last] = &kinds[..] else {
                panic!("two operations are always drawn: {kinds:?}");
            };
            assert!(first.is_sorted_by(|a, b| a < b) && first.iter().all(|&kind| kind < 4));
            pairs[last_but_one - 4][last - 4] += 1;
        }
        // Five standard deviations of such a count and of the count of a pair are 0.018 and 0.004 of the draws.
        let share = |count: usize| count as f64 / DRAWS as f64;
        assert!(
            counts[..4].iter().all(|&count| (share(count) - 0.5).abs() < 0.02),
            "{counts:?}"
        );
        assert!(
            counts[4..].iter().all(|&count| (share(count) - 0.2).abs() < 0.02),
            "{counts:?}"
        );
        for (first, row) in pairs.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let expected = if first == second { 0.0 } else { 1.0 / 90.0 };
                assert!((share(count) - expected).abs() < 0.004, "{pairs:?}");
            }
        }
    }

    #[test]
    fn parameters_fill_their_ranges() {
        let mut random = Random::new(4, "ranges");
        let (mut low, mut high) = ([f64::INFINITY; 14], [f64::NEG_INFINITY; 14]);
        let mut turns = [[0; 2]; 4];
        for _ in 0..20_000 {
            for operation in draw(ROWS, COLUMNS, &mut random) {
                let parameter = match &operation {
                    Operation::Turn { quarters, flip } => {
                        turns[*quarters][usize::from(*flip == Axis::X)] += 1;
                        0.0
                    }
                    Operation::Rotate(degrees) => f64::from(*degrees),
                    Operation::Erase(patch) => patch.values.len() as f64,
                    Operation::Posterize(bits) => f64::from(*bits),
                    Operation::Gamma(by)
                    | Operation::Shear(_, by)
                    | Operation::Scale(by)
                    | Operation::Translate(_, by)
                    | Operation::Contrast(by)
                    | Operation::Brightness(by)
                    | Operation::Sharpness(by) => *by,
                    Operation::Identity => 0.0,
                };
                let kind = kind(&operation);
                low[kind] = low[kind].min(parameter);
                high[kind] = high[kind].max(parameter);
            }
        }
        assert!(
            turns.as_flattened().iter().all(|count| (1_050..1_450).contains(count)),
            "{turns:?}"
        );
        let bounds = [
            (1, -15.0, 14.0),
            (2, 0.5, 3.5),
            (4, -0.3, 0.3),
            (5, -0.3, 0.3),
            (6, 0.8, 1.2),
            (7, -0.2, 0.2),
            (8, -0.2, 0.2),
            (9, 4.0, 8.0),
            (10, 0.7, 1.3),
            (11, 0.7, 1.3),
            (12, 0.1, 1.9),
        ];
        for (kind, from, to) in bounds {
            let (low, high, near) = (low[kind], high[kind], (to - from) / 100.0);
            assert!((from..from + near).contains(&low), "{kind}: {low}");
            assert!(high > to - near && high <= to, "{kind}: {high}");
        }
        // Sides are truncated, which takes up to a row and a column from 2 to 5 percent of the slice.
        let area = (ROWS * COLUMNS) as f64;
        assert!((0.01 * area..0.02 * area).contains(&low[3]), "{}", low[3]);
        assert!((0.045 * area..=0.05 * area).contains(&high[3]), "{}", high[3]);
    }

    #[test]
    fn patches_lie_in_slices_as_they_are_after_turns() {
        let mut random = Random::new(5, "patches");
        let mut erased = 0;
        for _ in 0..2_000 {
            let mut stack = stack(ROWS, COLUMNS);
            for operation in draw(ROWS, COLUMNS, &mut random) {
                let before = stack.clone();
                operation.apply(&mut stack);
                let Operation::Erase(patch) = &operation else {
                    continue;
                };
                erased += 1;
                assert!(patch.left + patch.width <= stack.columns);
                assert!(patch.top * stack.columns + patch.values.len() / patch.width * stack.columns <= stack.area());
                let changed = before.slices.iter().zip(&stack.slices).filter(|(a, b)| a != b).count();
                assert_eq!(changed, 2 * patch.values.len());
                let (first, second) = stack.slices.split_at(stack.area());
                for (at, _) in before
                    .slices
                    .iter()
                    .enumerate()
                    .filter(|&(at, a)| a != &stack.slices[at])
                {
                    assert_eq!(first[at % stack.area()], second[at % stack.area()]);
                    assert_eq!(stack.labels[at], 0);
                }
            }
        }
        assert!(erased > 900, "{erased}");
    }

    #[test]
    fn the_smallest_slices_are_drawn_for_and_keep_their_size() {
        let mut random = Random::new(6, "small");
        for (rows, columns) in [(0, 0), (0, 3), (3, 0), (1, 1), (1, 200), (200, 1), (2, 2), (3, 2)] {
            for _ in 0..200 {
                let mut stack = stack(rows, columns);
                let operations = draw(rows, columns, &mut random);
                operations.iter().for_each(|operation| operation.apply(&mut stack));
                assert_eq!(stack.slices.len(), 2 * rows * columns);
                assert_eq!(stack.labels.len(), 2 * rows * columns);
                assert_eq!(stack.rows * stack.columns, rows * columns);
            }
        }
    }

    #[test]
    fn directions_are_as_described() {
        let slice = |labels: &[u8], rows, columns| Stack {
            slices: labels.iter().map(|&label| f32::from(label) / 255.0).collect(),
            labels: labels.to_vec(),
            rows,
            columns,
        };
        let turn = |quarters, flip| Operation::Turn { quarters, flip };
        let cases = [
            (turn(0, Axis::X), slice(&[3, 2, 1, 6, 5, 4], 2, 3)),
            (turn(0, Axis::Y), slice(&[4, 5, 6, 1, 2, 3], 2, 3)),
            (turn(1, Axis::Y), slice(&[1, 4, 2, 5, 3, 6], 3, 2)),
            (turn(3, Axis::X), slice(&[1, 4, 2, 5, 3, 6], 3, 2)),
            (
                Operation::Translate(Axis::X, 1.0 / 3.0),
                slice(&[2, 3, 0, 5, 6, 0], 2, 3),
            ),
            (Operation::Translate(Axis::Y, -0.5), slice(&[0, 0, 0, 1, 2, 3], 2, 3)),
            (Operation::Identity, slice(&[1, 2, 3, 4, 5, 6], 2, 3)),
        ];
        for (operation, expected) in cases {
            let mut stack = slice(&[1, 2, 3, 4, 5, 6], 2, 3);
            operation.apply(&mut stack);
            assert_eq!(stack, expected, "{operation:?}");
        }
    }
}
