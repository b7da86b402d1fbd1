"""DICOM series for tests, with pydicom, and segmentations read back, with highdicom.

    dicom.py make FOLDER           # series of many kinds, and what their values and places are, as JSON lines
    dicom.py of-nifti SCAN FOLDER  # a NIfTI scan as a series of one file a slice
    dicom.py compare SEG MASK      # exits with 0 where a DICOM segmentation marks what the NIfTI mask does
"""

import json
import sys
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

STUDY, FRAME_OF_REFERENCE = generate_uid(), generate_uid()


def image(kind, syntax, series, number, description="a series"):
    """A data set with what is alike in all images here."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=syntax.is_implicit_VR,
                       is_little_endian=syntax.is_little_endian)
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = STUDY, series
    data.FrameOfReferenceUID = FRAME_OF_REFERENCE
    data.SeriesNumber, data.SeriesDescription = number, description
    data.Modality = "CT" if kind == CTImageStorage else "MR"
    data.PatientName, data.PatientID = "Doe^Jane", "4711"
    data.PatientBirthDate, data.PatientSex = "19700101", "F"
    data.StudyID, data.AccessionNumber = "S1", "A1"
    data.StudyDate, data.StudyTime = "20200101", "120000"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    return data


def set_pixels(data, stored, bits=16):
    """Stored numbers of one frame, or of several."""
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    little = not data.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    stored = stored.astype(stored.dtype.newbyteorder("<" if little else ">"))
    data.PixelData = stored.tobytes()
    if data.BitsAllocated == 16:
        data["PixelData"].VR = "OW"


def decimal(number):
    """As many digits as the standard allows."""
    return f"{number:.12f}"[:16]


def turned(angles):
    """Row and column directions, turned about three axes."""
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation[:, 0], rotation[:, 1]


def series(folder, generator, *, kind=CTImageStorage, syntax=ExplicitVRLittleEndian, directions=None, tilt=0.0,
           dtype=np.int16, bits=16, rescale=lambda k: (1.0, -1024.0), count=7, shape=(9, 11), uid=None, number=1,
           description="a series", packed=False):
    """Writes a series in no order of names; returns what its pixels are worth and where they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = directions if directions is not None else (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    spacing, apart = (0.7, 1.3), 2.5
    step = np.cross(row, column) * apart + column * tilt
    origin = np.array([-31.5, 12.25, 100.0])
    uid = uid or generate_uid()
    names = generator.permutation(count)
    truth = []
    for k in range(count):
        data = image(kind, syntax, uid, number, description)
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if np.dtype(dtype).kind == "i" else (0, 1 << bits)
        stored = generator.integers(low, high, size=shape).astype(dtype)
        set_pixels(data, stored, bits)
        slope, intercept = rescale(k)
        data.RescaleSlope, data.RescaleIntercept = decimal(slope), decimal(intercept)
        position = origin + k * step
        data.ImagePositionPatient = [decimal(value) for value in position]
        data.ImageOrientationPatient = [decimal(value) for value in (*row, *column)]
        data.PixelSpacing = [decimal(value) for value in spacing]
        data.InstanceNumber = count - k
        if packed:
            data.compress(RLELossless)
        data.save_as(folder / f"{names[k]:03}", enforce_file_format=True)
        truth += worth(stored * slope + intercept, position, row, column, spacing)
    return {"path": str(folder), "dims": [shape[1], shape[0], count], "pixels": truth}


def worth(values, position, row, column, spacing):
    """Each pixel's place (mm, right-anterior-superior) and value, by the standard's own equation (C.7.6.2.1-1)."""
    listed = []
    for (j, i), value in np.ndenumerate(values):
        place = position + i * spacing[1] * row + j * spacing[0] * column
        listed.append([-place[0], -place[1], place[2], float(value)])
    return listed


def enhanced(folder, generator):
    """One file of many frames, in no order, with what they share apart from what each has."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = turned((0.1, 0.2, -0.3))
    count, shape, spacing = 6, (8, 10), (1.1, 0.9)
    data = image(EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid(), 3)
    stored = generator.integers(0, 4096, size=(count, *shape)).astype(np.uint16)
    set_pixels(data, stored, 12)
    data.NumberOfFrames = count
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [decimal(value) for value in spacing], "2"
    orientation.ImageOrientationPatient = [decimal(value) for value in (*row, *column)]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    step = np.cross(row, column) * 2.0
    frames, truth = [], []
    for frame, k in enumerate(generator.permutation(count)):
        position = np.array([5.0, -7.0, 20.0]) + k * step
        own, place, values = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [decimal(value) for value in position]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = decimal(1.5 + k), decimal(-k), "US"
        own.PlanePositionSequence, own.PixelValueTransformationSequence = Sequence([place]), Sequence([values])
        frames.append(own)
        truth += worth(stored[frame] * (1.5 + k) - k, position, row, column, spacing)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return {"path": str(folder), "dims": [shape[1], shape[0], count], "pixels": truth}


def make(folder):
    generator = np.random.default_rng(7)
    sagittal = (np.array([0, 1.0, 0]), np.array([0, 0, -1.0]))
    coronal = (np.array([1.0, 0, 0]), np.array([0, 0, -1.0]))
    kinds = {
        "axial": {},
        "twelve_bits": {"bits": 12},
        "unsigned": {"dtype": np.uint16, "kind": MRImageStorage},
        "eight_bits": {"dtype": np.uint8, "bits": 8},
        "oblique": {"directions": turned((0.4, -0.3, 0.2)), "kind": MRImageStorage, "syntax": ImplicitVRLittleEndian},
        "sagittal": {"directions": sagittal, "syntax": ExplicitVRBigEndian},
        "coronal": {"directions": coronal},
        "packed": {"packed": True},
        "tilted": {"tilt": 0.6},
        "own_slopes": {"rescale": lambda k: (0.25 * (k + 1), -10.0 * k)},
        "one_image": {"count": 1},
    }
    for name, kind in kinds.items():
        print(json.dumps(series(folder / name, generator, **kind)))
    print(json.dumps(enhanced(folder / "enhanced", generator)))
    # Not read back: what must be refused or chosen from.
    for number, description in ((1, "chest"), (2, "abdomen")):
        series(folder / "two_series" / description, generator, number=number, description=description)
    series(folder / "missing", generator)
    next(path for path in (folder / "missing").iterdir() if is_fourth(path)).unlink()
    uid = generate_uid()
    for time in ("one", "other"):
        series(folder / "times" / time, generator, uid=uid)
    series(folder / "no_place", generator)
    for path in (folder / "no_place").iterdir():
        change(path, lambda data: data.__delattr__("ImagePositionPatient"))
    series(folder / "many_frames", generator, count=1)
    change(folder / "many_frames" / "000", lambda data: setattr(data, "NumberOfFrames", 1_000_000_000))
    series(folder / "cut_off", generator)
    for path in (folder / "cut_off").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    series(folder / "colour", generator, count=1)
    change(folder / "colour" / "000", lambda data: setattr(data, "SamplesPerPixel", 3))
    (folder / "nothing").mkdir()
    (folder / "nothing" / "readme.txt").write_text("no images")


def is_fourth(path):
    import pydicom

    return pydicom.dcmread(path).InstanceNumber == 4


def change(path, how):
    import pydicom

    data = pydicom.dcmread(path)
    how(data)
    data.save_as(path)


def of_nifti(scan, folder):
    import nibabel

    volume = nibabel.load(scan)
    values = np.asarray(volume.dataobj)
    stored = np.round(values).astype(np.int16)
    assert np.array_equal(stored, values)
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    row, column = affine[:3, 0] / spacing[0], affine[:3, 1] / spacing[1]
    folder.mkdir(parents=True)
    uid = generate_uid()
    for k in range(stored.shape[2]):
        data = image(CTImageStorage, ExplicitVRLittleEndian, uid, 1)
        set_pixels(data, np.ascontiguousarray(stored[:, :, k].T))
        data.RescaleSlope, data.RescaleIntercept = "1", "0"
        data.ImagePositionPatient = [decimal(value) for value in affine[:3, 3] + k * affine[:3, 2]]
        data.ImageOrientationPatient = [decimal(value) for value in (*row, *column)]
        data.PixelSpacing = [decimal(spacing[1]), decimal(spacing[0])]
        data.SliceThickness = decimal(spacing[2])
        data.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def compare(segmentation, mask):
    import highdicom
    import nibabel

    read = highdicom.seg.segread(segmentation)
    volume = read.get_volume(combine_segments=True, rescale_fractional=False)
    theirs = nibabel.Nifti1Image(
        np.asarray(volume.array, dtype=np.uint8), np.diag([-1.0, -1, 1, 1]) @ np.asarray(volume.affine)
    )
    whole, theirs = (nibabel.as_closest_canonical(one) for one in (nibabel.load(mask), theirs))
    # A segmentation without empty frames covers less than the scan.
    ours, found = np.asarray(whole.dataobj), np.asarray(theirs.dataobj)
    shift = np.linalg.solve(whole.affine, theirs.affine[:, 3])[:3]
    assert np.allclose(shift, np.round(shift), atol=1e-3), shift
    start = np.round(shift).astype(int)
    expected = np.zeros_like(ours)
    part = tuple(slice(begin, begin + size) for begin, size in zip(start, found.shape))
    expected[part] = found
    assert np.allclose(whole.affine[:3, :3], theirs.affine[:3, :3], atol=1e-4)
    assert np.array_equal(expected, ours), (np.bincount(expected.ravel()), np.bincount(ours.ravel()))
    print(json.dumps({
        "segments": [description.segment_label for description in read.segment_descriptions],
        "voxels": int((ours > 0).sum()),
        "patient": [str(read.PatientName), read.PatientID, read.PatientBirthDate, read.PatientSex, read.StudyID,
                    read.AccessionNumber, read.StudyDate],
        "study": read.StudyInstanceUID,
        "referenced": len(read.ReferencedSeriesSequence[0].ReferencedInstanceSequence),
    }))


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    {"make": make, "of-nifti": of_nifti, "compare": compare}[what](*map(Path, paths))
