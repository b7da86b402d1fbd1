"""What numpy, scipy and Pillow make of stacks of slices, by the operations of the training augmentation.

Writes `augmentation.safetensors` into the folder named on the command line. It holds stacks as
`STACK/slices` and `STACK/labels`, and for each case its results as `STACK/OPERATIONS/slices` and
`STACK/OPERATIONS/labels`, with `STACK/OPERATIONS/noise` where a rectangle is erased. OPERATIONS are separated by `;`,
each one its name and its parameters, separated by spaces.
"""

import pathlib
import sys

import numpy as np
import scipy.ndimage
from PIL import Image, ImageEnhance, ImageOps
from safetensors.numpy import save_file

SLICES = 5
SIZES = {"tall": (37, 29), "wide": (24, 53), "square": (48, 48)}

# Shears by tenths put labels halfway between pixels, where the rounding of steps decides.
PARAMETERS = {
    "turn": ["0 0", "0 1", "1 0", "1 1", "2 0", "2 1", "3 0", "3 1"],
    "rotate": ["-15", "-7", "0", "1", "14"],
    "gamma": [0.5, 0.75, 1.0, 1.9283, 2.2, 3.4999],
    "erase": ["0 0 5 9", "11 3 9 6", "20 20 4 9"],
    "shear_x": [-0.2999, -0.2, -0.1, 0.0, 0.1, 0.125, 0.28317],
    "shear_y": [-0.2999, -0.2, -0.1, 0.0, 0.1, 0.125, 0.28317],
    "scale": [0.8, 0.93211, 1.0, 1.1, 1.19999],
    "translate_x": [-0.2, -0.1234, 0.0, 0.0625, 0.19],
    "translate_y": [-0.2, -0.1234, 0.0, 0.0625, 0.19],
    "posterize": [4, 5, 6, 7, 8],
    "contrast": [0.7, 0.912, 1.0, 1.1, 1.2999],
    "brightness": [0.7, 0.912, 1.0, 1.1, 1.2999],
    "sharpness": [0.1, 0.77, 1.0, 1.3, 1.8999],
    "identity": [""],
}

# One operation on what another one left, with odd turns first.
CHAINS = [
    "turn 1 0;rotate 9;gamma 1.7;erase 7 2 6 8;shear_x 0.21;sharpness 1.6",
    "turn 3 1;rotate -12;erase 3 5 9 5;translate_y -0.17;scale 0.87",
    "turn 1 1;erase 1 8 4 12;contrast 1.23;shear_y -0.19",
    "rotate 5;gamma 0.66;brightness 1.28;translate_x 0.111",
    "turn 2 1;sharpness 0.2;posterize 5",
]


def stack(rows, columns, random):
    """Blobs that move from slice to slice, with noise, from exactly 0 to exactly 1."""
    row, column = np.mgrid[:rows, :columns]
    slices = np.zeros((SLICES, rows, columns))
    labels = np.zeros((SLICES, rows, columns), np.uint8)
    for index in range(SLICES):
        for label, (y, x, size) in enumerate([(0.4, 0.35, 0.3), (0.65, 0.7, 0.2)], start=1):
            distance = ((row / rows - y - 0.02 * index) ** 2 + (column / columns - x) ** 2) / size**2
            slices[index] += label / 2 * np.exp(-2 * distance)
            labels[index][distance < 1] = label
    slices += random.normal(0, 0.05, slices.shape)
    return np.clip(slices, 0, 1).astype(np.float32), labels


def pictures(slices, operation):
    """Each slice through an operation on pictures of 8 bits."""
    results = []
    for values in slices:
        picture = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
        results.append(np.asarray(operation(picture)) / 255)
    return np.stack(results).astype(np.float32)


def moved(slices, labels, matrix):
    def transform(picture, resample):
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, resample=resample)

    slices = pictures(slices, lambda picture: transform(picture, Image.Resampling.BILINEAR))
    moved_labels = [np.asarray(transform(Image.fromarray(each), Image.Resampling.NEAREST)) for each in labels]
    return slices, np.stack(moved_labels)


def rotated(values, degrees):
    return np.stack([scipy.ndimage.rotate(each, degrees, order=0, reshape=False) for each in values])


def apply(name, parameters, noise, slices, labels):
    rows, columns = slices.shape[1:]
    value = parameters[0] if parameters else None
    match name:
        case "turn":
            quarters, axis = map(int, parameters)
            return [np.flip(np.rot90(each, quarters, axes=(1, 2)), 1 + axis) for each in (slices, labels)]
        case "rotate":
            return rotated(slices, int(value)), rotated(labels, int(value))
        case "gamma":
            table = ((np.arange(256) / 255) ** (1 / value) * 255).astype(np.uint8)
            return (table[(slices * 255).astype(np.uint8)] / 255).astype(np.float32), labels
        case "erase":
            top, left, height, width = map(int, parameters)
            slices, labels = slices.copy(), labels.copy()
            slices[:, top : top + height, left : left + width] = noise
            labels[:, top : top + height, left : left + width] = 0
            return slices, labels
        case "shear_x":
            return moved(slices, labels, (1, value, -value * columns / 2, 0, 1, 0))
        case "shear_y":
            return moved(slices, labels, (1, 0, 0, value, 1, -value * rows / 2))
        case "scale":
            return moved(slices, labels, (value, 0, 0, 0, value, 0))
        case "translate_x":
            return moved(slices, labels, (1, 0, value * columns, 0, 1, 0))
        case "translate_y":
            return moved(slices, labels, (1, 0, 0, 0, 1, value * rows))
        case "posterize":
            return pictures(slices, lambda picture: ImageOps.posterize(picture, int(value))), labels
        case "contrast":
            return pictures(slices, lambda picture: ImageEnhance.Contrast(picture).enhance(value)), labels
        case "brightness":
            return pictures(slices, lambda picture: ImageEnhance.Brightness(picture).enhance(value)), labels
        case "sharpness":
            return pictures(slices, lambda picture: ImageEnhance.Sharpness(picture).enhance(value)), labels
        case "identity":
            return slices, labels
    raise ValueError(name)


def main(folder):
    random = np.random.default_rng(0)
    cases = [f"{name} {each}".strip() for name, values in PARAMETERS.items() for each in values] + CHAINS
    # Parameters nobody chose, to all their digits.
    cases += [f"{name} {random.uniform(-0.3, 0.3)}" for name in ("shear_x", "shear_y") for _ in range(5)]
    cases += [f"{name} {random.uniform(-0.2, 0.2)}" for name in ("translate_x", "translate_y") for _ in range(5)]
    cases += [f"scale {random.uniform(0.8, 1.2)}" for _ in range(5)]
    cases += [f"gamma {random.uniform(0.5, 3.5)}" for _ in range(5)]
    enhancements = ("contrast", "brightness", "sharpness")
    cases += [f"{name} {random.uniform(0.7, 1.3)}" for name in enhancements for _ in range(5)]
    cases += [f"rotate {degrees}" for degrees in range(-14, 14, 3)]
    tensors = {}
    for size, (rows, columns) in SIZES.items():
        inputs = stack(rows, columns, random)
        tensors[f"{size}/slices"], tensors[f"{size}/labels"] = inputs
        for case in cases:
            results = inputs
            for operation in case.split(";"):
                name, *parameters = operation.split()
                parameters = [float(each) for each in parameters]
                noise = None
                if name == "erase":
                    height, width = map(int, parameters[2:])
                    noise = random.random((height, width)).astype(np.float32)
                    tensors[f"{size}/{case}/noise"] = noise
                results = apply(name, parameters, noise, *results)
            for kind, values in zip(("slices", "labels"), results):
                tensors[f"{size}/{case}/{kind}"] = np.ascontiguousarray(values)
    save_file(tensors, pathlib.Path(folder) / "augmentation.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
