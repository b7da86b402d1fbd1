//! Synthetic CT: Hounsfield units painted on a map of tissues, as a given site's scanner would show them.

use flapsam_model::random::Random;

/// What a voxel is made of. `Kidney` and `Tumour` are the labels to be learned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tissue {
    /// Outside the body.
    #[default]
    Air,
    /// Under the skin and between the organs.
    Fat,
    /// Muscle of the trunk's wall.
    Muscle,
    /// Vertebrae and ribs.
    Bone,
    /// Spinal canal.
    Marrow,
    /// Liver.
    Liver,
    /// Spleen.
    Spleen,
    /// Stomach and bowel wall with contents.
    Bowel,
    /// Gas in the bowel.
    Gas,
    /// Aorta and vena cava.
    Vessel,
    /// Kidney, label 1.
    Kidney,
    /// Kidney tumour, label 2.
    Tumour,
}

impl Tissue {
    /// The segmentation's label.
    pub fn label(self) -> u8 {
        match self {
            Tissue::Kidney => 1,
            Tissue::Tumour => 2,
            _ => 0,
        }
    }
}

/// How a site's scans differ from the others'.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scanner {
    /// Site letter.
    pub site: char,
    /// Cases for training and for testing, as in Fed-KiTS.
    pub cases: (usize, usize),
    /// Distance between slices, mm.
    pub slice_mm: f64,
    /// Side of the square field of view, mm.
    pub field_mm: f64,
    /// Standard deviation of the noise, HU.
    pub noise_hu: f64,
    /// How much contrast agent the organs hold: 0 before it comes, 1 at its height.
    pub contrast: f64,
    /// How far the whole scale is off, HU.
    pub offset_hu: f64,
}

/// Six sites that differ as the hospitals of Fed-KiTS do.
pub const SITES: [Scanner; 6] = [
    scanner('A', (9, 3), 10.0, 330.0, 14.0, 0.80, 0.0),
    scanner('B', (11, 3), 8.0, 345.0, 22.0, 0.95, 8.0),
    scanner('C', (9, 3), 6.0, 350.0, 30.0, 0.60, -6.0),
    scanner('D', (9, 3), 8.0, 330.0, 18.0, 1.00, 4.0),
    scanner('E', (12, 4), 10.0, 315.0, 12.0, 0.45, -10.0),
    scanner('F', (24, 6), 7.0, 340.0, 20.0, 0.75, 0.0),
];

const fn scanner(
    site: char,
    cases: (usize, usize),
    slice_mm: f64,
    field_mm: f64,
    noise_hu: f64,
    contrast: f64,
    offset_hu: f64,
) -> Scanner {
    Scanner {
        site,
        cases,
        slice_mm,
        field_mm,
        noise_hu,
        contrast,
        offset_hu,
    }
}

/// Paints a map of tissues `[slice, row, column]`: each tissue's mean HU in this patient, slow variation within organs,
/// and noise that is correlated in the plane, as reconstruction leaves it.
pub fn paint(
    tissues: &[Tissue],
    [slices, rows, columns]: [usize; 3],
    scanner: &Scanner,
    random: &mut Random,
) -> Vec<f32> {
    let contrast = scanner.contrast + 0.08 * random.normal();
    let mut mean = [0f64; 12];
    for (tissue, hu) in mean.iter_mut().zip(means(contrast.max(0.0))) {
        *tissue = hu + scanner.offset_hu + 5.0 * random.normal();
    }
    let mut image = Vec::with_capacity(tissues.len());
    for _ in 0..slices {
        let noise = correlated_noise(rows, columns, random);
        let from = image.len();
        for (tissue, noise) in tissues[from..from + rows * columns].iter().zip(noise) {
            let hu = mean[*tissue as usize] + scanner.noise_hu * noise;
            image.push(hu.clamp(-1024.0, 3071.0) as f32);
        }
    }
    image
}

/// Mean HU of each tissue, in the order of [`Tissue`].
fn means(contrast: f64) -> [f64; 12] {
    [
        -1000.0,
        -100.0,
        55.0,
        380.0,
        30.0,
        60.0 + 50.0 * contrast,
        50.0 + 75.0 * contrast,
        30.0 + 25.0 * contrast,
        -850.0,
        45.0 + 150.0 * contrast,
        32.0 + 150.0 * contrast,
        35.0 + 45.0 * contrast,
    ]
}

/// Noise of standard deviation 1, smoothed by a 3 x 3 binomial filter.
fn correlated_noise(rows: usize, columns: usize, random: &mut Random) -> Vec<f64> {
    let white: Vec<f64> = (0..rows * columns).map(|_| random.normal()).collect();
    let at = |row: isize, column: isize| {
        let row = row.clamp(0, rows as isize - 1) as usize;
        let column = column.clamp(0, columns as isize - 1) as usize;
        white[row * columns + column]
    };
    // The filter's weights (1 2 1) x (1 2 1) / 16 shrink the deviation to 6 / 16.
    let smooth = |place: usize| {
        let (row, column) = ((place / columns) as isize, (place % columns) as isize);
        let line = |row: isize| at(row, column - 1) + 2.0 * at(row, column) + at(row, column + 1);
        (line(row - 1) + 2.0 * line(row) + line(row + 1)) / 6.0
    };
    (0..white.len()).map(smooth).collect()
}
