"""What a base that was never trained on scans makes of a hippocampus with a box around it:

    python tests/python/zero_shot.py --base FILE --data data/hippocampus --table data-manifests/hippocampus.csv

Of each site's first training patients the first hippocampus in the table is asked for by `flapsam prompt`, on the
middle one of the axial slices that hold it, with a box two voxels around its true outline there. Printed are the
Dice on that slice of the mask to which the network gives the highest score, and of the best of its three masks,
case by case and as means.
Needs nibabel.
"""

import argparse
import csv
import json
import subprocess
from pathlib import Path

import nibabel
import numpy as np

MARGIN = 2


def middle_slice(path, ids):
    """The true outline on the middle slice that holds it (rows towards the back, columns towards the patient's left),
    and the slice's number from 1 at the feet."""
    image = nibabel.load(path)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    )
    labels = nibabel.orientations.apply_orientation(np.asanyarray(image.dataobj), turn)
    inside = np.isin(labels, ids)
    held = np.flatnonzero(inside.any(axis=(0, 1)))
    place = held[len(held) // 2]
    return inside[:, :, place].T, int(place) + 1


def box_around(outline):
    """x, y, x, y of the outer pixels, and the margin as far as the slice reaches."""
    rows, columns = (np.flatnonzero(outline.any(axis=axis)) for axis in (1, 0))
    last = [outline.shape[1] - 1, outline.shape[0] - 1]
    start = [max(int(places[0]) - MARGIN, 0) for places in (columns, rows)]
    end = [min(int(places[-1]) + MARGIN, most) for places, most in zip((columns, rows), last)]
    return start + end


def ask(arguments, case):
    scan, labels = (arguments.data / case[key] for key in ("image", "label"))
    outline, number = middle_slice(labels, [int(id) for id in case["label_ids"].split("+")])
    box = ",".join(map(str, box_around(outline)))
    command = [arguments.program.resolve(), "prompt", scan, "--base", arguments.base]
    command += ["--slice", str(number), "--box", box, "--truth", labels, "--label-ids", case["label_ids"]]
    command += ["--device", "cpu", "--json"]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    # nibabel and the program mean the same slice.
    assert answer["truth"]["pixels"] == int(outline.sum()), case
    dice = [mask["dice"] for mask in answer["masks"]]
    return dice[answer["best"] - 1], max(dice), answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, default="target/release/flapsam")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, default="data/hippocampus")
    parser.add_argument("--table", type=Path, default="data-manifests/hippocampus.csv")
    # Vanderbilt's scans are crops of one hippocampus already.
    parser.add_argument("--sites", nargs="+", default=["st-louis", "hammersmith"])
    parser.add_argument("--patients", type=int, default=5)
    arguments = parser.parse_args()

    with open(arguments.table, newline="") as table:
        cases = [case for case in csv.DictReader(table) if case["split"] == "train"]
    for site in arguments.sites:
        first = {}
        for case in (case for case in cases if case["site"] == site):
            first.setdefault(case["patient"], case)
        found = []
        for case in list(first.values())[: arguments.patients]:
            best_score, best, answer = ask(arguments, case)
            found.append((best_score, best))
            number, pixels = answer["slice"]["number"], answer["truth"]["pixels"]
            dice = f"Dice {best_score:.3f}, best {best:.3f}"
            print(f"{case['case_id']}: slice {number}, {pixels} pixels, {dice}", flush=True)
        dice, best = np.mean(found, axis=0)
        print(f"{site}: mean Dice {dice:.3f} of the highest score, {best:.3f} of the best mask, {len(found)} patients")


if __name__ == "__main__":
    main()
