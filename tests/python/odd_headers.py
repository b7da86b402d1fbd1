"""Scans with odd headers, and what nibabel makes of them: one JSON record a line, as volumes.py prints them.

    python odd_headers.py FOLDER COUNT

Headers are drawn by seed: either version and byte order, forms of every code, distances that are negative or zero, units of
length, dimensions beyond the third, extensions. Affines are printed in millimetres. Only what nibabel reads, and lies
somewhere, is kept: an affine with an axis of no length is what `Volume` refuses or mends.
"""

import json
import sys
from pathlib import Path

import nibabel
import numpy as np

MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def header(chance):
    kind = chance.choice([nibabel.Nifti1Header, nibabel.Nifti2Header])
    made = kind(endianness=chance.choice(["<", ">"]))
    made.set_data_dtype(chance.choice([np.uint8, np.int16, np.float32, np.float64]))
    sides = chance.integers(1, 5, chance.integers(2, 6))
    sides[3:] = 1
    made.set_data_shape(sides)
    made["pixdim"][:4] = chance.choice([-1, 1, 1, 0, 2]), *(chance.uniform(0.3, 4, 3) * chance.choice([1, 1, -1, 0], 3))
    made["qform_code"], made["sform_code"] = chance.choice([0, 1, 2, 3, 4, 5, 9, -1], 2)
    turn = chance.normal(size=4)
    turn /= np.linalg.norm(turn) * np.sign(turn[0])
    made["quatern_b"], made["quatern_c"], made["quatern_d"] = turn[1:]
    made["qoffset_x"], made["qoffset_y"], made["qoffset_z"] = chance.uniform(-90, 90, 3)
    turned, _ = np.linalg.qr(chance.normal(size=(3, 3)))
    leaning = np.eye(3) + np.triu(chance.uniform(-0.1, 0.1, (3, 3)), 1)
    rows = np.column_stack([turned @ leaning * chance.uniform(0.3, 4, 3), chance.uniform(-90, 90, 3)])
    made["srow_x"], made["srow_y"], made["srow_z"] = rows
    unit = int(chance.integers(0, 4))
    made["xyzt_units"] = unit + chance.choice([0, 8, 16])
    made["scl_slope"], made["scl_inter"] = [(0, 0), (1, 0), (2.5, -3)][chance.integers(3)]
    return made, MILLIMETRES[unit]


def main(folder, count):
    nibabel.imageglobals.logger.setLevel("CRITICAL")
    kept = 0
    for seed in range(count):
        chance = np.random.default_rng(seed)
        made, unit = header(chance)
        shape = made.get_data_shape()
        values = chance.integers(0, 200, int(np.prod(shape))).astype(made.get_data_dtype())
        extension = b"\0" * 4
        if chance.random() < 0.3:
            size = 16 * int(chance.integers(1, 4))
            order = "little" if made.endianness == "<" else "big"
            extension = b"\1\0\0\0" + size.to_bytes(4, order) + (4).to_bytes(4, order) + b"x" * (size - 8)
        made["vox_offset"] = len(made.binaryblock) + len(extension)
        path = folder / f"{seed}.nii"
        path.write_bytes(made.binaryblock + extension + values.tobytes())
        image = nibabel.load(path)
        lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
        if lengths.min() < 1e-3:
            continue
        kept += 1
        print(
            json.dumps(
                {
                    "path": str(path),
                    "shape": [*shape, 1][:3] if len(shape) == 2 else list(shape),
                    "affine": (image.affine[:3] * unit).tolist(),
                    "axcodes": list(nibabel.aff2axcodes(image.affine)),
                    "places": list(range(values.size)),
                    "values": np.asanyarray(image.dataobj).ravel(order="F").astype(float).tolist(),
                }
            )
        )
    assert kept > count / 2, kept


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
