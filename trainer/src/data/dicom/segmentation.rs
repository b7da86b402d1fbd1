//! A mask as a DICOM segmentation (DICOM PS3.3, A.51), which viewers and archives put over its series.

use std::collections::BTreeMap;

use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use dicom_object::meta::FileMetaTableBuilder;
use flapsam_model::checkpoint::sha256;
use jiff::Zoned;

use super::attributes::text;
use super::series::{Image, Series};
use crate::error::{Error, Result};

/// What a segmentation says of itself beyond its mask.
#[derive(Debug)]
pub struct About<'a> {
    /// Names of the classes, the background's first.
    pub classes: &'a [String],
    /// sha256 of the adapter or checkpoint that made the mask.
    pub model_sha256: &'a str,
    /// Whether the patient's name, number, sex and birth date go in.
    pub with_patient: bool,
}

/// Who the patient is; the standard lets all of it be empty.
const PATIENT: [(Tag, VR); 4] = [
    (tags::PATIENT_NAME, VR::PN),
    (tags::PATIENT_ID, VR::LO),
    (tags::PATIENT_BIRTH_DATE, VR::DA),
    (tags::PATIENT_SEX, VR::CS),
];
/// Of the study; its UID has to be there, since it is what ties the mask to its series.
const STUDY: [(Tag, VR); 4] = [
    (tags::STUDY_DATE, VR::DA),
    (tags::STUDY_TIME, VR::TM),
    (tags::STUDY_ID, VR::SH),
    (tags::ACCESSION_NUMBER, VR::SH),
];

/// The file of a mask on a series' grid: one binary segment for each class, frames without a voxel left out.
///
/// # Errors
/// It cannot be encoded.
///
/// # Panics
/// If there are more or fewer labels than voxels (a programming error).
pub fn to_bytes(series: &Series, labels: &[u8], about: &About) -> Result<Vec<u8>> {
    let frames = Frame::of(series, labels, about.classes.len());
    let series_name = text(&series.header, tags::SERIES_INSTANCE_UID).unwrap_or_default();
    let mask = format!("{} {} {series_name}", about.model_sha256, sha256(labels));
    let uid = |what: &str| uid(&format!("{what} {mask}"));
    let instance = uid("instance");
    let mut object = InMemDicomObject::new_empty();
    patient_and_study(&mut object, &series.header, about.with_patient);
    own_series(&mut object, &uid("series"), &instance, about.model_sha256);
    let frame_of_reference =
        text(&series.header, tags::FRAME_OF_REFERENCE_UID).unwrap_or_else(|| uid("frame of reference"));
    put(&mut object, tags::FRAME_OF_REFERENCE_UID, VR::UI, &frame_of_reference);
    time(&mut object, &Zoned::now());
    pixels(&mut object, series, &frames);
    sequence(&mut object, tags::SEGMENT_SEQUENCE, segments(about));
    dimensions(&mut object, &uid("dimensions"));
    sequence(
        &mut object,
        tags::REFERENCED_SERIES_SEQUENCE,
        vec![referenced_series(series)],
    );
    sequence(
        &mut object,
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        vec![shared(series)],
    );
    let per_frame = frames.iter().map(|frame| per_frame(series, frame)).collect();
    sequence(&mut object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, per_frame);
    encode(object, instance)
}

/// What the segmentation is, as a series of its own.
fn own_series(object: &mut InMemDicomObject, series: &str, instance: &str, model_sha256: &str) {
    let values = [
        (tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, instance),
        (tags::SERIES_INSTANCE_UID, VR::UI, series),
        (tags::MODALITY, VR::CS, "SEG"),
        (tags::SERIES_NUMBER, VR::IS, "1"),
        (tags::INSTANCE_NUMBER, VR::IS, "1"),
        (tags::SERIES_DESCRIPTION, VR::LO, "flapsam segmentation"),
        (tags::MANUFACTURER, VR::LO, "flapsam"),
        (tags::MANUFACTURER_MODEL_NAME, VR::LO, "flapsam"),
        (
            tags::DEVICE_SERIAL_NUMBER,
            VR::LO,
            &model_sha256[..16.min(model_sha256.len())],
        ),
        (tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION")),
        (tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY"),
        (tags::CONTENT_LABEL, VR::CS, "FLAPSAM"),
        (tags::CONTENT_DESCRIPTION, VR::LO, "Not for diagnosis"),
        (tags::CONTENT_CREATOR_NAME, VR::PN, ""),
        (tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        (tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
        (tags::SEGMENTATION_TYPE, VR::CS, "BINARY"),
        (tags::SEGMENTS_OVERLAP, VR::CS, "NO"),
        (tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
    ];
    for (tag, vr, value) in values {
        put(object, tag, vr, value);
    }
}

/// When it was made.
fn time(object: &mut InMemDicomObject, now: &Zoned) {
    put(object, tags::CONTENT_DATE, VR::DA, &now.strftime("%Y%m%d").to_string());
    put(object, tags::CONTENT_TIME, VR::TM, &now.strftime("%H%M%S").to_string());
}

/// The file of a data set.
fn encode(object: InMemDicomObject, instance: String) -> Result<Vec<u8>> {
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uids::SEGMENTATION_STORAGE)
        .media_storage_sop_instance_uid(instance);
    let unwritable =
        |why: &dyn std::fmt::Display| Error::Message(format!("the DICOM segmentation cannot be encoded: {why}"));
    let file = object.with_meta(meta).map_err(|why| unwritable(&why))?;
    let mut bytes = Vec::new();
    file.write_all(&mut bytes).map_err(|why| unwritable(&why))?;
    Ok(bytes)
}

/// One class on one image.
struct Frame {
    /// From 1.
    class: u8,
    /// Of the series' images, from 0.
    image: usize,
    inside: Vec<bool>,
}

impl Frame {
    /// Those with a voxel; of a mask that is empty, all of the first class, since a file without frames is none.
    fn of(series: &Series, labels: &[u8], classes: usize) -> Vec<Self> {
        let pixels = series.plane.rows * series.plane.columns;
        assert_eq!(labels.len(), pixels * series.images.len(), "labels of the series' grid");
        let frame = |class: u8, image: usize| Self {
            class,
            image,
            inside: labels[image * pixels..][..pixels]
                .iter()
                .map(|&label| label == class)
                .collect(),
        };
        let images = 0..series.images.len();
        let all = (1..classes as u8).flat_map(|class| images.clone().map(move |image| (class, image)));
        let frames = all.map(|(class, image)| frame(class, image));
        let frames: Vec<Self> = frames.filter(|frame| frame.inside.contains(&true)).collect();
        match frames.is_empty() {
            true => images.map(|image| frame(1, image)).collect(),
            false => frames,
        }
    }
}

fn patient_and_study(object: &mut InMemDicomObject, source: &InMemDicomObject, with_patient: bool) {
    let study = text(source, tags::STUDY_INSTANCE_UID).unwrap_or_default();
    put(object, tags::STUDY_INSTANCE_UID, VR::UI, &study);
    for (tag, vr) in STUDY.into_iter().chain(PATIENT) {
        let value = if with_patient { text(source, tag) } else { None };
        put(object, tag, vr, &value.unwrap_or_default());
    }
    put(object, tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
}

/// One bit a pixel, frame after frame, the first pixel lowest.
fn pixels(object: &mut InMemDicomObject, series: &Series, frames: &[Frame]) {
    let numbers = [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, series.plane.rows as u16),
        (tags::COLUMNS, series.plane.columns as u16),
        (tags::BITS_ALLOCATED, 1),
        (tags::BITS_STORED, 1),
        (tags::HIGH_BIT, 0),
        (tags::PIXEL_REPRESENTATION, 0),
    ];
    for (tag, number) in numbers {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(number)));
    }
    put(object, tags::NUMBER_OF_FRAMES, VR::IS, &frames.len().to_string());
    let bits: Vec<bool> = frames.iter().flat_map(|frame| frame.inside.iter().copied()).collect();
    let byte = |bits: &[bool]| {
        let marked = bits.iter().enumerate();
        marked.fold(0, |byte, (place, &inside)| byte | (u8::from(inside) << place))
    };
    let mut packed: Vec<u8> = bits.chunks(8).map(byte).collect();
    // Values are of even length.
    packed.resize(packed.len().next_multiple_of(2), 0);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(packed)));
}

/// What the segments are. Names of classes are anybody's, so their codes are of a scheme of our own, as the standard's
/// prefix 99 says.
fn segments(about: &About) -> Vec<InMemDicomObject> {
    let segment = |(number, class): (usize, &String)| {
        let mut segment = InMemDicomObject::new_empty();
        let number = PrimitiveValue::from(number as u16);
        segment.put(DataElement::new(tags::SEGMENT_NUMBER, VR::US, number));
        put(&mut segment, tags::SEGMENT_LABEL, VR::LO, &short(class, 64));
        put(&mut segment, tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
        let algorithm = format!("flapsam {}", env!("CARGO_PKG_VERSION"));
        put(&mut segment, tags::SEGMENT_ALGORITHM_NAME, VR::LO, &algorithm);
        let tissue = code("85756007", "SCT", "Tissue");
        sequence(
            &mut segment,
            tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE,
            vec![tissue],
        );
        let own = code(&short(class, 16), "99FLAPSAM", &short(class, 64));
        sequence(&mut segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![own]);
        segment
    };
    about.classes.iter().enumerate().skip(1).map(segment).collect()
}

/// Frames are told apart by their segment and then by their place.
fn dimensions(object: &mut InMemDicomObject, organization: &str) {
    let mut whole = InMemDicomObject::new_empty();
    put(&mut whole, tags::DIMENSION_ORGANIZATION_UID, VR::UI, organization);
    sequence(object, tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![whole]);
    let index = |pointer: Tag, group: Tag| {
        let mut index = InMemDicomObject::new_empty();
        put(&mut index, tags::DIMENSION_ORGANIZATION_UID, VR::UI, organization);
        index.put(DataElement::new(
            tags::DIMENSION_INDEX_POINTER,
            VR::AT,
            PrimitiveValue::from(pointer),
        ));
        index.put(DataElement::new(
            tags::FUNCTIONAL_GROUP_POINTER,
            VR::AT,
            PrimitiveValue::from(group),
        ));
        index
    };
    let indices = vec![
        index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE),
        index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE),
    ];
    sequence(object, tags::DIMENSION_INDEX_SEQUENCE, indices);
}

fn referenced_series(series: &Series) -> InMemDicomObject {
    let mut of_series = InMemDicomObject::new_empty();
    let uid = text(&series.header, tags::SERIES_INSTANCE_UID).unwrap_or_default();
    put(&mut of_series, tags::SERIES_INSTANCE_UID, VR::UI, &uid);
    // A file of many frames is named once.
    let instances: BTreeMap<&str, &Image> = series
        .images
        .iter()
        .map(|image| (image.instance_uid.as_str(), image))
        .collect();
    let instances = instances.into_values().map(reference).collect();
    sequence(&mut of_series, tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    of_series
}

fn reference(image: &Image) -> InMemDicomObject {
    let mut reference = InMemDicomObject::new_empty();
    put(&mut reference, tags::REFERENCED_SOP_CLASS_UID, VR::UI, &image.class_uid);
    put(
        &mut reference,
        tags::REFERENCED_SOP_INSTANCE_UID,
        VR::UI,
        &image.instance_uid,
    );
    reference
}

/// What holds for all frames: how large their pixels are, and how they are turned.
fn shared(series: &Series) -> InMemDicomObject {
    let step = series.step();
    let apart = step.iter().map(|part| part * part).sum::<f64>().sqrt();
    let mut measures = InMemDicomObject::new_empty();
    put(
        &mut measures,
        tags::PIXEL_SPACING,
        VR::DS,
        &decimals(&series.plane.spacing),
    );
    put(&mut measures, tags::SPACING_BETWEEN_SLICES, VR::DS, &decimals(&[apart]));
    put(&mut measures, tags::SLICE_THICKNESS, VR::DS, &decimals(&[apart]));
    let mut orientation = InMemDicomObject::new_empty();
    put(
        &mut orientation,
        tags::IMAGE_ORIENTATION_PATIENT,
        VR::DS,
        &decimals(&series.plane.directions),
    );
    let mut shared = InMemDicomObject::new_empty();
    sequence(&mut shared, tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
    sequence(&mut shared, tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]);
    shared
}

/// What holds for one frame: its segment, its place, and the image that it was made from.
fn per_frame(series: &Series, frame: &Frame) -> InMemDicomObject {
    let image = &series.images[frame.image];
    let number = |value: u16| PrimitiveValue::from(value);
    let mut segment = InMemDicomObject::new_empty();
    segment.put(DataElement::new(
        tags::REFERENCED_SEGMENT_NUMBER,
        VR::US,
        number(frame.class.into()),
    ));
    let mut place = InMemDicomObject::new_empty();
    put(
        &mut place,
        tags::IMAGE_POSITION_PATIENT,
        VR::DS,
        &decimals(&image.position),
    );
    let mut content = InMemDicomObject::new_empty();
    let indices = PrimitiveValue::U32([u32::from(frame.class), frame.image as u32 + 1].into_iter().collect());
    content.put(DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, indices));

    let mut source = reference(image);
    if image.among_others {
        put(
            &mut source,
            tags::REFERENCED_FRAME_NUMBER,
            VR::IS,
            &(image.frame + 1).to_string(),
        );
    }
    let purpose = code("121322", "DCM", "Source image for image processing operation");
    sequence(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose]);
    let mut derivation = InMemDicomObject::new_empty();
    sequence(&mut derivation, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    let how = code("113076", "DCM", "Segmentation");
    sequence(&mut derivation, tags::DERIVATION_CODE_SEQUENCE, vec![how]);

    let mut groups = InMemDicomObject::new_empty();
    sequence(&mut groups, tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
    sequence(&mut groups, tags::PLANE_POSITION_SEQUENCE, vec![place]);
    sequence(&mut groups, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    sequence(&mut groups, tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation]);
    groups
}

fn code(value: &str, scheme: &str, meaning: &str) -> InMemDicomObject {
    let mut code = InMemDicomObject::new_empty();
    put(&mut code, tags::CODE_VALUE, VR::SH, value);
    put(&mut code, tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme);
    put(&mut code, tags::CODE_MEANING, VR::LO, meaning);
    code
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: &str) {
    object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
}

fn sequence(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// Numbers of at most 16 characters, as the standard wants them, with as many digits as go in.
fn decimals(numbers: &[f64]) -> String {
    let decimal = |number: &f64| {
        let fitting = (0..=15).rev().map(|digits| format!("{number:.digits$}"));
        let mut fitting = fitting.filter(|text| text.len() <= 16);
        fitting.next().unwrap_or_else(|| format!("{number:.8e}"))
    };
    numbers.iter().map(decimal).collect::<Vec<_>>().join("\\")
}

/// A name's first letters, without the one that parts values.
fn short(name: &str, letters: usize) -> String {
    name.replace('\\', "/").chars().take(letters).collect()
}

/// A UID of what it stands for, so that the same mask of the same series has the same: 2.25 and 112 bits of a checksum.
fn uid(what: &str) -> String {
    let sum = sha256(what.as_bytes());
    format!("2.25.{}", u128::from_str_radix(&sum[..28], 16).unwrap_or_default())
}
