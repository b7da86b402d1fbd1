//! The phantom: a procedural federated data set of abdominal CT, made from seeds. Synthetic wherever it is shown.

use flapsam_model::random::Random;
use flapsam_model::volume::Volume;

use super::paint::{SITES, Scanner, Tissue, paint};

/// Rows and columns of a slice.
pub const SIDE: usize = 128;
/// Height of the scanned region, mm.
const HEIGHT_MM: f64 = 170.0;
/// All phantom cases descend from this seed.
const SEED: u64 = 2407;

/// One synthetic patient.
#[derive(Debug, Clone)]
pub struct PhantomCase {
    /// Folder name, as in KiTS.
    pub id: String,
    /// Its scanner.
    pub scanner: &'static Scanner,
    /// Whether it is for training.
    pub train: bool,
}

/// All cases, site by site, training cases first.
pub fn cases() -> Vec<PhantomCase> {
    let mut all = Vec::new();
    for scanner in &SITES {
        let (train, test) = scanner.cases;
        for index in 0..train + test {
            all.push(PhantomCase {
                id: format!("case_{:05}", all.len()),
                scanner,
                train: index < train,
            });
        }
    }
    all
}

impl PhantomCase {
    /// The scan and its labels, axes I-P-L as in KiTS.
    pub fn make(&self) -> (Volume, Vec<u8>) {
        let scanner = self.scanner;
        let slices = (HEIGHT_MM / scanner.slice_mm) as usize;
        let mut random = Random::new(SEED, &self.id);
        let body = Body::new(&mut random);
        let step = scanner.field_mm / SIDE as f64;
        let centred = |index: usize, count: usize, step: f64| (index as f64 - (count as f64 - 1.0) / 2.0) * step;
        let mut tissues = Vec::with_capacity(slices * SIDE * SIDE);
        for slice in 0..slices {
            let z = centred(slice, slices, scanner.slice_mm);
            for row in 0..SIDE {
                let y = centred(row, SIDE, step);
                tissues.extend((0..SIDE).map(|column| body.tissue([centred(column, SIDE, step), y, z])));
            }
        }
        let dims = [slices, SIDE, SIDE];
        let image = paint(&tissues, dims, scanner, &mut random);
        let labels: Vec<u8> = tissues.iter().map(|tissue| tissue.label()).collect();
        let affine = [
            [0.0, 0.0, -step, centred(SIDE - 1, SIDE, step)],
            [0.0, -step, 0.0, centred(SIDE - 1, SIDE, step)],
            [
                -scanner.slice_mm,
                0.0,
                0.0,
                centred(slices - 1, slices, scanner.slice_mm),
            ],
        ];
        // In the file the slice is the fastest axis.
        let mut volume = Volume::new(dims, vec![0.0; image.len()], affine);
        volume.voxels = volume.axial().restore(&image);
        let labels = volume.axial().restore(&labels);
        (volume, labels)
    }
}

/// An ellipsoid; coordinates in mm: x to the patient's left, y to the back, z to the feet.
#[derive(Debug, Clone, Copy)]
struct Ellipsoid {
    centre: [f64; 3],
    radii: [f64; 3],
    /// Cosine and sine of its turn about z.
    turn: [f64; 2],
}

impl Ellipsoid {
    fn new(centre: [f64; 3], radii: [f64; 3], degrees: f64) -> Self {
        let angle = degrees.to_radians();
        Self {
            centre,
            radii,
            turn: [libm::cos(angle), libm::sin(angle)],
        }
    }

    /// Squared distance from the centre, 1 at the surface.
    fn reach(&self, point: [f64; 3]) -> f64 {
        let [x, y, z] = [0, 1, 2].map(|axis| point[axis] - self.centre[axis]);
        let [cos, sin] = self.turn;
        let turned = [x * cos + y * sin, y * cos - x * sin, z];
        let share = |axis: usize| turned[axis] / self.radii[axis];
        share(0) * share(0) + share(1) * share(1) + share(2) * share(2)
    }

    fn holds(&self, point: [f64; 3]) -> bool {
        self.reach(point) <= 1.0
    }
}

/// The anatomy of one patient.
#[derive(Debug, Clone)]
pub struct Body {
    trunk: [f64; 2],
    fat: f64,
    wall: f64,
    spine: Ellipsoid,
    canal: Ellipsoid,
    vessels: [Ellipsoid; 2],
    liver: [Ellipsoid; 2],
    spleen: Ellipsoid,
    bowel: Vec<(Ellipsoid, f64)>,
    kidneys: [Ellipsoid; 2],
    sinuses: [Ellipsoid; 2],
    tumour: Option<Ellipsoid>,
    /// Amplitudes (mm) and phases of the slow waves that bend every outline.
    waves: [(f64, f64); 3],
}

/// Radius of what runs through the whole scan, mm.
const TALL: f64 = 1000.0;

/// A number at most so far from the mean.
fn vary(random: &mut Random, mean: f64, spread: f64) -> f64 {
    mean + spread * random.uniform(-1.0, 1.0)
}

/// The aorta and the inferior vena cava.
fn vessels(random: &mut Random, back: f64) -> [Ellipsoid; 2] {
    let aorta = Ellipsoid::new([vary(random, 8.0, 4.0), back - 32.0, 0.0], [11.0, 11.0, TALL], 0.0);
    let cava = Ellipsoid::new([vary(random, -20.0, 4.0), back - 28.0, 0.0], [12.0, 10.0, TALL], 0.0);
    [aorta, cava]
}

/// Both lobes.
fn liver(random: &mut Random, size: f64) -> [Ellipsoid; 2] {
    [
        Ellipsoid::new(
            [-75.0 * size, vary(random, -15.0, 8.0), vary(random, -55.0, 15.0)],
            [70.0 * size, 75.0 * size, vary(random, 75.0, 12.0)],
            0.0,
        ),
        Ellipsoid::new(
            [-10.0, vary(random, -55.0, 8.0), vary(random, -70.0, 12.0)],
            [70.0 * size, 35.0, 50.0],
            0.0,
        ),
    ]
}

fn spleen(random: &mut Random, size: f64) -> Ellipsoid {
    Ellipsoid::new(
        [
            vary(random, 110.0, 8.0) * size,
            vary(random, 35.0, 8.0),
            vary(random, -60.0, 15.0),
        ],
        [26.0, 45.0, vary(random, 50.0, 10.0)],
        vary(random, -20.0, 10.0),
    )
}

/// The kidney of a side: -1 for the right one, 1 for the left.
fn kidney(random: &mut Random, size: f64, side: f64) -> Ellipsoid {
    Ellipsoid::new(
        [
            side * vary(random, 66.0, 8.0) * size,
            vary(random, 38.0, 8.0) * size,
            vary(random, 5.0 - 6.0 * side, 18.0),
        ],
        [
            vary(random, 30.0, 4.0),
            vary(random, 25.0, 3.0),
            vary(random, 54.0, 7.0),
        ],
        side * vary(random, 35.0, 15.0),
    )
}

/// The fat in a kidney's hollow.
fn sinus(kidney: &Ellipsoid) -> Ellipsoid {
    let inward = -kidney.centre[0].signum();
    let centre = [
        kidney.centre[0] + inward * 13.0,
        kidney.centre[1] - 5.0,
        kidney.centre[2],
    ];
    Ellipsoid::new(centre, [14.0, 9.0, 26.0], 0.0)
}

/// A loop of the bowel, and how much of it is filled.
fn bowel_loop(random: &mut Random, size: f64) -> (Ellipsoid, f64) {
    let centre = [
        vary(random, 30.0, 95.0) * size,
        vary(random, -50.0, 38.0) * size,
        vary(random, 40.0, 70.0),
    ];
    let radius = vary(random, 24.0, 9.0);
    (
        Ellipsoid::new(centre, [radius, radius * vary(random, 0.8, 0.2), radius * 1.3], 0.0),
        vary(random, 0.2, 0.6),
    )
}

/// A tumour of one of the kidneys.
fn tumour(random: &mut Random, kidneys: &[Ellipsoid; 2]) -> Ellipsoid {
    let kidney = &kidneys[random.below(2)];
    let radius = random.uniform(9.0, 26.0);
    // On the outer surface, half in and half out.
    let outward = kidney.centre[0].signum();
    let angle = random.uniform(-1.2, 1.2);
    let height = random.uniform(-0.6, 0.6);
    let centre = [
        kidney.centre[0] + outward * kidney.radii[0] * libm::cos(angle),
        kidney.centre[1] + kidney.radii[1] * libm::sin(angle),
        kidney.centre[2] + kidney.radii[2] * height,
    ];
    Ellipsoid::new(centre, [radius, radius * 0.9, radius], 0.0)
}

impl Body {
    /// Draws a patient. All patients hang on the order of the draws.
    pub fn new(random: &mut Random) -> Self {
        let size = vary(random, 1.0, 0.12);
        let trunk = [165.0 * size, 115.0 * size];
        let back = trunk[1] * 0.52;
        let spine = Ellipsoid::new(
            [vary(random, 0.0, 4.0), back, 0.0],
            [vary(random, 24.0, 3.0), vary(random, 19.0, 2.0), TALL],
            0.0,
        );
        let canal = Ellipsoid::new([spine.centre[0], back + 14.0, 0.0], [9.0, 7.0, TALL], 0.0);
        let vessels = vessels(random, back);
        let liver = liver(random, size);
        let spleen = spleen(random, size);
        let kidneys = [kidney(random, size, -1.0), kidney(random, size, 1.0)];
        let sinuses = [sinus(&kidneys[0]), sinus(&kidneys[1])];
        let bowel = (0..9).map(|_| bowel_loop(random, size)).collect();
        let waves = [0, 1, 2].map(|_| (vary(random, 3.5, 2.5), vary(random, 3.0, 3.0)));
        let (fat, wall) = (vary(random, 16.0, 9.0), vary(random, 12.0, 3.0));
        let tumour = random.chance(0.7).then(|| tumour(random, &kidneys));
        Self {
            trunk,
            fat,
            wall,
            spine,
            canal,
            vessels,
            liver,
            spleen,
            bowel,
            kidneys,
            sinuses,
            tumour,
            waves,
        }
    }

    /// The tissue at a point, kidneys and tumour included.
    pub fn tissue(&self, point: [f64; 3]) -> Tissue {
        let bent = self.bend(point);
        if !self.in_trunk(bent, 0.0) {
            return Tissue::Air;
        }
        if self.tumour.is_some_and(|tumour| tumour.holds(bent)) {
            return Tissue::Tumour;
        }
        let hollow = self.sinuses.iter().any(|sinus| sinus.holds(bent));
        if self.kidneys.iter().any(|kidney| kidney.holds(bent)) {
            return if hollow { Tissue::Fat } else { Tissue::Kidney };
        }
        self.surroundings(bent)
    }

    /// The tissue at a point of a body without kidneys, for real label maps.
    pub fn background(&self, point: [f64; 3]) -> Tissue {
        let bent = self.bend(point);
        match self.in_trunk(bent, 0.0) {
            true => self.surroundings(bent),
            false => Tissue::Air,
        }
    }

    fn surroundings(&self, point: [f64; 3]) -> Tissue {
        if self.canal.holds(point) {
            return Tissue::Marrow;
        }
        if self.spine.holds(point) {
            return Tissue::Bone;
        }
        if !self.in_trunk(point, self.fat) {
            return Tissue::Fat;
        }
        if !self.in_trunk(point, self.fat + self.wall) {
            return Tissue::Muscle;
        }
        if self.vessels.iter().any(|vessel| vessel.holds(point)) {
            return Tissue::Vessel;
        }
        if self.liver.iter().any(|part| part.holds(point)) {
            return Tissue::Liver;
        }
        if self.spleen.holds(point) {
            return Tissue::Spleen;
        }
        for (loop_, filling) in &self.bowel {
            let reach = loop_.reach(point);
            if reach <= 1.0 {
                // Gas rises to the front.
                let front = (loop_.centre[1] - point[1]) / loop_.radii[1];
                return if reach < 0.7 && front > *filling {
                    Tissue::Gas
                } else {
                    Tissue::Bowel
                };
            }
        }
        let beside_spine = (point[0] - self.spine.centre[0]).abs() < 52.0;
        match beside_spine && point[1] > self.spine.centre[1] - 6.0 {
            true => Tissue::Muscle,
            false => Tissue::Fat,
        }
    }

    /// Whether a point lies at least `depth` mm below the skin.
    fn in_trunk(&self, [x, y, _]: [f64; 3], depth: f64) -> bool {
        let (a, b) = (self.trunk[0] - depth, self.trunk[1] - depth);
        (x / a) * (x / a) + (y / b) * (y / b) <= 1.0
    }

    fn bend(&self, [x, y, z]: [f64; 3]) -> [f64; 3] {
        let wave = |index: usize, along: f64| {
            let (amplitude, phase) = self.waves[index];
            amplitude * libm::sin(along / 28.0 + phase)
        };
        [x + wave(0, y + z), y + wave(1, x - z), z + wave(2, x + y)]
    }
}
