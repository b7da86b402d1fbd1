//! How a scan's values and grid are prepared before the network sees them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::memory::{self, Content};
use crate::segment::Scaling;
use crate::volume::{Slices, Slicing, Volume};

/// What a data set's scans go through, in this order. An adapter keeps it, so that a new scan is prepared as those that
/// it was trained on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Voxels from right to left, front to back and head to feet that every volume is resampled to, whatever the order of
    /// its file's axes; none leaves the grid as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resample: Option<[usize; 3]>,
    /// The same by the distance of voxels, mm: every volume is resampled to the grid over its own space whose voxels are
    /// nearest to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing_mm: Option<[f64; 3]>,
    /// Values outside this range are set to its ends (HU for CT).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<[f32; 2]>,
    /// Values above this percentile of the volume's own are set to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_percentile: Option<f64>,
    /// Clipping and z-score of each site, by its name; then a scan of any other site is refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sites: BTreeMap<String, Window>,
    /// Over what the range is mapped to `[0, 1]` at inference.
    #[serde(default)]
    pub scaling: Scaling,
}

/// A site's range of values, and their statistics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Values outside this range are set to its ends.
    pub clip: [f32; 2],
    /// Subtracted afterwards.
    pub mean: f32,
    /// What the rest is divided by.
    pub std: f32,
}

/// No grid that a scan is resampled to has more: 1024 cubed.
const MOST_VOXELS: usize = 1 << 30;
/// Nor a longer side: its masks are kept as NIfTI-1.
const LONGEST_SIDE: usize = i16::MAX as usize;
/// Voxels of a scan are not nearer to each other, nor farther, mm.
const SPACING: [f64; 2] = [0.001, 1000.0];

impl Preprocessing {
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// A range is empty, a percentile is none, a grid has no voxel or is named twice, or a standard deviation is not
    /// positive.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Config(why));
        let ranges = self.clip.iter().chain(self.sites.values().map(|window| &window.clip));
        for [low, high] in ranges {
            if low.partial_cmp(high) != Some(std::cmp::Ordering::Less) {
                return refuse(format!(
                    "'clip' is [{low}, {high}]; its first value must be below its second"
                ));
            }
        }
        if let Some(percentile) = self.clip_percentile.filter(|value| !(0.0..=100.0).contains(value)) {
            return refuse(format!("'clip_percentile' is {percentile}; it must be from 0 to 100"));
        }
        let values = self.sites.values().flat_map(|window| [window.mean, window.std]);
        let ends = self
            .clip
            .iter()
            .chain(self.sites.values().map(|window| &window.clip))
            .flatten();
        if let Some(value) = values.chain(ends.copied()).find(|value| !value.is_finite()) {
            return refuse(format!(
                "'clip', 'mean' and 'std' are finite numbers, and one is {value}"
            ));
        }
        if let Some(grid) = self.resample.filter(is_absurd) {
            return refuse(format!(
                "'resample' is {grid:?}; it must have from 1 to {MOST_VOXELS} voxels, and at most {LONGEST_SIDE} a side"
            ));
        }
        let [nearest, farthest] = SPACING;
        let outside = |spacing: &[f64; 3]| !spacing.iter().all(|distance| (nearest..=farthest).contains(distance));
        if let Some(spacing) = self.spacing_mm.filter(outside) {
            return refuse(format!(
                "'spacing_mm' is {spacing:?}; each distance must be from {nearest} to {farthest} mm"
            ));
        }
        if self.resample.is_some() && self.spacing_mm.is_some() {
            return refuse("'resample' (voxels) and 'spacing_mm' (mm) each name a grid; keep one of them".into());
        }
        match self
            .sites
            .iter()
            .find(|(_, window)| window.std.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater))
        {
            Some((site, window)) => refuse(format!("'std' of site '{site}' is {}; it must be positive", window.std)),
            None => Ok(()),
        }
    }

    /// The grid that a volume is resampled to, if it lies on another one: columns, rows, slices. Only where the volume lies
    /// counts, so that it may be asked before its voxels are read.
    ///
    /// # Errors
    /// At the wanted spacing it has too many voxels.
    pub fn grid_for(&self, volume: &Volume) -> Result<Option<[usize; 3]>, Error> {
        let axial = volume.axial();
        let in_order = |[slices, rows, columns]: [usize; 3]| [columns, rows, slices];
        let own = in_order(axial.dims);
        let Some(wanted) = self.spacing_mm else {
            return Ok(self.resample.filter(|grid| *grid != own));
        };
        let spacing = in_order(axial.axes()).map(|axis| volume.spacing()[axis]);
        let grid = [0, 1, 2].map(|axis| nearest(own[axis] as f64 * spacing[axis] / wanted[axis]));
        if is_absurd(&grid) {
            let [columns, rows, slices] = grid;
            return Err(Error::Volume(format!(
                "at 'spacing_mm' = {wanted:?} it would have {columns} x {rows} x {slices} voxels, and at most {MOST_VOXELS} \
                 are possible and {LONGEST_SIDE} a side; choose a wider spacing, or check the scan's voxel size"
            )));
        }
        Ok(Some(grid).filter(|grid| *grid != own))
    }

    /// Bytes on the host to bring a volume to the grid.
    ///
    /// # Errors
    /// As of [`Preprocessing::grid_for`].
    pub fn resampling_bytes(&self, volume: &Volume, content: Content) -> Result<usize, Error> {
        let grid = self.grid_for(volume)?;
        Ok(grid.map_or(0, |grid| memory::resampling(volume.dims, grid, content)))
    }

    /// The scan on the grid that the network works on: averages of the voxels that a new one covers (what the
    /// reference's loader of Fed-IXI calls area interpolation). Its axes are brought into axial order first, so that the
    /// order of the file's does not matter.
    ///
    /// # Errors
    /// As of [`Preprocessing::grid_for`].
    pub fn on_grid(&self, scan: Volume) -> Result<Volume, Error> {
        Ok(match self.grid_for(&scan)? {
            Some(dims) => averaged(&scan.oriented(), dims),
            None => scan,
        })
    }

    /// A scan as the network sees it: on the grid, in axial order, clipped and normalised.
    ///
    /// # Errors
    /// As of [`Preprocessing::grid_for`] and [`Preprocessing::window`].
    pub fn prepare(&self, scan: &Volume, site: Option<&str>) -> Result<PreparedScan, Error> {
        let resampled = self.grid_for(scan)?;
        let mut slices = match resampled {
            Some(_) => self.on_grid(scan.clone())?.to_slices(),
            None => scan.to_slices(),
        };
        self.window(&mut slices, site)?;
        Ok(PreparedScan {
            slices,
            resampled,
            axial: scan.axial(),
        })
    }

    /// Labels of so many classes, the background included, on that grid. Labels above the last class count as it (method
    /// section "Data sets").
    ///
    /// Of one structure, a voxel is part only where all that it covers are (the reference takes the whole part of the
    /// average). Of several, the one that covers most of a voxel has it, the lowest of equals: an average of their
    /// numbers would be a third one's.
    ///
    /// # Errors
    /// As of [`Preprocessing::grid_for`].
    pub fn labels_on_grid(&self, mut labels: Volume, classes: usize) -> Result<Volume, Error> {
        let last = classes.saturating_sub(1) as f32;
        labels
            .voxels
            .iter_mut()
            .for_each(|value| *value = value.clamp(0.0, last));
        let Some(dims) = self.grid_for(&labels)? else {
            return Ok(labels);
        };
        let labels = labels.oriented();
        if classes <= 2 {
            let mut labels = averaged(&labels, dims);
            labels.voxels.iter_mut().for_each(|value| *value = value.trunc());
            return Ok(labels);
        }
        let mut share = Volume::new(labels.dims, labels.voxels.clone(), labels.affine);
        let of_class = |class: f32| {
            let pairs = share.voxels.iter_mut().zip(&labels.voxels);
            pairs.for_each(|(share, &label)| *share = f32::from(u8::from(label == class)));
            averaged(&share, dims)
        };
        let mut shares = (0..classes).map(|class| class as f32).map(of_class);
        let Some(mut largest) = shares.next() else {
            return Ok(labels);
        };
        let mut found = vec![0.0; largest.voxels.len()];
        for (class, shares) in (1..classes).zip(shares) {
            let places = found.iter_mut().zip(&mut largest.voxels).zip(shares.voxels);
            for ((found, largest), share) in places.filter(|((_, largest), share)| *share > **largest) {
                (*found, *largest) = (class as f32, share);
            }
        }
        largest.voxels = found;
        Ok(largest)
    }

    /// Clips and normalises values in place, as the site's scans were.
    ///
    /// # Errors
    /// Sites have ranges of their own, and this one has none.
    pub fn window(&self, slices: &mut Slices, site: Option<&str>) -> Result<(), Error> {
        let values = &mut slices.values;
        if let Some(range) = self.clip {
            clip(values, range);
        }
        if let Some(percent) = self.clip_percentile {
            let high = percentile(values, percent);
            clip(values, [f32::NEG_INFINITY, high]);
        }
        if self.sites.is_empty() {
            return Ok(());
        }
        let window = site.and_then(|site| self.sites.get(site)).ok_or_else(|| {
            let known: Vec<&str> = self.sites.keys().map(String::as_str).collect();
            Error::Config(format!(
                "intensities are prepared by site, and {} is none of them; name one of {}",
                site.map_or("no site".into(), |site| format!("'{site}'")),
                known.join(", ")
            ))
        })?;
        clip(values, window.clip);
        values
            .iter_mut()
            .for_each(|value| *value = (*value - window.mean) / window.std);
        Ok(())
    }
}

/// A scan as the network sees it.
#[derive(Debug, Clone)]
pub struct PreparedScan {
    /// What is segmented.
    pub slices: Slices,
    /// The grid of the slices, if it is not the scan's own: columns, rows, slices.
    resampled: Option<[usize; 3]>,
    /// How the scan's own axes map to axial slices.
    axial: Slicing,
}

impl PreparedScan {
    /// The slices' labels on the scan's own grid, in the file's order.
    pub fn restore(&self, labels: &[u8]) -> Vec<u8> {
        match self.resampled {
            Some(grid) => self.axial.restore(&off_grid(labels, grid, self.axial.dims)),
            None => self.axial.restore(labels),
        }
    }
}

/// Labels in axial order on a grid of columns, rows and slices, on a scan's own slices, rows and columns: each voxel takes
/// the label at its place.
fn off_grid(labels: &[u8], [wide, high, deep]: [usize; 3], [slices, rows, columns]: [usize; 3]) -> Vec<u8> {
    // The centre of voxel `i` of `n` lies at (2 i + 1) / 2 n of the side.
    let place = |index: usize, count: usize, of: usize| (2 * index + 1) * of / (2 * count);
    let mut whole = Vec::with_capacity(slices * rows * columns);
    for slice in 0..slices {
        for row in 0..rows {
            let start = (place(slice, slices, deep) * high + place(row, rows, high)) * wide;
            whole.extend((0..columns).map(|column| labels[start + place(column, columns, wide)]));
        }
    }
    whole
}

/// Whether a grid has no voxel, or too many.
fn is_absurd(grid: &[usize; 3]) -> bool {
    let voxels = grid.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    !voxels.is_some_and(|voxels| (1..=MOST_VOXELS).contains(&voxels)) || grid.iter().any(|&side| side > LONGEST_SIDE)
}

/// How many whole voxels come nearest to a number of them, at least one. Halves, which are frequent, are well away from
/// where it turns, so that a mask's grid is found again from its own header, rounded as that may be.
fn nearest(voxels: f64) -> usize {
    ((voxels + 0.499).floor() as usize).max(1)
}

fn clip(values: &mut [f32], [low, high]: [f32; 2]) {
    values.iter_mut().for_each(|value| *value = value.clamp(low, high));
}

/// A percentile, interpolated linearly between the two values next to it, as numpy does.
pub(crate) fn percentile(values: &[f32], percent: f64) -> f32 {
    let mut sorted = values.to_vec();
    let place = percent / 100.0 * (values.len().saturating_sub(1)) as f64;
    let below = place.floor() as usize;
    if below >= sorted.len() {
        return 0.0;
    }
    let (_, &mut low, above) = sorted.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    (low as f64 + (high as f64 - low as f64) * (place - below as f64)) as f32
}

/// A volume on another grid over the same space, axis by axis.
fn averaged(scan: &Volume, dims: [usize; 3]) -> Volume {
    let mut values: Vec<f64> = scan.voxels.iter().map(|&value| value as f64).collect();
    let mut now = scan.dims;
    for axis in 0..3 {
        values = averaged_along(&values, now, axis, dims[axis]);
        now[axis] = dims[axis];
    }
    let mut affine = scan.affine;
    for row in &mut affine {
        for axis in 0..3 {
            let factor = scan.dims[axis] as f64 / dims[axis] as f64;
            // The first voxel's outer face stays where it was.
            row[3] += row[axis] * (factor - 1.0) / 2.0;
            row[axis] *= factor;
        }
    }
    Volume::new(dims, values.into_iter().map(|value| value as f32).collect(), affine)
}

fn averaged_along(values: &[f64], dims: [usize; 3], axis: usize, count: usize) -> Vec<f64> {
    let length = dims[axis];
    let inner: usize = dims[..axis].iter().product();
    let mut out = Vec::with_capacity(values.len() / length * count);
    for block in values.chunks_exact(inner * length) {
        for index in 0..count {
            let (first, end) = (index * length / count, ((index + 1) * length).div_ceil(count));
            for place in 0..inner {
                let sum: f64 = (first..end).map(|at| block[at * inner + place]).sum();
                out.push(sum / (end - first) as f64);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFFINE: [[f64; 4]; 3] = [[-2.0, 0.0, 0.0, 10.0], [0.0, 1.0, 0.0, -5.0], [0.0, 0.0, 3.0, 0.0]];

    fn slices(values: &[f32]) -> Slices {
        Slices {
            dims: [1, 1, values.len()],
            values: values.to_vec(),
        }
    }

    #[test]
    fn a_percentile_lies_between_its_neighbours_as_numpys() {
        // numpy.quantile([3, 1, 2, 10], 0.99) is 9.79.
        assert!((percentile(&[3.0, 1.0, 2.0, 10.0], 99.0) - 9.79).abs() < 1e-6);
        assert_eq!(percentile(&[3.0, 1.0, 2.0, 10.0], 100.0), 10.0);
        assert_eq!(percentile(&[3.0, 1.0, 2.0, 10.0], 0.0), 1.0);
        assert_eq!(percentile(&[7.0], 50.0), 7.0);
    }

    #[test]
    fn a_sites_scan_is_clipped_and_normalised_by_its_own_window() {
        let window = Window {
            clip: [-66.0, 208.0],
            mean: 100.0,
            std: 50.0,
        };
        let preprocessing = Preprocessing {
            sites: [("A".to_owned(), window)].into(),
            ..Preprocessing::default()
        };
        let mut scan = slices(&[-1000.0, 100.0, 3000.0]);
        preprocessing.window(&mut scan, Some("A")).unwrap();
        assert_eq!(scan.values, [-3.32, 0.0, 2.16]);
        let refused = preprocessing.window(&mut scan, Some("G")).unwrap_err().to_string();
        assert!(refused.contains("'G'") && refused.contains("one of A"), "{refused}");
        assert!(preprocessing.window(&mut scan, None).is_err());
    }

    #[test]
    fn new_voxels_are_averages_of_those_they_cover() {
        let scan = Volume::new([4, 1, 3], (0..12).map(|value| value as f32).collect(), AFFINE);
        let preprocessing = Preprocessing {
            resample: Some([2, 1, 2]),
            ..Preprocessing::default()
        };
        let made = preprocessing.on_grid(scan.clone()).unwrap();
        // Of four columns pairs, from right to left; of three slices, from the head, the first two and the last two.
        assert_eq!(made.voxels, [6.5, 8.5, 2.5, 4.5]);
        // The corner of the first voxel: half a voxel before its centre.
        let corner = |volume: &Volume| {
            let row = |row: [f64; 4]| row[3] - (row[0] + row[1] + row[2]) / 2.0;
            volume.affine.map(row)
        };
        assert_eq!(corner(&made), corner(&scan.oriented()));
        assert_eq!(made.spacing(), [4.0, 1.0, 4.5]);
    }

    #[test]
    fn labels_need_the_whole_of_a_voxel_and_find_back() {
        let labels = Volume::new([4, 1, 1], vec![0.0, 1.0, 1.0, 1.0], AFFINE);
        let preprocessing = Preprocessing {
            resample: Some([2, 1, 1]),
            ..Preprocessing::default()
        };
        assert_eq!(preprocessing.labels_on_grid(labels, 2).unwrap().voxels, [0.0, 1.0]);
        assert_eq!(off_grid(&[0, 1], [2, 1, 1], [1, 1, 4]), [0, 0, 1, 1]);
        assert_eq!(off_grid(&[0, 1], [2, 1, 1], [1, 1, 3]), [0, 1, 1]);
        assert_eq!(off_grid(&[0, 1], [1, 1, 2], [4, 1, 1]), [0, 0, 1, 1]);
    }

    #[test]
    fn of_several_structures_the_one_that_covers_most_wins() {
        // Tumour (2) beside background makes no kidney (1); above the last class counts as it.
        let labels = Volume::new([6, 1, 1], vec![0.0, 2.0, 2.0, 7.0, 1.0, 2.0], AFFINE);
        let preprocessing = Preprocessing {
            resample: Some([2, 1, 1]),
            ..Preprocessing::default()
        };
        assert_eq!(
            preprocessing.labels_on_grid(labels.clone(), 3).unwrap().voxels,
            [2.0, 2.0]
        );
        let halves = Preprocessing {
            resample: Some([3, 1, 1]),
            ..Preprocessing::default()
        };
        assert_eq!(halves.labels_on_grid(labels, 3).unwrap().voxels, [0.0, 2.0, 1.0]);
    }

    #[test]
    fn a_spacing_means_the_same_grid_in_any_order_of_axes() {
        // 5 columns of 2 mm, 4 rows of 1 mm, 3 slices of 3 mm; then the same scan with its axes towards slices, columns
        // (backwards) and rows.
        let scan = Volume::new([5, 4, 3], (0..60).map(|value| value as f32).collect(), AFFINE);
        let turned = [[0.0, 2.0, 0.0, 2.0], [0.0, 0.0, 1.0, -5.0], [3.0, 0.0, 0.0, 0.0]];
        let at = |place: usize| {
            let [slice, column, row] = [place % 3, place / 3 % 5, place / 15];
            (4 - column + 5 * (row + 4 * slice)) as f32
        };
        let other = Volume::new([3, 5, 4], (0..60).map(at).collect(), turned);
        let by = |spacing| Preprocessing {
            spacing_mm: Some(spacing),
            ..Preprocessing::default()
        };
        for (spacing, grid) in [
            ([1.0, 1.0, 1.0], Some([10, 4, 9])),
            ([2.0, 1.0, 3.0], None),
            ([4.0, 2.0, 4.5], Some([2, 2, 2])),
            ([1000.0, 1000.0, 1000.0], Some([1, 1, 1])),
        ] {
            let preprocessing = by(spacing);
            assert_eq!(preprocessing.grid_for(&scan).unwrap(), grid, "{spacing:?}");
            assert_eq!(preprocessing.grid_for(&other).unwrap(), grid, "{spacing:?}");
            let [one, two] = [&scan, &other].map(|scan| preprocessing.on_grid(scan.clone()).unwrap());
            assert_eq!(one.to_slices(), two.to_slices(), "{spacing:?}");
            // As by its number of voxels; and what is on the grid stays there.
            let by_number = Preprocessing {
                resample: grid,
                ..Preprocessing::default()
            };
            assert_eq!(by_number.on_grid(scan.clone()).unwrap().voxels, one.voxels);
            assert_eq!(preprocessing.grid_for(&one).unwrap(), None, "{spacing:?}");
        }
        assert!(by([1.0, 1.0, 1.0]).resampling_bytes(&scan, Content::Scan).unwrap() > 0);
        assert_eq!(by([2.0, 1.0, 3.0]).resampling_bytes(&scan, Content::Scan).unwrap(), 0);
        // What a whole number of voxels cannot fill is nearly so.
        let odd = by([3.0, 1.0, 3.0]).on_grid(scan.clone()).unwrap();
        assert_eq!(odd.dims, [3, 4, 3]);
        assert!((odd.spacing()[0] - 10.0 / 3.0).abs() < 1e-9);
        let refused = by([0.001, 1.0, 1.0]);
        assert!(refused.check().is_ok());
        let mut wide = scan;
        wide.affine = AFFINE.map(|row| row.map(|value| 10.0 * value));
        let said = refused.grid_for(&wide).unwrap_err().to_string();
        assert!(
            said.contains("100000 x 40 x 90") && said.contains("wider spacing"),
            "{said}"
        );
        assert!(refused.on_grid(wide.clone()).is_err() && refused.labels_on_grid(wide, 2).is_err());
    }

    /// A mask on the grid is asked for its grid again when it is compared, and its header is rounded.
    #[test]
    fn a_grid_is_found_again_from_a_rounded_header() {
        for (count, spacing) in [(79, 0.5), (33, 1.2), (19, 2.0), (37, 0.9375), (101, 0.7), (1, 0.3)] {
            let affine = [
                [-spacing, 0.0, 0.0, 0.1],
                [0.0, spacing, 0.0, 0.2],
                [0.0, 0.0, spacing, 0.3],
            ];
            let scan = Volume::new([count; 3], vec![0.0; count.pow(3)], affine);
            let preprocessing = Preprocessing {
                spacing_mm: Some([1.0; 3]),
                ..Preprocessing::default()
            };
            let on_grid = preprocessing.on_grid(scan).unwrap();
            for grain in [-1e-6, 0.0, 1e-6] {
                let mut rounded = on_grid.clone();
                rounded.affine = rounded.affine.map(|row| row.map(|value| value * (1.0 + grain)));
                assert_eq!(
                    preprocessing.grid_for(&rounded).unwrap(),
                    None,
                    "{count} of {spacing} mm"
                );
            }
        }
    }

    #[test]
    fn earlier_adapters_are_read_and_unused_settings_not_written() {
        let earlier = r#"{"resample":[48,60,48],"scaling":"volume"}"#;
        let read: Preprocessing = serde_json::from_str(earlier).unwrap();
        assert_eq!((read.resample, read.spacing_mm), (Some([48, 60, 48]), None));
        assert_eq!(serde_json::to_string(&read).unwrap(), earlier);
        let by_spacing = r#"{"spacing_mm":[1.0,0.7,1.25],"scaling":"volume"}"#;
        let read: Preprocessing = serde_json::from_str(by_spacing).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), by_spacing);
    }

    #[test]
    fn settings_without_sense_are_refused() {
        let refused = |preprocessing: Preprocessing| preprocessing.check().unwrap_err().to_string();
        let with = Preprocessing::default;
        assert!(
            refused(Preprocessing {
                clip: Some([1.0, 1.0]),
                ..with()
            })
            .contains("clip")
        );
        assert!(
            refused(Preprocessing {
                clip: Some([f32::NAN, 1.0]),
                ..with()
            })
            .contains("clip")
        );
        assert!(
            refused(Preprocessing {
                clip_percentile: Some(101.0),
                ..with()
            })
            .contains("percentile")
        );
        assert!(
            refused(Preprocessing {
                resample: Some([1, 0, 1]),
                ..with()
            })
            .contains("resample")
        );
        for distance in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            let spacing_mm = Some([1.0, distance, 1.0]);
            assert!(
                refused(Preprocessing { spacing_mm, ..with() }).contains("'spacing_mm' is"),
                "{distance}"
            );
        }
        let both = refused(Preprocessing {
            resample: Some([1, 1, 1]),
            spacing_mm: Some([1.0, 1.0, 1.0]),
            ..with()
        });
        assert!(both.contains("keep one"), "{both}");
        let window = Window {
            clip: [0.0, 1.0],
            mean: 0.0,
            std: 0.0,
        };
        assert!(
            refused(Preprocessing {
                sites: [("A".to_owned(), window)].into(),
                ..with()
            })
            .contains("std")
        );
        assert!(with().check().is_ok());
    }
}
