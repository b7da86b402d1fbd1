"""Percentile bootstrap intervals of means, by scipy.

Reads a list of samples from the JSON file named on the command line and prints a list of [low, high].
"""

import json
import sys

import numpy as np
from scipy.stats import bootstrap


def interval(sample):
    result = bootstrap(
        (sample,), np.mean, n_resamples=10_000, confidence_level=0.95, method="percentile", rng=np.random.default_rng(1)
    )
    return list(result.confidence_interval)


with open(sys.argv[1], encoding="utf-8") as file:
    print(json.dumps([interval(sample) for sample in json.load(file)]))
