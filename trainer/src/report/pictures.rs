//! Slices of the best and the worst cases, with the contours of truth and prediction.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::volume::Slices;
use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::runs::RunFolder;
use crate::data::cases::dataset::{LabelledCase, read_case, read_volume};
use crate::data::cases::lock::ready;
use crate::data::manifest::Manifest;
use crate::error::Error;
use crate::experiment::CaseScores;

/// Cases at each end that are shown.
const AT_EACH_END: usize = 2;

/// Where scans and their labels are.
#[derive(Debug, Clone)]
pub struct Source {
    /// Folder of manifests.
    pub manifests: PathBuf,
    /// Folder of data sets, each in a folder of its own name.
    pub data: PathBuf,
}

/// A slice of a test case: its rows run towards the back, its columns towards the patient's left.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The case and its Dice, of the whole volume.
    pub case: CaseScores,
    /// The seed of the run that predicted.
    pub seed: u64,
    /// Foreground classes, from 0, that are nowhere in the true labels.
    pub absent: Vec<usize>,
    /// Whether it is among the best or among the worst.
    pub best: bool,
    /// Which slice, from 1, counted from the head.
    pub slice: usize,
    /// How many there are.
    pub slices: usize,
    /// Rows and columns.
    pub voxels: [usize; 2],
    /// Height and width, mm.
    pub size: [f64; 2],
    /// The scan's values, black and white at the ends of the window: a PNG file.
    pub png: Vec<u8>,
    /// The outlines that the slice has.
    pub contours: Vec<Contour>,
}

/// The outline of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contour {
    /// Which foreground class, from 0.
    pub class: usize,
    /// Of the true labels; otherwise of the prediction.
    pub truth: bool,
    /// An SVG path along the voxels' edges, in columns and rows.
    pub path: String,
}

/// The best and the worst cases of the first run that kept its masks, or why there are none.
pub fn pictures(runs: &[RunFolder], source: &Source) -> Result<Vec<Picture>, String> {
    let kept = |run: &&RunFolder| {
        let mut cases = run.record.cases.iter();
        cases.all(|case| run.prediction(&case.site, &case.case).is_file())
    };
    let run = runs
        .iter()
        .find(kept)
        .ok_or("no run kept the predicted masks of all its cases")?;
    let preprocessing = &run.adapter.as_ref()?.preprocessing;
    let path = source.manifests.join(format!("{}.json", run.record.data));
    let manifest = ready(&path, &source.data).and_then(|manifest| run.settings.divided(manifest));
    let manifest = manifest.map_err(|why| why.to_string())?;
    if manifest.sha256 != run.provenance.data_sha256 {
        return Err(format!(
            "the data set of {} is not the one of the run: its table's sha256 is {}",
            path.display(),
            manifest.sha256
        ));
    }
    let draw = |(case, best): (&CaseScores, bool)| {
        let scene = Scene::read(run, case, &manifest, source, preprocessing)?;
        Ok(scene.picture(case, best))
    };
    let pictures = extremes(&run.record.cases).into_iter().map(draw);
    pictures.collect::<Result<_, Error>>().map_err(|why| why.to_string())
}

/// The best and the worst cases by mean Dice, the best of all first, the worst of all last; each case once.
fn extremes(cases: &[CaseScores]) -> Vec<(&CaseScores, bool)> {
    let mean = |case: &CaseScores| case.dice.iter().sum::<f64>() / case.dice.len() as f64;
    let mut sorted: Vec<&CaseScores> = cases.iter().collect();
    sorted.sort_by(|one, other| mean(other).total_cmp(&mean(one)));
    let best = AT_EACH_END.min(sorted.len().div_ceil(2));
    let worst = AT_EACH_END.min(sorted.len() - best);
    let worst = sorted[sorted.len() - worst..].iter().map(|case| (*case, false));
    sorted[..best].iter().map(|case| (*case, true)).chain(worst).collect()
}

/// A case with its true and its predicted labels, in axial order.
struct Scene {
    truth: LabelledCase,
    predicted: Vec<u8>,
    window: [f32; 2],
    classes: usize,
    seed: u64,
}

impl Scene {
    fn read(
        run: &RunFolder,
        case: &CaseScores,
        manifest: &Manifest,
        source: &Source,
        preprocessing: &Preprocessing,
    ) -> Result<Self, Error> {
        let of_case = manifest
            .cases
            .iter()
            .find(|known| known.id == case.case && known.site == case.site);
        let of_case = of_case.ok_or_else(|| {
            let why = format!(
                "it has no case '{}' of site '{}'; make the run once more",
                case.case, case.site
            );
            Error::invalid(&source.manifests.join(format!("{}.json", manifest.about.name)), why)
        })?;
        let classes = run.record.classes.len();
        let truth = read_case(&source.data.join(&manifest.about.name), of_case, classes, preprocessing)?;
        let path = run.prediction(&case.site, &case.case);
        let predicted = read_volume(&path, None, &Preprocessing::default())?;
        if predicted.dims != truth.grid.dims {
            let why = format!(
                "its shape {:?} is not that of the prepared scan, {:?}; make the run once more",
                predicted.dims, truth.grid.dims
            );
            return Err(Error::invalid(&path, why));
        }
        // In the scan's axial order, as the labels are.
        let indices = truth.grid.axial().indices();
        Ok(Self {
            predicted: indices.map(|index| predicted.voxels[index] as u8).collect(),
            window: window(preprocessing, &case.site, &truth.slices),
            truth,
            classes,
            seed: run.record.seed,
        })
    }

    fn picture(&self, case: &CaseScores, best: bool) -> Picture {
        let [slices, rows, columns] = self.truth.slices.dims;
        let slice = self.fullest_slice();
        let area = slice * rows * columns..(slice + 1) * rows * columns;
        let labels = [(true, &self.truth.labels[area.clone()]), (false, &self.predicted[area])];
        let contours = labels.into_iter().flat_map(|(truth, labels)| {
            (1..self.classes).map(move |class| Contour {
                class: class - 1,
                truth,
                path: outline(labels, class as u8, columns),
            })
        });
        let (axes, spacing) = (self.truth.grid.axial().axes(), self.truth.grid.spacing());
        Picture {
            case: case.clone(),
            seed: self.seed,
            absent: (1..self.classes)
                .filter(|&class| self.truth.labels.iter().all(|&label| label as usize != class))
                .map(|class| class - 1)
                .collect(),
            best,
            slice: slice + 1,
            slices,
            voxels: [rows, columns],
            size: [rows as f64 * spacing[axes[1]], columns as f64 * spacing[axes[2]]],
            png: grey_png(&self.grey(slice), columns),
            contours: contours.filter(|contour| !contour.path.is_empty()).collect(),
        }
    }

    /// The slice with the largest true area; without any, the one with the largest predicted area, or the first.
    fn fullest_slice(&self) -> usize {
        let [_, rows, columns] = self.truth.slices.dims;
        let fullest = |labels: &[u8]| {
            let slices = labels.chunks_exact(rows * columns);
            let areas = slices.map(|slice| slice.iter().filter(|&&label| label > 0).count());
            // The first of equals.
            areas
                .enumerate()
                .rev()
                .max_by_key(|(_, area)| *area)
                .filter(|(_, area)| *area > 0)
        };
        let found = fullest(&self.truth.labels).or_else(|| fullest(&self.predicted));
        found.map_or(0, |(slice, _)| slice)
    }

    fn grey(&self, slice: usize) -> Vec<u8> {
        let [low, high] = self.window;
        let grey = |value: &f32| ((value - low) / (high - low) * 255.0).round().clamp(0.0, 255.0) as u8;
        self.truth.slices.slice(slice).iter().map(grey).collect()
    }
}

/// The values that are shown as black and as white: the clip's ends, or the volume's 0.5 and 99.5 percentiles.
fn window(preprocessing: &Preprocessing, site: &str, slices: &Slices) -> [f32; 2] {
    match (preprocessing.sites.get(site), preprocessing.clip) {
        (Some(window), _) => window.clip.map(|end| (end - window.mean) / window.std),
        (None, Some(clip)) => clip,
        (None, None) => {
            let mut sorted = slices.values.clone();
            sorted.sort_unstable_by(f32::total_cmp);
            let at = |share: f64| {
                let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
                sorted.get(place).copied().unwrap_or_default()
            };
            let (low, high) = (at(0.005), at(0.995));
            // A scan of one value has no window.
            [low, if high > low { high } else { low + 1.0 }]
        }
    }
}

/// A step along a voxel's edge: columns and rows.
type Step = (isize, isize);

/// The outline of a class in a slice, as closed paths along the voxels' edges; empty where the class is not there.
fn outline(labels: &[u8], class: u8, columns: usize) -> String {
    let mut edges = edges(labels, class, columns);
    let mut path = String::new();
    while let Some((&start, _)) = edges.first_key_value() {
        let _ = write!(path, "M{} {}", start.1, start.0);
        let mut run: Step = (0, 0);
        for step in trace(&mut edges, start) {
            // Straight on is one line.
            if (step.0 == 0) != (run.0 == 0) || run == (0, 0) {
                write_line(&mut path, run);
                run = (0, 0);
            }
            run = (run.0 + step.0, run.1 + step.1);
        }
        write_line(&mut path, run);
        path.push('z');
    }
    path
}

fn write_line(path: &mut String, (columns, rows): Step) {
    let _ = match (columns, rows) {
        (0, 0) => Ok(()),
        (0, rows) => write!(path, "v{rows}"),
        (columns, _) => write!(path, "h{columns}"),
    };
}

/// The edges between a class and the rest, by the corner (row, column) where they start; the class lies on their right.
fn edges(labels: &[u8], class: u8, columns: usize) -> BTreeMap<(isize, isize), Vec<Step>> {
    let (width, height) = (columns as isize, (labels.len() / columns.max(1)) as isize);
    let inside = |row: isize, column: isize| {
        (0..height).contains(&row)
            && (0..width).contains(&column)
            && labels[row as usize * columns + column as usize] == class
    };
    let mut edges: BTreeMap<(isize, isize), Vec<Step>> = BTreeMap::new();
    for row in 0..height {
        for column in (0..width).filter(|&column| inside(row, column)) {
            let sides = [
                ((-1, 0), (row, column), (1, 0)),
                ((0, 1), (row, column + 1), (0, 1)),
                ((1, 0), (row + 1, column + 1), (-1, 0)),
                ((0, -1), (row + 1, column), (0, -1)),
            ];
            for ((down, right), corner, step) in sides {
                if !inside(row + down, column + right) {
                    edges.entry(corner).or_default().push(step);
                }
            }
        }
    }
    edges
}

/// Takes the edges of one closed path. Where two voxels touch at a corner only, it turns right, around one of them.
fn trace(edges: &mut BTreeMap<(isize, isize), Vec<Step>>, start: (isize, isize)) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = start;
    while let Some(ways) = edges.get_mut(&at) {
        let right = steps.last().map(|&(columns, rows)| (-rows, columns));
        let way = ways.iter().position(|way| Some(*way) == right).unwrap_or(0);
        let step = ways.swap_remove(way);
        if ways.is_empty() {
            edges.remove(&at);
        }
        steps.push(step);
        at = (at.0 + step.1, at.1 + step.0);
        if at == start {
            break;
        }
    }
    steps
}

/// A PNG file of 8-bit grey.
fn grey_png(grey: &[u8], columns: usize) -> Vec<u8> {
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::best());
    for row in grey.chunks_exact(columns.max(1)) {
        // Each row begins with its filter: none.
        rows.write_all(&[0])
            .and_then(|()| rows.write_all(row))
            .expect("writing to memory cannot fail");
    }
    let rows = rows.finish().expect("writing to memory cannot fail");
    let mut header = Vec::new();
    header.extend((columns as u32).to_be_bytes());
    header.extend(((grey.len() / columns.max(1)) as u32).to_be_bytes());
    // 8 bits of grey; the only compression and filtering there are; not interlaced.
    header.extend([8, 0, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header), (b"IDAT", &rows), (b"IEND", &Vec::new())] {
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(sum.sum().to_be_bytes());
    }
    png
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_are_closed_and_follow_the_voxels() {
        // One voxel, at row 1 and column 1 of 3 x 3.
        let one = [0, 0, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(outline(&one, 2, 3), "M1 1h1v1h-1v-1z");
        assert_eq!(outline(&one, 1, 3), "");
        // A row of three is one rectangle.
        assert_eq!(outline(&[0, 0, 0, 1, 1, 1], 1, 3), "M0 1h3v1h-3v-1z");
        // Two that touch at a corner are two, and a ring has an inner outline.
        assert_eq!(outline(&[1, 0, 0, 1], 1, 2).matches('M').count(), 2);
        assert_eq!(
            outline(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 1, 3),
            "M0 0h3v3h-3v-3zM1 1v1h1v-1h-1z"
        );
    }

    #[test]
    fn extremes_are_different_cases() {
        let case = |name: &str, dice: f64| CaseScores {
            site: "A".into(),
            case: name.into(),
            patient: None,
            dice: vec![dice],
            hausdorff_95_mm: Vec::new(),
            surface_dice: Vec::new(),
        };
        let names = |cases: &[CaseScores]| {
            let extremes = extremes(cases).into_iter();
            let names = extremes.map(|(case, best)| format!("{}{}", case.case, if best { "+" } else { "-" }));
            names.collect::<Vec<_>>().join(" ")
        };
        let all = [
            case("a", 0.2),
            case("b", 0.9),
            case("c", 0.1),
            case("d", 0.5),
            case("e", 0.7),
        ];
        assert_eq!(names(&all), "b+ e+ a- c-");
        assert_eq!(names(&all[..3]), "b+ a+ c-");
        assert_eq!(names(&all[..1]), "a+");
        assert_eq!(names(&[]), "");
    }
}
