//! How alike a mask and its labels are, class by class: Dice of their voxels, and how far apart their surfaces are.

mod dice;
mod distance;
mod surface;

pub use dice::dice;
pub use surface::{Grid, SurfaceDistances};
