//! Stacks of five slices at the network's size, augmented, and batches of them.

use std::sync::OnceLock;

use flapsam_model::random::Random;
use flapsam_model::resize;
use flapsam_model::segment::{joined, scale_to_unit, stack_members};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::augmentation::{Stack, draw};
use super::prepared::PreparedCase;
use crate::error::Result;

/// Slices and their labels, at the network's size.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[slice, side, side]` in a row: in `[0, 1]`, but for what resizing overshoots.
    pub slices: Vec<f32>,
    /// One label for each value.
    pub labels: Vec<i32>,
}

/// The stack around a slice: scaled to `[0, 1]`, augmented if a stream of random numbers is given, and resized.
///
/// Everything is drawn from the stack's own stream, so that the order of threads does not matter.
///
/// # Errors
/// The case's file cannot be read.
pub fn stack(case: &PreparedCase, centre: usize, side: usize, augment: Option<&mut Random>) -> Result<Batch> {
    let members = stack_members(centre, case.len());
    let (first, end) = (members[0], members[members.len() - 1] + 1);
    let (values, labels) = case.read(first, end)?;
    let [rows, columns] = case.size();
    let place = |member: usize| (member - first) * rows * columns..(member - first + 1) * rows * columns;
    let mut stack = Stack {
        slices: members
            .iter()
            .flat_map(|&member| &values[place(member)])
            .copied()
            .collect(),
        labels: members
            .iter()
            .flat_map(|&member| &labels[place(member)])
            .copied()
            .collect(),
        rows,
        columns,
    };
    let range = joined(members.map(|member| case.range(member)));
    scale_to_unit(&mut stack.slices, range);
    if let Some(random) = augment {
        draw(rows, columns, random)
            .iter()
            .for_each(|operation| operation.apply(&mut stack));
    }
    let (from, to) = ([stack.rows, stack.columns], [side, side]);
    let area = stack.rows * stack.columns;
    let slices = stack.slices.chunks_exact(area);
    let labels = stack.labels.chunks_exact(area);
    Ok(Batch {
        slices: slices.flat_map(|slice| resize::cubic(slice, from, to)).collect(),
        labels: labels
            .flat_map(|slice| resize::nearest(slice, from, to))
            .map(i32::from)
            .collect(),
    })
}

/// Loads stacks side by side and puts them one after the other.
///
/// # Errors
/// One of them cannot be loaded.
pub fn collate<T: Sync>(stacks: &[T], load: impl Fn(&T) -> Result<Batch> + Sync + Send) -> Result<Batch> {
    let loaded: Vec<Batch> =
        loaders().install(|| stacks.par_iter().with_max_len(1).map(load).collect::<Result<_>>())?;
    let mut all = Batch {
        slices: Vec::new(),
        labels: Vec::new(),
    };
    for stack in loaded {
        all.slices.extend(stack.slices);
        all.labels.extend(stack.labels);
    }
    Ok(all)
}

/// Threads for loading alone: the others may all be waiting for what these load.
fn loaders() -> &'static ThreadPool {
    static LOADERS: OnceLock<ThreadPool> = OnceLock::new();
    LOADERS.get_or_init(|| {
        let pool = ThreadPoolBuilder::new().thread_name(|index| format!("loader {index}"));
        pool.build()
            .expect("a system that runs this program lets it start threads")
    })
}
