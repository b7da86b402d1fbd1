//! How alike a mask and its labels are, class by class: Dice of their voxels, and how far apart their surfaces are.

mod distance;
mod surface;

pub use flapsam_model::labels::dice;
pub use surface::{Grid, SurfaceDistances};
