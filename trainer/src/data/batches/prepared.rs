//! Prepared cases: training volumes in files from which single stacks are read, so that a data set of any size trains in
//! little memory.
//!
//! The files are a cache beside the data sets, `.prepared/NAME/KEY/CASE.safetensors`. The key tells manifests, settings
//! and versions of this program apart, so that nothing prepared otherwise is ever used. Nobody else needs the files: they
//! may be deleted at any time at which no run reads them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use flapsam_model::preprocessing::Preprocessing;
use flapsam_model::random::Random;
use flapsam_model::resize;
use flapsam_model::segment::range;
use flapsam_model::volume::Volume;
use safetensors::tensor::{Dtype, Metadata, TensorView, serialize};

use crate::data::cases::dataset::{LabelledCase, read_case};
use crate::data::cases::memory::read_all;
use crate::data::manifest::{Case, Manifest};
use crate::error::{Error, Result};
use crate::files::write;
use crate::progress::Progress;

/// Where the prepared cases of a data set are.
pub fn folder(data: &Path, name: &str) -> PathBuf {
    data.join(".prepared").join(name)
}

/// A case as training reads it: slices in axial order, with clipped values, and their labels.
#[derive(Debug, Clone)]
pub struct PreparedCase {
    path: PathBuf,
    /// Slices, rows, columns.
    dims: [usize; 3],
    /// Smallest and largest value of each slice, before it was resized.
    ranges: Vec<[f32; 2]>,
    /// Where the slices and the labels begin in the file.
    starts: [u64; 2],
}

/// How cases are prepared, and where the files are.
#[derive(Debug)]
pub struct Preparation<'a> {
    manifest: &'a Manifest,
    preprocessing: &'a Preprocessing,
    source: PathBuf,
    folder: PathBuf,
    side: Option<usize>,
}

impl<'a> Preparation<'a> {
    /// Slices get the size `side`, or keep their own without it.
    pub fn new(data: &Path, manifest: &'a Manifest, preprocessing: &'a Preprocessing, side: Option<usize>) -> Self {
        let classes = manifest.classes.len();
        let settings = format!(
            "{side:?} {preprocessing:?} {classes} {:?}",
            probe(preprocessing, classes, side)
        );
        let name = &manifest.about.name;
        let key = format!("{}-{}", short(&manifest.sha256), short(&sha256(settings.as_bytes())));
        Self {
            manifest,
            preprocessing,
            source: data.join(name),
            folder: folder(data, name).join(key),
            side,
        }
    }

    /// Prepares cases, or finds them prepared.
    ///
    /// # Errors
    /// A case cannot be read, or its file not written.
    pub fn cases(&self, cases: &[&Case]) -> Result<Vec<PreparedCase>> {
        let progress = Progress::new(cases.len());
        let prepare = |case: &Case| {
            let path = self.folder.join(format!("{}.safetensors", case.id));
            let found = match PreparedCase::open(&path) {
                Some(found) => found,
                None => {
                    let classes = self.manifest.classes.len();
                    let read = read_case(&self.source, case, classes, self.preprocessing)?;
                    write(&path, &to_bytes(read, self.side))?;
                    PreparedCase::open(&path)
                        .ok_or_else(|| Error::invalid(&path, "it was not written as a whole; check the disk"))?
                }
            };
            progress.step(&format!("{} prepared", case.id));
            Ok(found)
        };
        read_all(cases, prepare)
    }
}

/// What this program makes of a volume of noise: a program that prepares otherwise makes something else of it.
fn probe(preprocessing: &Preprocessing, classes: usize, side: Option<usize>) -> Option<String> {
    const DIMS: [usize; 3] = [9, 11, 7];
    const AFFINE: [[f64; 4]; 3] = [[-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 0.0]];
    let mut random = Random::new(0, "probe");
    let mut volume = |low: f64, high: f64| {
        let voxels = (0..DIMS.iter().product()).map(|_| random.uniform(low, high).round() as f32);
        Volume::new(DIMS, voxels.collect(), AFFINE)
    };
    let (scan, labels) = (volume(-1000.0, 1000.0), volume(0.0, 3.0));
    let site = preprocessing.sites.keys().next().map_or("", String::as_str);
    let case = LabelledCase::new(scan, labels, site, classes, preprocessing).ok()?;
    Some(sha256(&to_bytes(case, side)))
}

/// As much of a checksum as tells folders apart.
fn short(sha256: &str) -> &str {
    &sha256[..sha256.len().min(16)]
}

fn to_bytes(case: LabelledCase, side: Option<usize>) -> Vec<u8> {
    let [count, rows, columns] = case.slices.dims;
    let to = side.map_or([rows, columns], |side| [side, side]);
    let mut slices: Vec<u8> = Vec::with_capacity(4 * count * to[0] * to[1]);
    let mut labels = Vec::with_capacity(count * to[0] * to[1]);
    let mut ranges: Vec<u8> = Vec::with_capacity(8 * count);
    for index in 0..count {
        let values = case.slices.slice(index);
        ranges.extend(range(values).into_iter().flat_map(f32::to_le_bytes));
        let resized = resize::cubic(values, [rows, columns], to);
        slices.extend(resized.into_iter().flat_map(f32::to_le_bytes));
        let area = rows * columns;
        labels.extend(resize::nearest(
            &case.labels[index * area..(index + 1) * area],
            [rows, columns],
            to,
        ));
    }
    let shape = vec![count, to[0], to[1]];
    let view = |dtype, shape: Vec<usize>, bytes| {
        TensorView::new(dtype, shape, bytes).expect("as many bytes as the shape says were just made")
    };
    let tensors = [
        ("slices", view(Dtype::F32, shape.clone(), &slices)),
        ("labels", view(Dtype::U8, shape, &labels)),
        ("ranges", view(Dtype::F32, vec![count, 2], &ranges)),
    ];
    serialize(tensors, None).expect("three tensors of plain numbers can be written")
}

impl PreparedCase {
    /// A prepared file; `None` if there is none, or not a whole one.
    fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).ok()?;
        let size = u64::from_le_bytes(size);
        if size > length.min(1 << 20) {
            return None;
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).ok()?;
        let metadata: Metadata = serde_json::from_slice(&header).ok()?;
        let begin = 8 + size;
        if begin + metadata.data_len() as u64 != length {
            return None;
        }
        let info = |name: &str| metadata.info(name);
        let start = |name: &str| Some(begin + info(name)?.data_offsets.0 as u64);
        let dims: [usize; 3] = info("slices")?.shape.clone().try_into().ok()?;
        let mut ranges = vec![0; 8 * dims[0]];
        file.seek(SeekFrom::Start(start("ranges")?)).ok()?;
        file.read_exact(&mut ranges).ok()?;
        let bounds = floats(&ranges);
        Some(Self {
            path: path.to_owned(),
            dims,
            ranges: bounds.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect(),
            starts: [start("slices")?, start("labels")?],
        })
    }

    /// Number of slices, and so of stacks.
    pub fn len(&self) -> usize {
        self.dims[0]
    }

    /// Whether there is no slice.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns of a slice.
    pub fn size(&self) -> [usize; 2] {
        [self.dims[1], self.dims[2]]
    }

    /// Smallest and largest value of a slice, before it was resized.
    pub fn range(&self, slice: usize) -> [f32; 2] {
        self.ranges[slice]
    }

    /// Values and labels of the slices `first..end`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, first: usize, end: usize) -> Result<(Vec<f32>, Vec<u8>)> {
        let area = self.dims[1] * self.dims[2];
        let failed = |why| Error::file("read", &self.path)(why);
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut part = |start: u64, size: usize| {
            let mut bytes = vec![0; (end - first) * area * size];
            file.seek(SeekFrom::Start(start + (first * area * size) as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let values = part(self.starts[0], 4).map_err(failed)?;
        let labels = part(self.starts[1], 1).map_err(failed)?;
        Ok((floats(&values), labels))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let value = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    bytes.chunks_exact(4).map(value).collect()
}
