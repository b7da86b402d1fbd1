"""Times flapsam and PyTorch in turn on this machine, and prints the ratio of their medians:

    python compare.py FLAPSAM [WORK ..]     with a Python that has torch

Each turn is a process of its own: one time that does not count, and several that do. Five turns each.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

WORKS = ["vit-b-step", "vit-b-step4", "vit-b-full-step", "vit-b-forward", "nano-step"]
TURNS = 5


def run(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(flapsam, works):
    script = Path(__file__).with_name("pytorch.py")
    print(f"{'work':<18}{'flapsam, s':>12}{'PyTorch, s':>12}{'ratio':>8}{'flapsam, GiB':>14}{'PyTorch, GiB':>14}{'ratio':>8}")
    for work in works:
        # A process's second step still takes memory from the system that later ones have.
        repeats = {"nano-step": "20", "vit-b-forward": "10"}.get(work, "3")
        ours, theirs = [], []
        for _ in range(TURNS):
            ours.append(run([flapsam, "bench", "--json", "--work", work, "--repeats", repeats])["rows"][0])
            theirs.append(run([sys.executable, script, work, repeats]))
        seconds = [statistics.median(time for turn in turns for time in turn["seconds"]) for turns in (ours, theirs)]
        memory = [statistics.median(turn["peak_memory_bytes"] for turn in turns) / 2**30 for turns in (ours, theirs)]
        times = f"{work:<18}{seconds[0]:>12.4f}{seconds[1]:>12.4f}{seconds[0] / seconds[1]:>8.2f}"
        print(f"{times}{memory[0]:>14.2f}{memory[1]:>14.2f}{memory[0] / memory[1]:>8.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or WORKS)
