"""What nibabel reads from the scans named on the command line: one JSON line each.

Values are sampled: the first, the last and 198 at random, by their place in Fortran order.
"""

import json
import sys

import nibabel
import numpy as np

for path in sys.argv[1:]:
    image = nibabel.load(path)
    # What get_fdata() gives, without its copy in double precision: unscaled integers stay as small as in the file.
    values = np.asanyarray(image.dataobj)
    random = np.random.default_rng(0).integers(values.size, size=198)
    places = np.concatenate([[0, values.size - 1], random])
    samples = values[np.unravel_index(places, values.shape, order="F")]
    record = {
        "path": path,
        "shape": values.shape,
        "affine": image.affine[:3].tolist(),
        "axcodes": nibabel.aff2axcodes(image.affine),
        "places": places.tolist(),
        "values": samples.astype(float).tolist(),
    }
    print(json.dumps(record, allow_nan=False), flush=True)
