//! Procedural images that look natural (lit, textured, coloured shapes before one another), with a mask for each shape.
//! The small base SAM is pretrained on them, so that CT is as foreign to it as it is to the real one.

use flapsam_model::random::Random;

/// Nearly a full turn. The pretrained checkpoint depends on this very value.
#[expect(clippy::approx_constant, reason = "it need not be exact, and must not change")]
const PHASES: f64 = 6.28;

/// One image.
#[derive(Debug, Clone)]
pub struct NaturalImage {
    /// Red, green and blue planes in `[0, 1]`, each `[side, side]`.
    pub planes: Vec<f32>,
    /// For each pixel the number of the shape that is seen there; 0 is the background.
    pub shapes: Vec<u8>,
}

/// A shape whose outline is a circle bent by a few waves.
struct Shape {
    centre: [f64; 2],
    radii: [f64; 2],
    turn: [f64; 2],
    /// Amplitude and phase of the outline's waves of 2, 3, 4 and 5 periods.
    waves: [(f64, f64); 4],
    surface: Surface,
}

/// Colour, light and texture.
struct Surface {
    colour: [f64; 3],
    /// Change of brightness along both axes.
    light: [f64; 2],
    /// Frequencies, phase and strength of a striped or mottled texture.
    texture: ([f64; 4], f64),
}

impl Surface {
    fn new(random: &mut Random) -> Self {
        // Half of all surfaces are nearly grey, so that brightness has to be enough.
        let grey = random.unit();
        let tint = if random.chance(0.5) { 0.08 } else { 0.45 };
        let colour = [0; 3].map(|_| (grey + tint * random.uniform(-1.0, 1.0)).clamp(0.0, 1.0));
        let light = [0; 2].map(|_| random.uniform(-0.25, 0.25));
        let frequency = random.uniform(5.0, 60.0);
        let angle = random.uniform(0.0, std::f64::consts::TAU);
        let waves = [
            frequency * libm::cos(angle),
            frequency * libm::sin(angle),
            random.uniform(3.0, 30.0),
            random.uniform(0.0, 6.0),
        ];
        Self {
            colour,
            light,
            texture: (waves, 0.15 * random.unit() * random.unit()),
        }
    }

    fn at(&self, x: f64, y: f64) -> [f64; 3] {
        let ([u, v, w, phase], strength) = self.texture;
        let texture = strength * (libm::sin(u * x + v * y + phase) + libm::sin(w * (x * y + y) + phase));
        let brightness = self.light[0] * (x - 0.5) + self.light[1] * (y - 0.5) + texture;
        self.colour.map(|channel| channel + brightness)
    }
}

impl Shape {
    fn new(random: &mut Random) -> Self {
        let size = 0.05 + 0.25 * random.unit() * random.unit();
        let angle = random.uniform(0.0, std::f64::consts::TAU);
        Self {
            centre: [random.unit(), random.unit()],
            radii: [size, size * random.uniform(0.45, 1.0)],
            turn: [libm::cos(angle), libm::sin(angle)],
            waves: [0.22, 0.15, 0.1, 0.07].map(|most| (most * random.unit(), random.uniform(0.0, PHASES))),
            surface: Surface::new(random),
        }
    }

    fn holds(&self, x: f64, y: f64) -> bool {
        let (x, y) = (x - self.centre[0], y - self.centre[1]);
        let [cos, sin] = self.turn;
        let (u, v) = ((x * cos + y * sin) / self.radii[0], (y * cos - x * sin) / self.radii[1]);
        let reach = libm::sqrt(u * u + v * v);
        if reach > 1.6 {
            return false;
        }
        let angle = libm::atan2(v, u);
        let bent = self
            .waves
            .iter()
            .enumerate()
            .map(|(index, (amplitude, phase))| amplitude * libm::sin((index as f64 + 2.0) * angle + phase));
        reach <= 1.0 + bent.sum::<f64>()
    }
}

impl NaturalImage {
    /// Draws an image of `side` x `side` pixels.
    pub fn new(side: usize, random: &mut Random) -> Self {
        let background = Surface::new(random);
        let count = 4 + random.below(9);
        let shapes: Vec<Shape> = (0..count).map(|_| Shape::new(random)).collect();
        let noise = 0.06 * random.unit();
        let mut planes = vec![0f32; 3 * side * side];
        let mut seen = vec![0u8; side * side];
        for place in 0..side * side {
            let x = ((place % side) as f64 + 0.5) / side as f64;
            let y = ((place / side) as f64 + 0.5) / side as f64;
            // The last shape is in front.
            let front = shapes.iter().rposition(|shape| shape.holds(x, y));
            let surface = front.map_or(&background, |index| &shapes[index].surface);
            seen[place] = front.map_or(0, |index| index as u8 + 1);
            let grain = noise * random.normal();
            for (channel, value) in surface.at(x, y).into_iter().enumerate() {
                planes[channel * side * side + place] = (value + grain).clamp(0.0, 1.0) as f32;
            }
        }
        Self { planes, shapes: seen }
    }
}
