"""Surface Dice and 95 % Hausdorff distance of pairs of masks, by the package surface-distance.

Reads a list of cases from the JSON file named on the command line, each with `dims`, `spacing` in mm, `tolerance` in mm
and the masks `got` and `want`, the last axis running fastest. Prints a list with `hausdorff_95` and `surface_dice` of
each, null where it is no finite number.
"""

import json
import math
import sys

import numpy as np

# Version 0.1 calls infinity by a name that numpy 2 has dropped.
np.Inf = np.inf

import surface_distance  # noqa: E402


def finite(value):
    return float(value) if math.isfinite(value) else None


def score(case):
    got, want = (np.array(case[name], dtype=bool).reshape(case["dims"]) for name in ("got", "want"))
    distances = surface_distance.compute_surface_distances(want, got, case["spacing"])
    return {
        "hausdorff_95": finite(surface_distance.compute_robust_hausdorff(distances, 95)),
        "surface_dice": finite(surface_distance.compute_surface_dice_at_tolerance(distances, case["tolerance"])),
    }


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([score(case) for case in json.load(file)]))
