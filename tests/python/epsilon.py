"""Writes what Google's accountant says of clients that add Gaussian noise round after round.

    pip install dp-accounting==0.6.0
    python tests/python/epsilon.py > trainer/src/federation/epsilon.csv

Its privacy-loss distributions are exact but for their grid; the moments of its other accountant give larger numbers.
"""

import itertools

from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant

NOISE = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 4.0, 10.0]
ROUNDS = [1, 3, 10, 50, 200]
DELTA = [1e-3, 1e-5, 1e-8]

print("noise_multiplier,rounds,delta,epsilon")
for noise, rounds, delta in itertools.product(NOISE, ROUNDS, DELTA):
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(noise), rounds)
    print(f"{noise},{rounds},{delta},{accountant.get_epsilon(delta):.6g}")
