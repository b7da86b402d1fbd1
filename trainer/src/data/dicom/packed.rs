//! Whether packed pixels are what their file says. The decoders of the `dicom` crates take that for granted.

use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;

use super::attributes::count;

/// The transfer syntaxes of JPEG's many kinds begin so.
const JPEG: &str = "1.2.840.10008.1.2.4.";

/// What a file says of each of its images.
#[derive(Debug, Clone, Copy)]
struct Said {
    rows: usize,
    columns: usize,
    samples: usize,
    bytes: usize,
}

/// Refuses packed images that are cut off, or of another size than their file says.
pub(super) fn check(file: &DefaultDicomObject) -> Result<(), &'static str> {
    let number = |tag| count(file, tag).unwrap_or(1);
    let said = Said {
        rows: number(tags::ROWS),
        columns: number(tags::COLUMNS),
        samples: number(tags::SAMPLES_PER_PIXEL),
        bytes: number(tags::BITS_ALLOCATED).div_ceil(8),
    };
    let fragments = file.get(tags::PIXEL_DATA).and_then(|pixels| pixels.fragments());
    let fragments = fragments.unwrap_or_default();
    match file.meta().transfer_syntax() {
        uids::RLE_LOSSLESS => {
            let (segments, pixels) = (said.samples * said.bytes, said.rows * said.columns);
            let whole = !fragments.is_empty() && fragments.iter().all(|image| runs_are_whole(image, segments, pixels));
            let why = "its run-length encoded pixels are cut off or damaged; fetch it again, or export it again";
            whole.then_some(()).ok_or(why)
        }
        jpeg if jpeg.starts_with(JPEG) => {
            let why = "its JPEG images are of another size or depth than its header says; export it again";
            jpegs_are(&fragments.concat(), said).then_some(()).ok_or(why)
        }
        _ => Ok(()),
    }
}

/// Whether a run-length encoded image (DICOM PS3.5, annex G) has its header, and in each of as many segments as it shall have
/// at least so many bytes: the decoder takes both for granted.
fn runs_are_whole(image: &[u8], segments: usize, bytes: usize) -> bool {
    let number = |at: usize| -> Option<usize> {
        let four = image.get(4 * at..4 * at + 4)?;
        Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
    };
    let range = |segment: usize| {
        let end = if segment + 1 < segments {
            number(segment + 2)?
        } else {
            image.len()
        };
        image.get(number(segment + 1)?..end)
    };
    let holds = |segment: usize| range(segment).and_then(unpacked).is_some_and(|length| length >= bytes);
    number(0) == Some(segments) && (0..segments).all(holds)
}

/// How many bytes a segment holds, packed as runs and literals; nothing where it is cut off.
fn unpacked(mut segment: &[u8]) -> Option<usize> {
    let mut length = 0;
    while let Some((&first, rest)) = segment.split_first() {
        let (taken, given) = match first as i8 {
            -128 => (0, 0),
            run @ ..0 => (1, 1 + usize::from(run.unsigned_abs())),
            literals => (1 + literals as usize, 1 + literals as usize),
        };
        segment = rest.get(taken..)?;
        length += given;
    }
    Some(length)
}

/// Whether every image in these JPEG streams, one after the other, is of this size and depth (ITU-T T.81, annex B).
fn jpegs_are(mut bytes: &[u8], said: Said) -> bool {
    let at = |bytes: &[u8], place: usize| {
        bytes
            .get(place..place + 2)
            .map(|two| usize::from(two[0]) << 8 | usize::from(two[1]))
    };
    while let Some(start) = bytes
        .windows(2)
        .position(|two| two[0] == 0xff && !matches!(two[1], 0 | 0xff))
    {
        let segment = &bytes[start..];
        bytes = match segment[1] {
            // The end of an image: the next one begins with its own mark, whatever lies between.
            0xd9 => match segment.windows(2).position(|two| two == [0xff, 0xd8]) {
                Some(next) => &segment[next..],
                None => return true,
            },
            // Marks by themselves.
            0x01 | 0xd0..=0xd8 => &segment[2..],
            kind => {
                let is_frame = matches!(kind, 0xc0..=0xcf) && !matches!(kind, 0xc4 | 0xc8 | 0xcc);
                let of_frame = || {
                    let depth = usize::from(*segment.get(4)?).div_ceil(8);
                    let samples = usize::from(*segment.get(9)?);
                    Some([depth, at(segment, 5)?, at(segment, 7)?, samples])
                };
                if is_frame && of_frame() != Some([said.bytes, said.rows, said.columns, said.samples]) {
                    return false;
                }
                let length = at(segment, 2).unwrap_or_default();
                segment.get(2 + length..).unwrap_or_default()
            }
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_length_encoded_image_is_whole_or_refused() {
        let image = |segments: u32, offsets: [u32; 2], data: &[u8]| {
            let mut bytes = segments.to_le_bytes().to_vec();
            bytes.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
            bytes.resize(64, 0);
            bytes.extend(data);
            bytes
        };
        // Three times 7 and two literals; then five times 1.
        let data = [254, 7, 1, 8, 9, 252, 1];
        let whole = image(2, [64, 69], &data);
        assert!(runs_are_whole(&whole, 2, 5));
        assert!(!runs_are_whole(&whole, 2, 6), "too short");
        assert!(!runs_are_whole(&whole, 1, 5), "another number of segments");
        assert!(!runs_are_whole(&image(2, [64, 900], &data), 2, 5), "beyond its end");
        assert!(!runs_are_whole(&image(2, [69, 64], &data), 2, 5), "backwards");
        assert!(!runs_are_whole(&image(u32::MAX, [64, 69], &data), 2, 5));
        assert!(!runs_are_whole(&whole[..70], 2, 5), "cut off");
        assert!(!runs_are_whole(&[], 2, 5));
    }

    #[test]
    fn a_jpeg_is_of_the_size_that_is_said() {
        let said = Said {
            rows: 9,
            columns: 11,
            samples: 1,
            bytes: 1,
        };
        let frame = |rows: u8, columns: u8, depth: u8| {
            // A note with the bytes of another frame in it, the frame, a scan with a byte that is stuffed, and the end.
            let note = [0xff, 0xfe, 0, 6, 0xff, 0xc0, 0, 11];
            let frame = [0xff, 0xc3, 0, 11, depth, 0, rows, 0, columns, 1, 1, 0x11, 0];
            let scan = [0xff, 0xda, 0, 4, 0, 0, 1, 0xff, 0, 2, 0xff, 0xd0, 3];
            [&[0xff, 0xd8][..], &note, &frame, &scan, &[0xff, 0xd9]].concat()
        };
        let good = frame(9, 11, 8);
        assert!(jpegs_are(&good, said));
        assert!(jpegs_are(&[&good[..], &[0, 0xff, 0xe0, 0xff], &good].concat(), said));
        for (rows, columns, depth) in [(10, 11, 8), (9, 12, 8), (9, 11, 12), (11, 9, 8)] {
            let other = frame(rows, columns, depth);
            assert!(!jpegs_are(&other, said), "{rows} x {columns}, {depth} bits");
            assert!(!jpegs_are(&[&good[..], &[0], &other].concat(), said), "the second one");
        }
        // Cut off within the frame's header, nobody knows; elsewhere it is the decoder's to refuse.
        for length in 0..good.len() {
            assert_eq!(
                jpegs_are(&good[..length], said),
                !(12..20).contains(&length),
                "{length} bytes"
            );
        }
    }
}
