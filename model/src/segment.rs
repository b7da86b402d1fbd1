//! The one inference path, native and in the browser: axial slices in, labels out.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use flapsam_kernels::{Alignment, resize_bilinear, softmax};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::resize;
use crate::sam::Sam;
use crate::volume::Slices;

/// Slices in a stack: one and its two neighbours on either side.
pub const STACK: usize = 5;
/// Neighbours on either side.
const REACH: usize = STACK / 2;
/// Slices that go through the network together when they share one scaling.
pub const BATCH: usize = 8;

/// Over what minimum and maximum are taken.
///
/// The network sees single slices, so the windows that hold a slice differ only by this scaling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Over the whole volume: each slice goes through the network once.
    #[default]
    Volume,
    /// Over each window of five slices (the reference): five passes a slice, their probabilities averaged.
    Stack,
}

/// Scales values to `[0, 1]` by a range; a constant becomes 0.
pub fn scale_to_unit(values: &mut [f32], [low, high]: [f32; 2]) {
    let factor = if high > low { 1.0 / (high - low) } else { 0.0 };
    values.iter_mut().for_each(|value| *value = (*value - low) * factor);
}

/// Minimum and maximum.
pub fn range(values: &[f32]) -> [f32; 2] {
    values
        .iter()
        .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &value| {
            [low.min(value), high.max(value)]
        })
}

/// The range that holds all of them.
pub fn joined(ranges: impl IntoIterator<Item = [f32; 2]>) -> [f32; 2] {
    let empty = [f32::INFINITY, f32::NEG_INFINITY];
    ranges
        .into_iter()
        .fold(empty, |[low, high], [lower, higher]| [low.min(lower), high.max(higher)])
}

/// The slices of the stack around `centre`; past either end the edge slice repeats.
pub fn stack_members(centre: usize, count: usize) -> [usize; STACK] {
    std::array::from_fn(|slot| (centre + slot).saturating_sub(REACH).min(count - 1))
}

/// Slices in `[0, 1]`, already of the network's size, as its input `[slice, 3, side, side]`.
pub fn to_input(slices: Vec<f32>, side: usize, device: &Device) -> Tensor<4> {
    let count = slices.len() / (side * side);
    let data = TensorData::new(slices, [count, 1, side, side]);
    Tensor::<4>::from_data(data, device).repeat_dim(1, 3)
}

/// A run of slices that go through the network together.
struct Pass {
    /// The volume's slices, by number; `None` for an edge slice's repetition, whose result is cut off.
    members: Vec<(usize, bool)>,
    /// What maps to `[0, 1]`.
    range: [f32; 2],
    /// After this pass, all slices before this one are complete.
    complete: usize,
}

/// Segments a volume whose values are prepared (see [`crate::preprocessing`]): labels in axial order, one for each voxel.
/// `progress` is told slices done and slices in all, and stops the work by returning false; then the result is `None`.
///
/// # Errors
/// See [`Segmentation::step`].
pub async fn segment(
    sam: &Sam,
    slices: &Slices,
    scaling: Scaling,
    side: usize,
    device: &Device,
    mut progress: impl FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<u8>>, Error> {
    let mut segmentation = Segmentation::new(sam, slices, scaling, side, device, BATCH);
    while let Some(done) = segmentation.step().await? {
        if !progress(done, slices.dims[0]) {
            return Ok(None);
        }
    }
    Ok(Some(segmentation.labels()))
}

/// A volume's segmentation in steps, so that a browser can draw, and hear its user, between them.
pub struct Segmentation<'a> {
    sam: &'a Sam,
    slices: &'a Slices,
    scaling: Scaling,
    side: usize,
    device: &'a Device,
    passes: std::vec::IntoIter<Pass>,
    /// Sums of scores, `[class, row, column]`, of the slices that are not complete.
    open: BTreeMap<usize, Vec<f32>>,
    labels: Vec<u8>,
}

impl<'a> Segmentation<'a> {
    /// The start. At most `batch` slices go through the network together; `side` is the network's image size.
    pub fn new(
        sam: &'a Sam,
        slices: &'a Slices,
        scaling: Scaling,
        side: usize,
        device: &'a Device,
        batch: usize,
    ) -> Self {
        Self {
            sam,
            slices,
            scaling,
            side,
            device,
            passes: passes(slices, scaling, batch.max(1)).into_iter(),
            open: BTreeMap::new(),
            labels: Vec::with_capacity(slices.values.len()),
        }
    }

    /// One pass through the network: how many slices are complete now, or `None` if all were.
    ///
    /// Asynchronous for the browser, where reading a tensor back must wait; on a CPU it never does.
    ///
    /// # Errors
    /// The device does not answer, or a score is no finite number.
    pub async fn step(&mut self) -> Result<Option<usize>, Error> {
        let Some(pass) = self.passes.next() else {
            return Ok(None);
        };
        let [_, rows, columns] = self.slices.dims;
        let logits = self.sam.logits(self.input(&pass));
        let [_, classes, high, wide] = logits.dims();
        // Probabilities matter where several are summed or mixed; elsewhere the largest is that of the largest logit.
        let scores = match self.scaling == Scaling::Volume && [high, wide] == [rows, columns] {
            true => logits,
            // By the map by which the slices were resized: corners onto corners.
            false => resize_bilinear(softmax(logits, 1), [rows, columns], Alignment::Corners),
        };
        let values = read_values(scores).await?;
        let volume = classes * rows * columns;
        for (slot, &(member, counts)) in pass.members.iter().enumerate() {
            if !counts {
                continue;
            }
            let found = &values[slot * volume..(slot + 1) * volume];
            // No class is the largest where one is no number.
            let what = || format!("a score of the network on slice {}", member + 1);
            finite(found, what)?;
            let sum = self.open.entry(member).or_insert_with(|| vec![0.0; volume]);
            sum.iter_mut().zip(found).for_each(|(sum, value)| *sum += value);
        }
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() < pass.complete) {
            self.labels.extend(arg_max(&entry.remove(), rows * columns));
        }
        Ok(Some(pass.complete))
    }

    /// Labels of the complete slices, in axial order.
    pub fn labels(self) -> Vec<u8> {
        self.labels
    }

    fn input(&self, pass: &Pass) -> Tensor<4> {
        let [_, rows, columns] = self.slices.dims;
        let mut input = Vec::with_capacity(pass.members.len() * self.side * self.side);
        for &(member, _) in &pass.members {
            let mut values = self.slices.slice(member).to_vec();
            scale_to_unit(&mut values, pass.range);
            input.extend(resize::cubic(&values, [rows, columns], [self.side, self.side]));
        }
        to_input(input, self.side, self.device)
    }
}

/// Refuses values of which one is no finite number; `what` says what they are.
///
/// # Errors
/// One is not finite.
pub fn finite(values: &[f32], what: impl FnOnce() -> String) -> Result<(), Error> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&value) => Err(Error::NotFinite { what: what(), value }),
        None => Ok(()),
    }
}

/// A tensor's values, row-major. Asynchronous for the browser, where reading a tensor back must wait.
pub(crate) async fn read_values<const RANK: usize>(tensor: Tensor<RANK>) -> Result<Vec<f32>, Error> {
    let data = tensor.into_data_async().await;
    let data = data.map_err(|why| Error::Device(cause(&why.to_string())))?;
    data.try_into_vec::<f32>()
        .map_err(|why| Error::Device(format!("{why:?}")))
}

/// The innermost cause of a device's report, which tells it layer by layer and may end in a backtrace.
fn cause(report: &str) -> String {
    let lines = report.lines().map(str::trim).take_while(|line| *line != "Backtrace:");
    let causes = lines.filter(|line| !line.is_empty() && *line != "Caused by:");
    causes.last().unwrap_or("it gives no reason").to_owned()
}

fn passes(slices: &Slices, scaling: Scaling, batch: usize) -> Vec<Pass> {
    let count = slices.dims[0];
    match scaling {
        Scaling::Volume => {
            let range = range(&slices.values);
            let pass = |start: usize| {
                let end = (start + batch).min(count);
                Pass {
                    members: (start..end).map(|slice| (slice, true)).collect(),
                    range,
                    complete: end,
                }
            };
            (0..count).step_by(batch).map(pass).collect()
        }
        Scaling::Stack => {
            let pass = |centre: usize| {
                let members = stack_members(centre, count);
                let inside = |slot: usize| (REACH..count + REACH).contains(&(centre + slot));
                let ranges = members.map(|member| range(slices.slice(member)));
                Pass {
                    members: (0..STACK).map(|slot| (members[slot], inside(slot))).collect(),
                    range: joined(ranges),
                    complete: match centre + 1 == count {
                        true => count,
                        false => (centre + 1).saturating_sub(REACH),
                    },
                }
            };
            (0..count).map(pass).collect()
        }
    }
}

/// The class of largest sum at each of `area` places; the lowest class wins a tie.
fn arg_max(sums: &[f32], area: usize) -> impl Iterator<Item = u8> {
    (0..area).map(move |place| {
        let classes = sums.iter().skip(place).step_by(area);
        let best = classes.enumerate().fold((0, f32::NEG_INFINITY), |best, (class, &sum)| {
            if sum > best.1 { (class as u8, sum) } else { best }
        });
        best.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdapterConfig, SamConfig};
    use crate::parameters::{Parameters, initialise};

    const SIDE: usize = 32;
    const SLICES: usize = 7;

    /// Noise; each slice holds `top(slice)` as its largest value, and 0.
    fn volume(top: impl Fn(usize) -> f32) -> Slices {
        let mut random = crate::random::Random::new(3, "slices");
        let slice = |index: usize| -> Vec<f32> {
            let mut values: Vec<f32> = (0..SIDE * SIDE).map(|_| top(index) * random.unit() as f32).collect();
            values[..2].copy_from_slice(&[0.0, top(index)]);
            values
        };
        Slices {
            dims: [SLICES, SIDE, SIDE],
            values: (0..SLICES).flat_map(slice).collect(),
        }
    }

    fn labels(slices: &Slices, scaling: Scaling) -> Vec<u8> {
        let (config, adapter) = (
            SamConfig::named("nano").unwrap().with_image_size(SIDE),
            AdapterConfig::lora(2, 4),
        );
        let layout = Sam::layout(&config, Some(&adapter)).unwrap();
        let device = Device::flex();
        let parameters = Parameters::new(&initialise(&layout, 5), &device);
        let sam = Sam::new(&config, Some(&adapter), &parameters).unwrap();
        let mut told = Vec::new();
        let labels = segment(&sam, slices, scaling, SIDE, &device, |done, of| {
            told.push((done, of));
            true
        });
        let labels = pollster::block_on(labels).unwrap().unwrap();
        assert_eq!(told.last(), Some(&(SLICES, SLICES)));
        labels
    }

    #[test]
    fn the_cause_of_a_report_is_its_innermost() {
        let report = "failed\nCaused by:\n  failed\nCaused by:\n  no such buffer\nBacktrace:\nnone here";
        assert_eq!(cause(report), "no such buffer");
        assert_eq!(cause(""), "it gives no reason");
    }

    #[test]
    fn both_scalings_agree_where_every_stack_has_the_volumes_range() {
        let same = volume(|_| 200.0);
        let (by_volume, by_stack) = (labels(&same, Scaling::Volume), labels(&same, Scaling::Stack));
        assert_eq!(by_volume.len(), same.values.len());
        let equal = by_volume.iter().zip(&by_stack).filter(|(a, b)| a == b).count();
        // A tie of probabilities may fall either way in the mean of five.
        assert!(equal * 1000 >= by_volume.len() * 999, "{equal} of {}", by_volume.len());

        let brighter = volume(|slice| 100.0 + 100.0 * slice as f32);
        assert_ne!(
            labels(&brighter, Scaling::Volume),
            labels(&brighter, Scaling::Stack),
            "a dark slice is scaled by its own stack"
        );
    }
}
