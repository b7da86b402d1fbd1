//! Which images make a series, where they lie, and their values.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::{tags, uids};
use dicom_object::{InMemDicomObject, OpenFileOptions};
use dicom_pixeldata::{DecodedPixelData, PixelDecoder, PixelRepresentation};
use flapsam_model::volume::{Affine, Volume};
use rayon::prelude::*;

use super::attributes::{Attributes, count, text};
use super::{lengths, packed};
use crate::error::{Error, Result};
use crate::files::{enough_memory, files_below};

/// How far a place may be from where its neighbours put it, as a share of the distance between two images.
const UNEVEN: f64 = 0.02;
/// The same for what all images of a volume share: directions (no unit) and distances (mm).
const UNLIKE: f64 = 1e-3;

/// Images of one size and direction, one behind the other.
#[derive(Debug)]
pub struct Series {
    /// What the first of its files says, but for pixels.
    pub(super) header: InMemDicomObject,
    /// By their place, along the normal of their plane.
    pub(super) images: Vec<Image>,
    pub(super) plane: Plane,
}

/// One image of a series.
#[derive(Debug, Clone)]
pub(super) struct Image {
    path: PathBuf,
    /// Of the file's frames, from 0.
    pub frame: usize,
    /// Whether its file holds others.
    pub among_others: bool,
    pub class_uid: String,
    pub instance_uid: String,
    /// Centre of the first pixel, mm, towards the patient's left, back and head.
    pub position: [f64; 3],
    /// Slope and intercept from a stored number to its value (HU for CT).
    rescale: [f64; 2],
}

/// What all images of a series share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plane {
    pub rows: usize,
    pub columns: usize,
    /// Direction of a row's pixels, then of a column's.
    pub directions: [f64; 6],
    /// Distance between rows, then between columns, mm.
    pub spacing: [f64; 2],
}

/// A file's header.
struct Header {
    path: PathBuf,
    object: InMemDicomObject,
}

/// Whether a scan at this path is DICOM: a folder, or a file that says so and has no NIfTI name.
pub fn is_dicom(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    let nifti = name.ends_with(".nii") || name.ends_with(".nii.gz");
    path.is_dir() || (!nifti && has_magic(path))
}

fn has_magic(path: &Path) -> bool {
    let mut start = [0; 132];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.ends_with(b"DICM")
}

impl Series {
    /// The one series of images in a folder and those below it, or the one that `name` names by its description, number or
    /// UID; a file is a series of its own. Other files are passed over.
    ///
    /// # Errors
    /// There is none, or several and none is named; its images do not make a volume.
    pub fn open(path: &Path, name: Option<&str>) -> Result<Self> {
        let files = match path.is_dir() {
            true => files_below(path)?,
            false => vec![path.to_owned()],
        };
        let headers: Vec<Header> = files.into_par_iter().filter_map(header_of).collect();
        Self::of(path, chosen(path, headers, name)?)
    }

    fn of(path: &Path, mut headers: Vec<Header>) -> Result<Self> {
        let images: Result<Vec<Vec<(Image, Plane)>>> = headers.iter().map(images_of).collect();
        let (mut images, planes): (Vec<Image>, Vec<Plane>) = images?.into_iter().flatten().unzip();
        let Some(&plane) = planes.first() else {
            return Err(Error::invalid(
                path,
                "it holds no DICOM images; name the folder of a series",
            ));
        };
        if let Some(odd) = planes.iter().position(|other| !plane.is_like(other)) {
            let why = format!(
                "the images of this series differ in size, direction or spacing ({} and {}), so they make no volume; name \
                 the folder of one that does",
                images[0].path.display(),
                images[odd].path.display()
            );
            return Err(Error::invalid(path, why));
        }
        let place = |image: &Image| dot(plane.normal(), image.position);
        images.sort_by(|one, other| place(one).total_cmp(&place(other)));
        let series = Self {
            header: headers.swap_remove(0).object,
            images,
            plane,
        };
        series.check_even(path)?;
        Ok(series)
    }

    /// Its files.
    pub fn paths(&self) -> Vec<&Path> {
        self.images.iter().map(|image| image.path.as_path()).collect()
    }

    /// Images in columns, rows and places.
    fn dims(&self) -> [usize; 3] {
        [self.plane.columns, self.plane.rows, self.images.len()]
    }

    /// From one image to the next, mm.
    pub(super) fn step(&self) -> [f64; 3] {
        let (first, last) = (&self.images[0], &self.images[self.images.len() - 1]);
        match self.images.len() {
            1 => {
                let thickness = [tags::SPACING_BETWEEN_SLICES, tags::SLICE_THICKNESS].map(|tag| {
                    let attributes = Attributes {
                        path: &first.path,
                        object: &self.header,
                        frame: first.frame,
                    };
                    let found = attributes.numbers(tag, tags::PIXEL_MEASURES_SEQUENCE)?;
                    found.first().copied().filter(|mm| mm.is_finite() && *mm > 0.0)
                });
                let thickness = thickness.into_iter().flatten().next().unwrap_or(1.0);
                self.plane.normal().map(|part| part * thickness)
            }
            images => [0, 1, 2].map(|axis| (last.position[axis] - first.position[axis]) / (images - 1) as f64),
        }
    }

    /// Refuses images that are missing or lie at one place.
    fn check_even(&self, path: &Path) -> Result<()> {
        let step = self.step();
        let distance = dot(step, step).sqrt();
        for pair in self.images.windows(2) {
            let between = [0, 1, 2].map(|axis| pair[1].position[axis] - pair[0].position[axis]);
            let apart = dot(between, self.plane.normal());
            let off = [0, 1, 2].map(|axis| between[axis] - step[axis]);
            let (one, other) = (pair[0].path.display(), pair[1].path.display());
            if apart <= UNLIKE {
                let why = format!(
                    "{one} and {other} lie at one place, as the times or echoes of a series do; put the images of one \
                     volume into a folder of their own"
                );
                return Err(Error::invalid(path, why));
            }
            if dot(off, off).sqrt() > UNEVEN * distance {
                let why = format!(
                    "{one} and {other} are {apart:.2} mm apart and others {distance:.2}: an image is missing, or they are \
                     not evenly spaced; export the series again, or resample it to NIfTI"
                );
                return Err(Error::invalid(path, why));
            }
        }
        Ok(())
    }

    /// Voxel indices to millimetres, in right-anterior-superior directions; DICOM's are left and posterior.
    fn affine(&self) -> Affine {
        let plane = &self.plane;
        let step = self.step();
        [0, 1, 2].map(|axis| {
            let sign = if axis < 2 { -1.0 } else { 1.0 };
            let row = [
                plane.directions[axis] * plane.spacing[1],
                plane.directions[3 + axis] * plane.spacing[0],
                step[axis],
                self.images[0].position[axis],
            ];
            row.map(|value| sign * value)
        })
    }

    /// The images' values as a volume, the first axis along a row.
    ///
    /// # Errors
    /// An image cannot be read or unpacked, or there is no memory for them.
    pub fn volume(&self) -> Result<Volume> {
        let dims = self.dims();
        let pixels = self.plane.rows * self.plane.columns;
        // Values, their copy in axial order, and what unpacking takes.
        let needed = (pixels * self.images.len()) as u64 * 12;
        enough_memory(needed).map_err(|why| Error::invalid(&self.images[0].path, why))?;
        let mut voxels = vec![0.0; pixels * self.images.len()];
        // The frames of a file are unpacked together.
        let mut files: BTreeMap<&Path, Vec<(&Image, &mut [f32])>> = BTreeMap::new();
        for (image, values) in self.images.iter().zip(voxels.chunks_exact_mut(pixels)) {
            files.entry(&image.path).or_default().push((image, values));
        }
        files
            .into_iter()
            .collect::<Vec<_>>()
            .into_par_iter()
            .try_for_each(|(path, images)| fill(path, images))?;
        Ok(Volume::new(dims, voxels, self.affine()))
    }
}

impl Plane {
    /// At right angles to rows and columns.
    pub fn normal(&self) -> [f64; 3] {
        let [a, b, c, d, e, f] = self.directions;
        [b * f - c * e, c * d - a * f, a * e - b * d]
    }

    fn is_like(&self, other: &Self) -> bool {
        let near = |one: &[f64], other: &[f64]| one.iter().zip(other).all(|(one, other)| (one - other).abs() < UNLIKE);
        (self.rows, self.columns) == (other.rows, other.columns)
            && near(&self.directions, &other.directions)
            && near(&self.spacing, &other.spacing)
    }
}

fn dot(one: [f64; 3], other: [f64; 3]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The header of a file that holds images.
fn header_of(path: PathBuf) -> Option<Header> {
    if !(has_magic(&path) && lengths::fit(&path)) {
        return None;
    }
    let file = OpenFileOptions::new()
        .read_until(tags::PIXEL_DATA)
        .open_file(&path)
        .ok()?;
    let object = file.into_inner();
    let has_pixels = object.get(tags::ROWS).is_some() && object.get(tags::COLUMNS).is_some();
    // Masks lie beside the series that they were made of.
    let is_mask = text(&object, tags::SOP_CLASS_UID).as_deref() == Some(uids::SEGMENTATION_STORAGE);
    (has_pixels && !is_mask).then_some(Header { path, object })
}

/// The files of one series.
fn chosen(path: &Path, headers: Vec<Header>, name: Option<&str>) -> Result<Vec<Header>> {
    let mut series: BTreeMap<String, Vec<Header>> = BTreeMap::new();
    for header in headers {
        let uid = text(&header.object, tags::SERIES_INSTANCE_UID).unwrap_or_default();
        series.entry(uid).or_default().push(header);
    }
    let all: Vec<String> = series.values().map(|files| described(files)).collect();
    let is_meant = |files: &Vec<Header>| match name {
        None => true,
        Some(name) => NAMES
            .iter()
            .any(|&tag| text(&files[0].object, tag).as_deref() == Some(name)),
    };
    let mut meant: Vec<Vec<Header>> = series.into_values().filter(is_meant).collect();
    match (meant.pop(), meant.is_empty(), name) {
        (Some(files), true, _) => Ok(files),
        (None, _, None) => Err(Error::invalid(
            path,
            "it holds no DICOM images; name the folder of a series, or a NIfTI file",
        )),
        (None, _, Some(name)) => Err(Error::invalid(
            path,
            format!("none of its series is called '{name}'; there are {}", all.join("; ")),
        )),
        (Some(_), false, _) => Err(Error::invalid(
            path,
            format!(
                "it holds several series; name one with --series by its description, number or UID: {}",
                all.join("; ")
            ),
        )),
    }
}

/// What a series can be called by.
const NAMES: [dicom_core::Tag; 3] = [tags::SERIES_DESCRIPTION, tags::SERIES_NUMBER, tags::SERIES_INSTANCE_UID];

/// A series in a few words.
fn described(files: &[Header]) -> String {
    let object = &files[0].object;
    let word = |tag| text(object, tag).unwrap_or_else(|| "?".into());
    format!(
        "number {}, '{}' ({}, {} files, {})",
        word(tags::SERIES_NUMBER),
        word(tags::SERIES_DESCRIPTION),
        word(tags::MODALITY),
        files.len(),
        word(tags::SERIES_INSTANCE_UID),
    )
}

/// The images of a file.
fn images_of(header: &Header) -> Result<Vec<(Image, Plane)>> {
    let Header { path, object } = header;
    if count(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1) != 1 {
        let why = "its images are in colour, which no network here was trained on; name a series of CT or MR";
        return Err(Error::invalid(path, why));
    }
    let frames = count(object, tags::NUMBER_OF_FRAMES).unwrap_or(1);
    // Each has a group of its own, so that a number by itself takes no memory.
    let groups = object.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let groups = groups.and_then(|groups| groups.items()).map_or(1, <[_]>::len);
    if frames == 0 || frames > groups {
        let why = format!("it claims {frames} frames and says where {groups} of them lie; export the series again");
        return Err(Error::invalid(path, why));
    }
    let uid = |tag| text(object, tag).unwrap_or_default();
    let (class_uid, instance_uid) = (uid(tags::SOP_CLASS_UID), uid(tags::SOP_INSTANCE_UID));
    let frames = (0..frames).map(|frame| {
        let attributes = Attributes { path, object, frame };
        let image = Image {
            path: path.clone(),
            frame,
            among_others: groups > 1,
            class_uid: class_uid.clone(),
            instance_uid: instance_uid.clone(),
            position: attributes.needed(
                tags::IMAGE_POSITION_PATIENT,
                tags::PLANE_POSITION_SEQUENCE,
                "Image Position (Patient)",
            )?,
            rescale: rescale(&attributes),
        };
        Ok((image, plane(&attributes)?))
    });
    frames.collect()
}

fn plane(attributes: &Attributes) -> Result<Plane> {
    let plane = Plane {
        rows: count(attributes.object, tags::ROWS).unwrap_or(0),
        columns: count(attributes.object, tags::COLUMNS).unwrap_or(0),
        directions: attributes.needed(
            tags::IMAGE_ORIENTATION_PATIENT,
            tags::PLANE_ORIENTATION_SEQUENCE,
            "Image Orientation (Patient)",
        )?,
        spacing: attributes.needed(tags::PIXEL_SPACING, tags::PIXEL_MEASURES_SEQUENCE, "Pixel Spacing")?,
    };
    let refuse = |why: &str| Err(Error::invalid(attributes.path, why));
    if plane.rows == 0 || plane.columns == 0 || plane.spacing.iter().any(|mm| *mm <= 0.0) {
        return refuse("its images have no size; export the series again");
    }
    let [a, b, c, d, e, f] = plane.directions;
    let (row, column) = ([a, b, c], [d, e, f]);
    let flaws = [dot(row, row) - 1.0, dot(column, column) - 1.0, dot(row, column)];
    // As the standard has them, to the digits that scanners write.
    if flaws.iter().any(|flaw| flaw.abs() > 0.01) {
        return refuse(
            "the directions of its Image Orientation (Patient) are not at right angles; export the series again",
        );
    }
    Ok(plane)
}

/// Slope and intercept; what is not said changes nothing.
fn rescale(attributes: &Attributes) -> [f64; 2] {
    let number = |tag, otherwise| {
        let numbers = attributes.numbers(tag, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        numbers
            .and_then(|numbers| numbers.first().copied())
            .unwrap_or(otherwise)
    };
    [number(tags::RESCALE_SLOPE, 1.0), number(tags::RESCALE_INTERCEPT, 0.0)]
}

/// Reads the values of a file's images.
fn fill(path: &Path, images: Vec<(&Image, &mut [f32])>) -> Result<()> {
    let unreadable = |why: &dyn std::error::Error| {
        let why = format!(
            "its pixels cannot be unpacked ({}); export the series without compression (dcmtk: dcmdjpeg; gdcm: gdcmconv \
             --raw)",
            innermost(why)
        );
        Error::invalid(path, why)
    };
    let file = OpenFileOptions::new().open_file(path).map_err(|why| unreadable(&why))?;
    packed::check(&file).map_err(|why| Error::invalid(path, why))?;
    let pixels = file.decode_pixel_data().map_err(|why| unreadable(&why))?;
    for (image, values) in images {
        let data = pixels.frame_data(image.frame as u32).map_err(|why| unreadable(&why))?;
        let stored = stored(&pixels, data).filter(|stored| stored.len() == values.len());
        let stored = stored.ok_or_else(|| {
            let why = format!(
                "its {} bits a pixel, or how many there are, are not what a CT or MR image has; export the series again",
                pixels.bits_allocated()
            );
            Error::invalid(path, why)
        })?;
        let [slope, intercept] = image.rescale;
        for (value, stored) in values.iter_mut().zip(stored) {
            *value = (f64::from(stored) * slope + intercept) as f32;
        }
    }
    Ok(())
}

/// What says why, below all that say that.
fn innermost(why: &dyn std::error::Error) -> String {
    let mut why = why;
    while let Some(below) = why.source() {
        why = below;
    }
    why.to_string()
}

/// The numbers of a frame as they are stored: of the bits that are used, whether they have a sign or not.
fn stored(pixels: &DecodedPixelData, data: &[u8]) -> Option<Vec<i32>> {
    let used = u32::from(pixels.bits_stored());
    let signed = pixels.pixel_representation() == PixelRepresentation::Signed;
    let number = |raw: u32| {
        let unused = 32 - used;
        let high = raw << unused;
        match signed {
            true => (high as i32) >> unused,
            false => (high >> unused) as i32,
        }
    };
    match pixels.bits_allocated() {
        8 if (1..=8).contains(&used) => Some(data.iter().map(|&raw| number(raw.into())).collect()),
        16 if (1..=16).contains(&used) => {
            let raw = |pair: &[u8]| u32::from(u16::from_le_bytes([pair[0], pair[1]]));
            Some(data.chunks_exact(2).map(|pair| number(raw(pair))).collect())
        }
        _ => None,
    }
}
