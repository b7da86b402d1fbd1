"""How far a change in the last bit moves the quick suite's figures: what tolerances of other devices rest on.

    python tolerances.py FLAPSAM FOLDER        with a Python that has numpy and safetensors

Each experiment of the quick suite is run once as it is and eight times from a base whose every weight is, by chance, one
bit larger, one bit smaller or as it was, which is how far two devices may read it apart. Printed is the largest movement
of each kind of figure among the eight. Runs stay in FOLDER, and those that are there are not run again.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ["methods/flap_sam", "alone/flap_sam", "methods/full_ft"]
RUNS = 8


def perturbed(base, seed):
    chance = np.random.default_rng(seed)

    def moved(weights):
        # The file has fewer bits than the network: those of the network are moved.
        weights = weights.astype(np.float32)
        bits = weights.view(np.int32) + chance.integers(-1, 2, weights.shape, np.int32)
        return np.where(weights == 0, weights, bits.view(np.float32))

    return {name: moved(weights) for name, weights in base.items()}


def run(flapsam, experiment, base, name, out):
    """The run's folder."""
    config, folder = out / f"{name}.toml", out / f"{name}-1"
    config.write_text(f'extends = "{ROOT}/golden/phantom/quick/{experiment}"\nbase = "{base}"\nsave_predictions = false\n')
    if not (folder / "metrics.json").exists():
        command = [flapsam, "run", config, "--out", out]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def kind(figure):
    """`last_round.loss.C` to `last_round.loss`, `dice.site_C.kidney` to `dice of a part`."""
    name = figure.split(".")
    if name[0] == "dice" and len(name) == 3:
        return "dice of a part"
    return ".".join(name[:2]) if name[0] in ("round_1", "last_round") else name[0]


def main(flapsam, out):
    source = ROOT / "golden/nano.safetensors"
    base = load_file(source)
    metadata = read_metadata(source)
    bases = []
    for seed in range(RUNS):
        path = out / f"base-{seed}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(perturbed(base, seed), path, metadata)
        bases.append(path)
    print(f"{'experiment':<18}{'figure':<28}{'largest movement':>18}")
    for experiment in EXPERIMENTS:
        runs = out / experiment
        runs.mkdir(parents=True, exist_ok=True)
        plain = run(flapsam, experiment, source, "plain", runs)
        largest = {}
        for number, path in enumerate(bases):
            other = run(flapsam, experiment, path, f"moved_{number}", runs)
            found = subprocess.run([flapsam, "diff", other, plain, "--json"], capture_output=True, text=True).stdout
            for row in json.loads(found)["rows"]:
                if row["difference"] is not None:
                    largest.setdefault(kind(row["figure"]), []).append(abs(row["difference"]))
        for name, movements in sorted(largest.items()):
            print(f"{experiment:<18}{name:<28}{max(movements):>18.6f}", flush=True)


def read_metadata(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)).get("__metadata__")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
