"""Percentile intervals of means by a hierarchical bootstrap, by numpy.

Reads a list of differences[site][patient][case][seed] from the JSON file named on the command line and prints a list of
[low, high].
"""

import json
import sys

import numpy as np

RESAMPLES = 10_000


def interval(sites, rng):
    seeds = len(sites[0][0][0])
    # How often each seed was drawn; then the sums of the drawn cases and their number, site after site.
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    sums = np.zeros(RESAMPLES)
    cases = np.zeros(RESAMPLES)
    for drawn in rng.integers(len(sites), size=(len(sites), RESAMPLES)):
        for place, patients in enumerate(sites):
            here = np.flatnonzero(drawn == place)
            counts = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=len(here))
            by_seed = np.array([np.sum(of_patient, axis=0) for of_patient in patients])
            sums[here] += np.einsum("rp,ps,rs->r", counts, by_seed, seed_counts[here])
            cases[here] += counts @ [len(of_patient) for of_patient in patients]
    return list(np.percentile(sums / (cases * seeds), [2.5, 97.5]))


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([interval(sites, np.random.default_rng(1)) for sites in json.load(file)]))
