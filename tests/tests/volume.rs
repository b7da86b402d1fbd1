//! NIfTI bytes to volumes and back: files made here byte by byte, so that the reader is not tested against our own
//! writer, and files damaged in every way that came to mind.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::gunzip;
use flapsam_model::volume::{Packing, Volume};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

/// Rows of an affine that no field of a header has by default.
const AFFINE: [[f64; 4]; 3] = [
    [-0.75, 0.0, 0.25, 10.0],
    [0.0, 1.5, 0.0, -20.5],
    [0.125, 0.0, 3.0, 30.25],
];

/// What to write into a header.
#[derive(Debug, Clone)]
struct Scan {
    version_2: bool,
    big_endian: bool,
    dims: Vec<i64>,
    datatype: i16,
    slope: f64,
    intercept: f64,
    offset: Option<f64>,
    form: Form,
    /// Little-endian values, whatever the file's order.
    values: Vec<Vec<u8>>,
}

/// What the header says about space.
#[derive(Debug, Clone, Copy)]
enum Form {
    Rows([[f64; 4]; 3]),
    /// Handedness, quaternion (b, c, d), offset, spacing.
    Quaternion(f64, [f64; 3], [f64; 3], [f64; 3]),
    /// Spacing alone.
    Nothing([f64; 3]),
}

/// Bytes that numbers are put into, in either byte order.
struct Header {
    bytes: Vec<u8>,
    big_endian: bool,
}

impl Header {
    fn put(&mut self, at: usize, little_endian: &[u8]) {
        let place = &mut self.bytes[at..at + little_endian.len()];
        place.copy_from_slice(little_endian);
        if self.big_endian {
            place.reverse();
        }
    }

    /// Floats in a row: of 64 bits in NIfTI-2, else of 32.
    fn floats(&mut self, at: usize, values: &[f64]) {
        let version_2 = self.bytes.len() == 544;
        for (index, &value) in values.iter().enumerate() {
            match version_2 {
                true => self.put(at + 8 * index, &value.to_le_bytes()),
                false => self.put(at + 4 * index, &(value as f32).to_le_bytes()),
            }
        }
    }
}

impl Scan {
    /// 16-bit integers 0, 1, 2, ..
    fn counting(dims: &[i64]) -> Self {
        let count = dims.iter().product::<i64>() as i16;
        Self {
            version_2: false,
            big_endian: false,
            dims: dims.to_vec(),
            datatype: 4,
            slope: 0.0,
            intercept: 0.0,
            offset: None,
            form: Form::Rows(AFFINE),
            values: (0..count).map(|value| value.to_le_bytes().to_vec()).collect(),
        }
    }

    /// The same scan in both versions and both byte orders.
    fn in_every_layout(self) -> impl Iterator<Item = Self> {
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .map(move |(version_2, big_endian)| Self {
                version_2,
                big_endian,
                ..self.clone()
            })
    }

    /// The whole file. Dimensions past the last one are 0, as some writers leave them.
    fn bytes(&self) -> Vec<u8> {
        let length = if self.version_2 { 544 } else { 352 };
        let mut header = Header {
            bytes: vec![0; length],
            big_endian: self.big_endian,
        };
        let bits = 8 * self.values.first().map_or(2, Vec::len) as i16;
        let offset = self.offset.unwrap_or(length as f64);
        let count = self.dims.len();
        // The fields' places in the two versions' headers.
        let (spacing, slope, intercept, forms, quaternion, rows);
        if self.version_2 {
            header.put(0, &540i32.to_le_bytes());
            header.bytes[4..12].copy_from_slice(b"n+2\0\r\n\x1a\n");
            header.put(12, &self.datatype.to_le_bytes());
            header.put(14, &bits.to_le_bytes());
            header.put(16, &(count as i64).to_le_bytes());
            for (axis, dim) in self.dims.iter().enumerate() {
                header.put(24 + 8 * axis, &dim.to_le_bytes());
            }
            header.put(168, &(offset as i64).to_le_bytes());
            header.put(500, &2i32.to_le_bytes());
            (spacing, slope, intercept, quaternion, rows) = (104, 176, 184, 352, 400);
            forms = [344, 348];
        } else {
            header.put(0, &348i32.to_le_bytes());
            header.bytes[344..348].copy_from_slice(b"n+1\0");
            header.put(70, &self.datatype.to_le_bytes());
            header.put(72, &bits.to_le_bytes());
            header.put(40, &(count as i16).to_le_bytes());
            for (axis, &dim) in self.dims.iter().enumerate() {
                header.put(42 + 2 * axis, &(dim as u16).to_le_bytes());
            }
            header.put(108, &(offset as f32).to_le_bytes());
            header.bytes[123] = 2;
            (spacing, slope, intercept, quaternion, rows) = (76, 112, 116, 256, 280);
            forms = [252, 254];
        }
        header.floats(slope, &[self.slope]);
        header.floats(intercept, &[self.intercept]);
        let code = |header: &mut Header, at: usize| match self.version_2 {
            true => header.put(at, &1i32.to_le_bytes()),
            false => header.put(at, &1i16.to_le_bytes()),
        };
        match self.form {
            Form::Rows(affine) => {
                code(&mut header, forms[1]);
                header.floats(rows, affine.as_flattened());
                // A half turn that the rows contradict: the rows come first.
                code(&mut header, forms[0]);
                header.floats(quaternion, &[0.0, 0.0, 1.0, 9.0, 9.0, 9.0]);
                header.floats(spacing, &[1.0, 9.0, 9.0, 9.0]);
            }
            Form::Quaternion(handedness, turn, shift, [x, y, z]) => {
                code(&mut header, forms[0]);
                header.floats(quaternion, &[turn, shift].concat());
                header.floats(spacing, &[handedness, x, y, z]);
            }
            Form::Nothing([x, y, z]) => header.floats(spacing, &[1.0, x, y, z]),
        }
        let mut file = header.bytes;
        for value in &self.values {
            match self.big_endian {
                true => file.extend(value.iter().rev()),
                false => file.extend(value),
            }
        }
        file
    }

    fn read(&self, index: Option<usize>) -> Result<Volume, String> {
        Volume::from_nifti(&self.bytes(), index).map_err(|why| why.to_string())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What every caller may do with a volume, whatever its header said.
fn use_all_of_it(volume: &Volume) {
    assert_eq!(volume.dims.iter().product::<usize>(), volume.voxels.len());
    assert_eq!(volume.to_slices().values.len(), volume.voxels.len());
    let _ = (volume.spacing(), volume.check_finite());
    volume.to_nifti_i16();
    volume.mask_to_nifti(&vec![1; volume.voxels.len()], Packing::Gzip);
}

#[test]
fn every_type_reads_in_every_layout() {
    macro_rules! check {
        ($datatype:expr, $type:ty, $values:expr) => {
            let values: [$type; 6] = $values;
            // Slope 0 and not-a-number both mean: as they are.
            for (slope, intercept) in [
                (0.0, 7.0),
                (f64::NAN, 7.0),
                (1.0, 0.0),
                (0.5, -1024.0),
                (-2.0, 3.0),
            ] {
                let scan = Scan {
                    datatype: $datatype,
                    slope,
                    intercept,
                    values: values.iter().map(|value| value.to_le_bytes().to_vec()).collect(),
                    ..Scan::counting(&[3, 1, 2])
                };
                let scaled = slope != 0.0 && !slope.is_nan();
                let (slope, intercept) = if scaled { (slope, intercept) } else { (1.0, 0.0) };
                let want = values.map(|value| (value as f64 * slope + intercept) as f32);
                for scan in scan.in_every_layout() {
                    let volume = scan.read(None).unwrap();
                    assert_eq!(volume.voxels, want, "{scan:?}");
                    assert_eq!(volume.dims, [3, 1, 2]);
                    assert_eq!(volume.affine, AFFINE);
                }
            }
        };
    }
    check!(2, u8, [0, 1, 2, 37, 128, 255]);
    check!(256, i8, [0, 1, -1, 37, -128, 127]);
    check!(512, u16, [0, 1, 2, 37, 256, 65535]);
    check!(4, i16, [0, 1, -1, -1000, i16::MIN, i16::MAX]);
    check!(768, u32, [0, 1, 2, 37, 65536, u32::MAX]);
    check!(8, i32, [0, 1, -1, -1000, i32::MIN, i32::MAX]);
    check!(1280, u64, [0, 1, 2, 37, 1 << 40, u64::MAX]);
    check!(1024, i64, [0, 1, -1, -1000, i64::MIN, i64::MAX]);
    check!(16, f32, [0.0, 1.0, -0.25, 1e-30, -1000.5, 1e30]);
    check!(64, f64, [0.0, 1.0, -0.25, 1e-30, -1000.5, 1e30]);
}

#[test]
fn a_type_without_one_value_a_voxel_is_refused() {
    // Complex numbers and colours: refused here, or as not-a-number by whoever needs numbers.
    for (datatype, width) in [(32, 8), (128, 3), (1792, 16), (2304, 4)] {
        let scan = Scan {
            datatype,
            values: vec![vec![1; width]; 6],
            ..Scan::counting(&[3, 1, 2])
        };
        for scan in scan.in_every_layout() {
            let refused = scan.read(None).map_or(true, |volume| volume.check_finite().is_err());
            assert!(refused, "{scan:?}");
        }
    }
    // No type at all.
    for datatype in [0, 1, 3, -4, 9999] {
        for scan in (Scan {
            datatype,
            ..Scan::counting(&[3, 1, 2])
        })
        .in_every_layout()
        {
            assert!(scan.read(None).is_err(), "{scan:?}");
        }
    }
}

/// Largest difference of two affines.
fn distance(a: &[[f64; 4]; 3], b: &[[f64; 4]; 3]) -> f64 {
    let pairs = a.as_flattened().iter().zip(b.as_flattened());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_quaternion_or_bare_spacing_gives_the_affine() {
    let half = 0.5f64.sqrt();
    let (shift, spacing) = ([1.0, 2.0, 3.0], [0.5, 2.0, 4.0]);
    // No turn; a quarter turn about z; a half turn about z with the third axis reversed.
    let turns = [
        (
            1.0,
            [0.0; 3],
            [[0.5, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 2.0], [0.0, 0.0, 4.0, 3.0]],
        ),
        (
            1.0,
            [0.0, 0.0, half],
            [[0.0, -2.0, 0.0, 1.0], [0.5, 0.0, 0.0, 2.0], [0.0, 0.0, 4.0, 3.0]],
        ),
        (
            -1.0,
            [0.0, 0.0, 1.0],
            [[-0.5, 0.0, 0.0, 1.0], [0.0, -2.0, 0.0, 2.0], [0.0, 0.0, -4.0, 3.0]],
        ),
    ];
    for (handedness, turn, want) in turns {
        let form = Form::Quaternion(handedness, turn, shift, spacing);
        for scan in (Scan {
            form,
            ..Scan::counting(&[2, 2, 2])
        })
        .in_every_layout()
        {
            let affine = scan.read(None).unwrap().affine;
            assert!(distance(&affine, &want) < 1e-6, "{scan:?}: {affine:?}");
        }
    }
    // As the standard's older sibling has it: the first axis to the left, the centre at 0.
    let scan = Scan {
        form: Form::Nothing(spacing),
        ..Scan::counting(&[3, 2, 5])
    };
    for scan in scan.in_every_layout() {
        let want = [[-0.5, 0.0, 0.0, 0.5], [0.0, 2.0, 0.0, -1.0], [0.0, 0.0, 4.0, -8.0]];
        assert_eq!(scan.read(None).unwrap().affine, want, "{scan:?}");
    }
}

/// Fed-KiTS has scans with this very quaternion. Its first component follows from the others, here from the rounding
/// of their squares alone: it is zero, or the axes come out turned by 0.02 degrees.
#[test]
fn a_half_turn_rounded_to_f32_is_a_half_turn() {
    let turn = [0.707_106_77, 0.0, -0.707_106_77];
    let form = Form::Quaternion(-1.0, turn, [0.0; 3], [5.0, 0.703_125, 0.703_125]);
    let want = [
        [0.0, 0.0, 0.703_125, 0.0],
        [0.0, -0.703_125, 0.0, 0.0],
        [-5.0, 0.0, 0.0, 0.0],
    ];
    for big_endian in [false, true] {
        let scan = Scan {
            big_endian,
            form,
            ..Scan::counting(&[2, 2, 2])
        };
        let affine = scan.read(None).unwrap().affine;
        assert!(distance(&affine, &want) < 1e-6, "{affine:?}");
    }
}

#[test]
fn a_series_needs_an_index() {
    for scan in Scan::counting(&[2, 3, 1, 3]).in_every_layout() {
        let refused = scan.read(None).unwrap_err();
        assert!(refused.contains("3 volumes") && refused.contains("0 to 2"), "{refused}");
        for index in 0..3 {
            let volume = scan.read(Some(index)).unwrap();
            let want: Vec<f32> = (6 * index..6 * index + 6).map(|value| value as f32).collect();
            assert_eq!((volume.dims, volume.voxels), ([2, 3, 1], want));
        }
        let refused = scan.read(Some(3)).unwrap_err();
        assert!(refused.contains("no volume 3"), "{refused}");
        let gzipped = Volume::from_nifti(&gzip(&scan.bytes()), Some(2)).unwrap();
        assert_eq!(gzipped.voxels[0], 12.0);
    }
}

#[test]
fn a_series_of_one_is_a_volume() {
    for dims in [vec![2, 3, 4, 1], vec![2, 3, 4, 1, 1, 1, 1]] {
        for scan in Scan::counting(&dims).in_every_layout() {
            assert_eq!(scan.read(None).unwrap().dims, [2, 3, 4]);
            assert!(scan.read(Some(0)).is_ok());
            assert!(scan.read(Some(1)).is_err());
        }
    }
}

/// The file is as it was but for type, scaling and values: whatever places the scan in space is the same to the bit.
#[test]
fn a_mask_keeps_the_scans_place_in_space() {
    let labels: Vec<u8> = (0..24).map(|index| index % 3).collect();
    let quaternion = Form::Quaternion(-1.0, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [0.7, 0.8, 0.9]);
    for form in [Form::Rows(AFFINE), quaternion, Form::Nothing([0.7, 0.8, 0.9])] {
        let scan = Scan {
            form,
            slope: 2.0,
            intercept: -1024.0,
            ..Scan::counting(&[2, 3, 4])
        };
        for scan in scan.in_every_layout() {
            let volume = scan.read(None).unwrap();
            let mask = volume.mask_to_nifti(&labels, Packing::Gzip);
            let (before, after) = (scan.bytes(), gunzip(&mask));
            // Spacing, units, forms.
            let kept = match scan.version_2 {
                true => vec![104..168, 344..496, 500..504],
                false => vec![76..108, 123..124, 252..328],
            };
            for range in kept {
                assert_eq!(
                    before[range.clone()],
                    after[range.clone()],
                    "bytes {range:?} of {scan:?}"
                );
            }
            assert_eq!(after[after.len() - 24..], labels, "{scan:?}");
            let mask = Volume::from_nifti(&mask, None).unwrap();
            let values: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
            assert_eq!(
                (mask.dims, mask.affine, mask.voxels),
                ([2, 3, 4], volume.affine, values)
            );
        }
    }
}

/// Slices and lines have fewer dimensions; their masks read back as well.
#[test]
fn a_mask_of_fewer_dimensions_reads_back() {
    for dims in [vec![4, 3], vec![5], vec![2, 3, 2, 1]] {
        for scan in Scan::counting(&dims).in_every_layout() {
            let volume = scan.read(None).unwrap();
            let mask = volume.mask_to_nifti(&vec![1; volume.voxels.len()], Packing::Gzip);
            let mask = Volume::from_nifti(&mask, None).unwrap_or_else(|why| panic!("{scan:?}: {why}"));
            assert_eq!(mask.dims, volume.dims);
        }
    }
}

#[test]
fn a_mask_of_one_volume_of_a_series_is_one_volume() {
    for scan in Scan::counting(&[2, 3, 1, 3]).in_every_layout() {
        let mask = scan.read(Some(1)).unwrap().mask_to_nifti(&[1; 6], Packing::Gzip);
        assert_eq!(Volume::from_nifti(&mask, None).unwrap().voxels, [1.0; 6]);
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_is_cut() {
    for scan in Scan::counting(&[3, 4, 2]).in_every_layout() {
        let whole = scan.bytes();
        for length in 0..whole.len() {
            let refused = Volume::from_nifti(&whole[..length], None);
            assert!(refused.is_err(), "{length} of {} bytes of {scan:?}", whole.len());
        }
    }
}

/// Even where only the checksum at its end is gone: without it, damage to the voxels would go unseen.
#[test]
fn a_truncated_gzip_is_refused_wherever_it_is_cut() {
    let whole = gzip(&Scan::counting(&[3, 4, 2]).bytes());
    for length in 0..whole.len() {
        assert!(
            Volume::from_nifti(&whole[..length], None).is_err(),
            "{length} of {} bytes",
            whole.len()
        );
    }
}

#[test]
fn a_gzip_with_a_wrong_checksum_is_refused() {
    let mut file = gzip(&Scan::counting(&[3, 4, 2]).bytes());
    let checksum = file.len() - 8;
    file[checksum] ^= 1;
    assert!(Volume::from_nifti(&file, None).is_err());
}

/// Refused within a second: before any memory is taken, or as soon as the file ends.
fn refused_quickly(scan: &Scan, index: Option<usize>) {
    let (plain, start) = (scan.bytes(), Instant::now());
    for file in [gzip(&plain), plain] {
        assert!(Volume::from_nifti(&file, index).is_err(), "{scan:?}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?} for {scan:?}",
        start.elapsed()
    );
}

#[test]
fn absurd_dimensions_are_refused_quickly() {
    let absurd: [&[i64]; 9] = [
        &[65535, 65535, 65535],
        &[65535; 7],
        &[2000, 2000, 2000],
        &[0, 0, 0],
        &[4, 0, 4],
        &[-1, 4, 4],
        &[4, 4, -4],
        &[],
        &[1; 8],
    ];
    for dims in absurd {
        let values = vec![vec![1, 0]; 24];
        // Eight sizes do not fit: the eighth would fall on the field after them.
        let fitting = &dims[..dims.len().min(7)];
        for scan in (Scan {
            dims: fitting.to_vec(),
            values,
            ..Scan::counting(&[])
        })
        .in_every_layout()
        {
            if dims.len() < 8 {
                refused_quickly(&scan, None);
                refused_quickly(&scan, Some(0));
                continue;
            }
            let mut file = scan.bytes();
            let count = match (scan.version_2, scan.big_endian) {
                (false, false) => 40,
                (false, true) => 41,
                (true, false) => 16,
                (true, true) => 23,
            };
            assert_eq!(file[count], 7);
            file[count] = 8;
            assert!(Volume::from_nifti(&file, None).is_err(), "{scan:?}");
        }
    }
    let most: [&[i64]; 6] = [
        &[i64::MAX],
        &[i64::MAX; 3],
        &[i64::MAX, i64::MAX, 0],
        &[1 << 40, 1, 1],
        // As many bytes as a 64-bit count comes round to zero at.
        &[1 << 62, 2, 1],
        &[i64::MIN, i64::MIN, 2],
    ];
    for dims in most {
        for big_endian in [false, true] {
            refused_quickly(
                &Scan {
                    version_2: true,
                    big_endian,
                    dims: dims.to_vec(),
                    ..Scan::counting(&[])
                },
                None,
            );
        }
    }
}

/// The voxels would begin past the file's end; counting on from there must not come round to its start.
#[test]
fn an_absurd_offset_is_refused_quickly() {
    for offset in [1e30, 1e18, 1e9] {
        for scan in Scan::counting(&[10, 10, 10, 2]).in_every_layout() {
            for index in 0..2 {
                refused_quickly(
                    &Scan {
                        offset: Some(offset),
                        ..scan.clone()
                    },
                    Some(index),
                );
            }
        }
    }
}

#[test]
fn what_is_no_nifti_is_refused() {
    let text = b"This is not a scan. ".repeat(40);
    let mut no_mark = Scan::counting(&[3, 4, 2]).bytes();
    no_mark[344..348].fill(0);
    let mut two_files = Scan::counting(&[3, 4, 2]).bytes();
    two_files[344..348].copy_from_slice(b"ni1\0");
    for file in [Vec::new(), text.clone(), gzip(&text), gzip(&[]), no_mark, two_files] {
        assert!(Volume::from_nifti(&file, None).is_err());
    }
}

/// Whole numbers that 16 bits hold, and an affine that a NIfTI-1 header holds.
fn volumes() -> impl Strategy<Value = Volume> {
    let affine = proptest::array::uniform3(proptest::array::uniform4(-1e3f32..1e3));
    ([1..7usize, 1..7usize, 1..7usize], affine).prop_flat_map(|(dims, affine)| {
        let affine = affine.map(|row| row.map(f64::from));
        let voxels = proptest::collection::vec(any::<i16>(), dims.iter().product::<usize>());
        voxels.prop_map(move |voxels| Volume::new(dims, voxels.into_iter().map(f32::from).collect(), affine))
    })
}

/// Axes along the world's, in any order and direction: `affine[world][axis]`.
fn axis_orders() -> impl Strategy<Value = [[f64; 4]; 3]> {
    let order = Just([0usize, 1, 2]).prop_shuffle();
    let steps = proptest::array::uniform3((any::<bool>(), 0.3..5.0f64));
    (order, steps, proptest::array::uniform3(-300.0..300.0f64)).prop_map(|(order, steps, shift)| {
        let mut affine = shift.map(|shift| [0.0, 0.0, 0.0, shift]);
        for (axis, (backwards, step)) in steps.into_iter().enumerate() {
            affine[order[axis]][axis] = if backwards { -step } else { step };
        }
        affine
    })
}

/// A valid file of 48 voxels in any layout.
fn valid_files() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> = Scan::counting(&[3, 4, 2, 2])
        .in_every_layout()
        .map(|scan| scan.bytes())
        .collect();
    proptest::sample::select(files)
}

proptest! {
    #[test]
    fn a_written_volume_reads_back_equal(volume in volumes()) {
        let file = volume.to_nifti_i16();
        prop_assert_eq!(&file, &volume.to_nifti_i16());
        let read = Volume::from_nifti(&file, None).unwrap();
        prop_assert_eq!(read.dims, volume.dims);
        prop_assert_eq!(&read.voxels, &volume.voxels);
        prop_assert_eq!(read.affine, volume.affine);
        // And so does what was read.
        prop_assert_eq!(read.to_nifti_i16(), file);
    }

    #[test]
    fn axial_order_comes_back(dims in [1..6usize, 1..6usize, 1..6usize], affine in axis_orders()) {
        let count = dims.iter().product::<usize>();
        let volume = Volume::new(dims, (0..count).map(|value| value as f32).collect(), affine);
        let slices = volume.to_slices();
        prop_assert_eq!(slices.dims, volume.axial().dims);
        prop_assert_eq!(volume.axial().restore(&slices.values), volume.voxels);
    }

    /// Slices go towards the feet, rows towards the back, columns towards the patient's left.
    #[test]
    fn axial_slices_are_the_right_way_round(dims in [1..6usize, 1..6usize, 1..6usize], affine in axis_orders()) {
        for (world, way) in [(2, 0), (1, 1), (0, 2)] {
            // Each voxel holds its place along one axis of the world.
            let places = (0..dims[2]).flat_map(|k| (0..dims[1]).flat_map(move |j| (0..dims[0]).map(move |i| [i, j, k])));
            let place = |index: [usize; 3]| {
                let turned = index.iter().zip(&affine[world]).map(|(&index, step)| index as f64 * step);
                (turned.sum::<f64>() + affine[world][3]) as f32
            };
            let slices = Volume::new(dims, places.map(place).collect(), affine).to_slices();
            let [_, rows, columns] = slices.dims;
            let step = [rows * columns, columns, 1][way];
            for (index, value) in slices.values.iter().enumerate() {
                let along = [index / (rows * columns), index / columns % rows, index % columns][way];
                if along > 0 {
                    prop_assert!(*value < slices.values[index - step]);
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1500), index in any::<Option<usize>>()) {
        let gzip_header = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], &bytes[..]].concat();
        for file in [gzip(&bytes), gzip_header, bytes] {
            if let Ok(volume) = Volume::from_nifti(&file, index) {
                use_all_of_it(&volume);
            }
        }
    }

    #[test]
    fn a_corrupted_file_never_panics(
        mut file in valid_files(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        index in proptest::option::of(0..3usize),
    ) {
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let short = file[..cut.index(file.len())].to_vec();
        for file in [gzip(&file), file, short] {
            if let Ok(volume) = Volume::from_nifti(&file, index) {
                use_all_of_it(&volume);
            }
        }
    }

    #[test]
    fn a_corrupted_gzip_never_panics(
        file in valid_files(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut file = gzip(&file);
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        if let Ok(volume) = Volume::from_nifti(&file, Some(0)) {
            use_all_of_it(&volume);
        }
    }
}

/// The header says nonsense of where its voxels begin, and the file's length tells.
#[test]
fn voxels_are_found_where_the_header_says_nonsense() {
    for scan in Scan::counting(&[3, 4, 2]).in_every_layout() {
        let whole = scan.bytes();
        let header = whole.len() - 48;
        let want = scan.read(None).unwrap().voxels;
        for offset in [0.0, 1.0, -16.0, 350.0, f64::NAN, f64::INFINITY, 352.5] {
            // NIfTI-2 counts in whole numbers.
            let offset = if scan.version_2 && !(0.0..540.0).contains(&offset) {
                -1.0
            } else {
                offset
            };
            let bytes = Scan {
                offset: Some(offset),
                ..scan.clone()
            }
            .bytes();
            // After the four bytes that say that there are no extensions; at once; after an extension of 32 bytes.
            let at_once = [&bytes[..header - 4], &bytes[header..]].concat();
            let size = if scan.big_endian { [0, 0, 0, 32] } else { [32, 0, 0, 0] };
            let extension = [&[1, 0, 0, 0], &size[..], &[0; 28]].concat();
            let extended = [&bytes[..header - 4], &extension, &bytes[header..]].concat();
            for file in [&bytes, &at_once, &extended, &gzip(&at_once)] {
                assert_eq!(
                    Volume::from_nifti(file, None).unwrap().voxels,
                    want,
                    "{offset} {scan:?}"
                );
            }
            // One voxel less, bytes that nothing explains: it does not tell.
            for file in [&bytes[..bytes.len() - 2], &[&bytes[..], &[0; 6]].concat()] {
                let refused = Volume::from_nifti(file, None).unwrap_err().to_string();
                assert!(refused.contains("vox_offset"), "{offset}: {refused}");
            }
        }
    }
}

#[test]
fn what_follows_a_gzip_is_no_part_of_it() {
    let whole = gzip(&Scan::counting(&[3, 4, 2]).bytes());
    let plain = Scan::counting(&[3, 4, 2]).bytes();
    let (first, second) = plain.split_at(370);
    let members = [gzip(first), gzip(second)].concat();
    for file in [
        [&whole[..], &[0; 512]].concat(),
        [&whole[..], b"anything"].concat(),
        members.clone(),
        [&members[..], &[0; 3]].concat(),
    ] {
        assert_eq!(Volume::from_nifti(&file, None).unwrap().voxels[23], 23.0);
    }
}

#[test]
fn dimensions_beyond_the_third_that_say_nothing_are_one() {
    for dims in [&[2, 3, 4, 0][..], &[2, 3, 4, -1, 0], &[2, 3, 4, 1, 1, 1, 1]] {
        for scan in (Scan {
            dims: dims.to_vec(),
            ..Scan::counting(&[2, 3, 4])
        })
        .in_every_layout()
        {
            let volume = scan.read(None).unwrap();
            assert_eq!((volume.dims, volume.voxels[23]), ([2, 3, 4], 23.0), "{scan:?}");
        }
    }
}

/// Of the units of length that the header names, the affine is in millimetres; the mask keeps the scan's own words.
#[test]
fn units_of_length_become_millimetres() {
    for scan in Scan::counting(&[2, 2, 2]).in_every_layout() {
        let at = match (scan.version_2, scan.big_endian) {
            (false, _) => 123,
            (true, false) => 500,
            (true, true) => 503,
        };
        for (unit, factor) in [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001), (3 + 16, 0.001)] {
            let mut bytes = scan.bytes();
            bytes[at] = unit;
            let volume = Volume::from_nifti(&bytes, None).unwrap();
            let want = AFFINE.map(|row| row.map(|value| value * factor));
            assert!(distance(&volume.affine, &want) < 1e-9 * factor, "{unit} {scan:?}");
            let mask = volume.mask_to_nifti(&[1; 8], Packing::Plain);
            assert_eq!(mask[at], unit);
            assert_eq!(Volume::from_nifti(&mask, None).unwrap().affine, volume.affine);
        }
    }
}

/// A form that no scan can have gives way to the other one; with none left the scan is refused, and the mask that is made
/// keeps the header as it was.
#[test]
fn a_form_that_cannot_be_is_not_used() {
    let turned = [[0.0, -2.0, 0.0, 1.0], [0.5, 0.0, 0.0, 2.0], [0.0, 0.0, 4.0, 3.0]];
    let quaternion = Form::Quaternion(1.0, [0.0, 0.0, 0.5f64.sqrt()], [1.0, 2.0, 3.0], [0.5, 2.0, 4.0]);
    for broken in [0.0, f64::NAN, f64::INFINITY, 1e30] {
        for scan in (Scan {
            form: quaternion,
            ..Scan::counting(&[2, 2, 2])
        })
        .in_every_layout()
        {
            let (code, rows, width) = if scan.version_2 { (348, 400, 8) } else { (254, 280, 4) };
            let mut header = Header {
                bytes: scan.bytes(),
                big_endian: scan.big_endian,
            };
            match scan.version_2 {
                true => header.put(code, &1i32.to_le_bytes()),
                false => header.put(code, &1i16.to_le_bytes()),
            }
            for place in 0..12 {
                match scan.version_2 {
                    true => header.put(rows + width * place, &broken.to_le_bytes()),
                    false => header.put(rows + width * place, &(broken as f32).to_le_bytes()),
                }
            }
            let volume = Volume::from_nifti(&header.bytes, None).unwrap();
            assert!(distance(&volume.affine, &turned) < 1e-6, "{broken} {scan:?}");
            let mask = volume.mask_to_nifti(&[0; 8], Packing::Plain);
            assert_eq!(mask[rows..rows + 12 * width], header.bytes[rows..rows + 12 * width]);
            // Without the qform there is nothing left.
            let qform = if scan.version_2 { 344..348 } else { 252..254 };
            header.bytes[qform].fill(0);
            let refused = Volume::from_nifti(&header.bytes, None).unwrap_err().to_string();
            assert!(refused.contains("srow_x"), "{refused}");
        }
    }
}

#[test]
fn a_mask_is_packed_as_asked() {
    let volume = Scan::counting(&[2, 2, 2]).read(None).unwrap();
    let plain = volume.mask_to_nifti(&[1; 8], Packing::Plain);
    assert_eq!(gunzip(&volume.mask_to_nifti(&[1; 8], Packing::Gzip)), plain);
    assert_eq!(plain.len(), 352 + 8);
}

/// What lies under a scan's name and is something else is called by its own.
#[test]
fn other_files_are_named() {
    let mut dicom = vec![0; 1000];
    dicom[128..132].copy_from_slice(b"DICM");
    let whole = Scan::counting(&[2, 2, 2]).bytes();
    for (file, wanted) in [
        (dicom, "dcm2niix"),
        (gzip(&gzip(&whole)), "gunzip"),
        (b"<!DOCTYPE html><html></html>".to_vec(), "log in"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            "git lfs pull",
        ),
        (b"PK\x03\x04 and so on".to_vec(), "unpack it"),
        (b"NRRD0004\n".to_vec(), "NRRD"),
    ] {
        for file in [file.clone(), gzip(&file)] {
            let refused = Volume::from_nifti(&file, None).unwrap_err().to_string();
            assert!(refused.contains(wanted), "{refused}");
        }
    }
}

/// A few kilobytes that unpack to gigabytes of zeros behind the voxels.
#[test]
fn a_gzip_of_zeros_without_end_is_refused_quickly() {
    let member = gzip(&vec![0; 1 << 20]);
    let mut file = gzip(&Scan::counting(&[2, 2, 2]).bytes());
    (0..8000).for_each(|_| file.extend(&member));
    let start = Instant::now();
    let refused = Volume::from_nifti(&file, None).unwrap_err().to_string();
    assert!(refused.contains("unpacks"), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// In whatever order a file keeps its axes, the oriented volume is the same.
#[test]
fn oriented_volumes_are_equal() {
    let scan = Volume::new(
        [2, 3, 4],
        (0..24).map(|value| value as f32).collect(),
        [[-1.0, 0.0, 0.0, 7.0], [0.0, -2.0, 0.0, 8.0], [0.0, 0.0, -3.0, 9.0]],
    );
    // The same with the axes reversed, the first two of them mirrored.
    let value = |i: usize, j: usize, k: usize| (k * 6 + j * 2 + i) as f32;
    let mut voxels = Vec::new();
    for i in [1, 0] {
        for j in [2, 1, 0] {
            voxels.extend((0..4).map(|k| value(i, j, k)));
        }
    }
    let other = Volume::new(
        [4, 3, 2],
        voxels,
        [[0.0, 0.0, 1.0, 6.0], [0.0, 2.0, 0.0, 4.0], [-3.0, 0.0, 0.0, 9.0]],
    );
    let (one, other) = (scan.clone().oriented(), other.oriented());
    assert_eq!(
        (one.dims, &one.voxels, one.affine),
        (other.dims, &other.voxels, other.affine)
    );
    assert_eq!((one.voxels, one.affine), (scan.voxels, scan.affine));
}
