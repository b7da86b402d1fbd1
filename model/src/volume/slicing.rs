//! The one order in which slices are looked at, whatever order a file keeps them in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::space::{Affine, directions};

/// Along which slices lie. Each is seen as on the page: the head, or the front, is up, and the patient's right on the left;
/// in a sagittal slice the back is on the left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Its slices go from the head to the feet.
    #[default]
    Axial,
    /// From the front to the back.
    Coronal,
    /// From the patient's right to the left.
    Sagittal,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// As users name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Axial => "axial",
            Self::Coronal => "coronal",
            Self::Sagittal => "sagittal",
        }
    }

    /// Where its slices are counted from, 1, and to.
    pub fn ends(self) -> [&'static str; 2] {
        match self {
            Self::Axial => ["the feet", "the head"],
            Self::Coronal => ["the back", "the front"],
            Self::Sagittal => ["the patient's left", "the right"],
        }
    }

    /// Along which of right, front and up its slices, rows and columns go, and whether that way or against it.
    fn directions(self) -> [(usize, bool); 3] {
        match self {
            Self::Axial => [(2, false), (1, false), (0, false)],
            Self::Coronal => [(1, false), (2, false), (0, false)],
            Self::Sagittal => [(0, false), (2, false), (1, true)],
        }
    }
}

impl FromStr for Plane {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let plane = Self::ALL.into_iter().find(|plane| plane.name() == name);
        plane.ok_or_else(|| format!("it is one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How a file's axes map to the slices of a plane. Fed-KiTS stores its volumes in the very order of axial ones (axes I-P-L).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slicing {
    /// Slices, rows, columns.
    pub dims: [usize; 3],
    /// The file's axes along slices, rows, columns.
    axes: [usize; 3],
    /// Voxel index of slice 0, row 0, column 0.
    origin: usize,
    /// Voxel index step along slices, rows, columns.
    steps: [isize; 3],
}

impl Slicing {
    pub(super) fn new(dims: [usize; 3], affine: &Affine, plane: Plane) -> Self {
        let strides = [1, dims[0], dims[0] * dims[1]];
        let world = closest_axes(affine);
        let mut origin = 0;
        let mapped = plane.directions().map(|(direction, along)| {
            let axis = world.iter().position(|(to, _)| *to == direction);
            let axis = axis.expect("closest_axes gives each direction once");
            let step = strides[axis] as isize;
            match world[axis].1 == along {
                true => (axis, step),
                false => {
                    origin += (dims[axis] - 1) * strides[axis];
                    (axis, -step)
                }
            }
        });
        Self {
            dims: mapped.map(|(axis, _)| dims[axis]),
            axes: mapped.map(|(axis, _)| axis),
            origin,
            steps: mapped.map(|(_, step)| step),
        }
    }

    /// The slice, from the first one from 0, in which a voxel of the file lies.
    pub fn slice_of(self, voxel: [usize; 3]) -> usize {
        let along = voxel[self.axes[0]];
        match self.steps[0] > 0 {
            true => along,
            false => self.dims[0] - 1 - along,
        }
    }

    /// The file's axes along slices, rows and columns.
    pub fn axes(self) -> [usize; 3] {
        self.axes
    }

    /// The affine of the places in this order: of column, row and slice, in this order.
    pub(super) fn affine(self, affine: &Affine) -> Affine {
        let [along_slices, along_rows, along_columns] = self.axes;
        let forward = self.steps.map(|step| step > 0);
        let mut oriented = [[0.0; 4]; 3];
        for (to, from) in oriented.iter_mut().zip(affine) {
            to[3] = from[3];
            for (place, (axis, along)) in [(along_columns, 2), (along_rows, 1), (along_slices, 0)]
                .into_iter()
                .enumerate()
            {
                to[place] = match forward[along] {
                    true => from[axis],
                    false => -from[axis],
                };
                if !forward[along] {
                    to[3] += from[axis] * (self.dims[along] - 1) as f64;
                }
            }
        }
        oriented
    }

    /// The file's voxel index of every place in this order.
    pub fn indices(self) -> impl Iterator<Item = usize> {
        (0..self.dims[0]).flat_map(move |slice| self.indices_of(slice))
    }

    /// Those of one slice, by its number from the first one, from 0.
    pub fn indices_of(self, slice: usize) -> impl Iterator<Item = usize> {
        let [_, rows, columns] = self.dims;
        let [by_slice, by_row, by_column] = self.steps;
        (0..rows as isize).flat_map(move |row| {
            let start = self.origin as isize + slice as isize * by_slice + row * by_row;
            (0..columns as isize).map(move |column| (start + column * by_column) as usize)
        })
    }

    /// Puts values from this order back into the file's order.
    pub fn restore<T: Copy + Default>(self, values: &[T]) -> Vec<T> {
        let mut voxels = vec![T::default(); values.len()];
        for (value, index) in values.iter().zip(self.indices()) {
            voxels[index] = *value;
        }
        voxels
    }
}

/// For each voxel axis the world axis it runs along most, and whether its index grows with it: as nibabel has it, by the
/// rotation that is nearest to the axes.
fn closest_axes(affine: &Affine) -> [(usize, bool); 3] {
    let mut result = [(usize::MAX, true); 3];
    let directions = directions(affine);
    let share = |world: usize, axis: usize| directions[world][axis];
    for _ in 0..3 {
        let free_world = |world: &usize| !result.iter().any(|(taken, _)| taken == world);
        let pairs = (0..3).filter(free_world).flat_map(|world| {
            let free_axis = |axis: &usize| result[*axis].0 == usize::MAX;
            (0..3).filter(free_axis).map(move |axis| (world, axis))
        });
        let best = pairs.max_by(|a, b| share(a.0, a.1).abs().total_cmp(&share(b.0, b.1).abs()));
        let (world, axis) = best.expect("a free axis remains in each of three turns");
        result[axis] = (world, share(world, axis) >= 0.0);
    }
    result
}
