//! Volumes to training batches: stacks of five slices at the network's size, augmented.

use flapsam_model::random::Random;
use flapsam_model::resize;
use flapsam_model::segment::{Intensity, STACK, range, scale_to_unit, stack_members};

use super::dataset::LabelledCase;

/// Slices and their labels, at the network's size.
#[derive(Debug, Clone)]
pub struct Batch {
    /// In `[0, 1]`, `[slice, side, side]` in a row.
    pub slices: Vec<f32>,
    /// One label for each value.
    pub labels: Vec<i32>,
}

/// A case whose slices are clipped and at the network's size, ready to be cut into stacks.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    slices: Vec<Vec<f32>>,
    labels: Vec<Vec<u8>>,
    side: usize,
}

impl PreparedCase {
    /// Prepares a case for a network of this image size.
    pub fn new(case: &LabelledCase, intensity: &Intensity, side: usize) -> Self {
        let [count, rows, columns] = case.slices.dims;
        let area = rows * columns;
        let slice = |index: usize| {
            let mut values = case.slices.slice(index).to_vec();
            intensity.clip(&mut values);
            resize::cubic(&values, [rows, columns], [side, side])
        };
        let label = |index: usize| {
            resize::nearest(
                &case.labels[index * area..(index + 1) * area],
                [rows, columns],
                [side, side],
            )
        };
        Self {
            slices: (0..count).map(slice).collect(),
            labels: (0..count).map(label).collect(),
            side,
        }
    }

    /// Number of slices, and so of stacks.
    pub fn len(&self) -> usize {
        self.slices.len()
    }

    /// Whether there is no slice.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The stack around a slice, scaled to `[0, 1]`, flipped and turned at random.
    ///
    /// Every operation of the stack draws from the stack's own stream, so that the order of threads does not matter.
    pub fn stack(&self, centre: usize, augment: Option<&mut Random>) -> Batch {
        let members = stack_members(centre, self.slices.len());
        let mut slices: Vec<f32> = members.iter().flat_map(|&member| self.slices[member].clone()).collect();
        let mut labels: Vec<i32> = members
            .iter()
            .flat_map(|&member| self.labels[member].iter().map(|&label| label as i32))
            .collect();
        let range = range(&slices);
        scale_to_unit(&mut slices, range);
        if let Some(random) = augment {
            if random.chance(0.5) {
                let (quarters, mirror) = (random.below(4), random.chance(0.5));
                slices = turned(&slices, self.side, quarters, mirror);
                labels = turned(&labels, self.side, quarters, mirror);
            }
            if random.chance(0.5) {
                let gamma = random.uniform(0.5, 3.5) as f32;
                slices.iter_mut().for_each(|value| *value = libm::powf(*value, gamma));
            }
        }
        Batch { slices, labels }
    }
}

/// Puts stacks one after the other.
pub fn collate(stacks: Vec<Batch>) -> Batch {
    let mut all = Batch {
        slices: Vec::new(),
        labels: Vec::new(),
    };
    for stack in stacks {
        all.slices.extend(stack.slices);
        all.labels.extend(stack.labels);
    }
    all
}

/// Every slice of a stack turned by quarters and then mirrored left to right.
fn turned<T: Copy>(stack: &[T], side: usize, quarters: usize, mirror: bool) -> Vec<T> {
    debug_assert_eq!(stack.len(), STACK * side * side);
    let source = |row: usize, column: usize| {
        let column = if mirror { side - 1 - column } else { column };
        let last = side - 1;
        match quarters {
            0 => (row, column),
            1 => (column, last - row),
            2 => (last - row, last - column),
            _ => (last - column, row),
        }
    };
    let mut out = Vec::with_capacity(stack.len());
    for slice in stack.chunks_exact(side * side) {
        for row in 0..side {
            for column in 0..side {
                let (from_row, from_column) = source(row, column);
                out.push(slice[from_row * side + from_column]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_quarters_and_two_mirrors_are_nothing() {
        let stack: Vec<u8> = (0..STACK * 9).map(|i| i as u8).collect();
        let mut turning = stack.clone();
        for _ in 0..4 {
            turning = turned(&turning, 3, 1, false);
        }
        assert_eq!(turning, stack);
        assert_eq!(turned(&turned(&stack, 3, 0, true), 3, 0, true), stack);
        assert_eq!(
            turned(&turned(&stack, 3, 1, false), 3, 1, false),
            turned(&stack, 3, 2, false)
        );
        assert_eq!(turned(&turned(&stack, 3, 1, false), 3, 3, false), stack);
    }
}
