"""How many labels are wrong, from where the originals lie among the planted errors (§4.2, Proposition 1).

Errors that fall on the classes at random are planted errors by another hand: among the copies that rank lowest the
originals are spread evenly, and there are as many of them, in proportion, as labels are wrong. Errors that people make
look less wrong than that: they are rare at the low end, and counting there would miss most of them. So the count is
believed as far as the originals are spread evenly, and `noise_rate`, which reads sure predictions, for the rest.

Deviations from the paper: it has no such estimate. The constants were chosen on the 50 label sets of `noise_rate`, five
with 2 to 5% wrong and 15 of `dynacor compare`. A cut at the estimate loses 1.5 points of F1 to the best possible cut on
the noisy ones of the first 55, 2.7 without this module and 1.0 at the true rate; other ramps between 0.54 and 0.62
lose nearly the same.

Cost: a sort of the copies' scores and a search among them for each original that ranks as low.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.method.noise_rate import SIGMAS, NoiseRate

SHARES = (0.5, 0.7)
"""Shares of the copies, lowest scores first, among which originals are counted: the larger has the smaller error, and
where few labels are wrong the smaller is free of right ones for longer."""
_EVEN, _UNEVEN = 0.56, 0.60
"""Mean position up to which a count is believed, and from which it is not; of an even spread it is 1/2."""


@dataclass(frozen=True)
class PlantedReading:
    """What the lowest copies say (§4.2).

    rate: share of wrong labels if errors rank as the copies do, in [0, 1]; error: its standard error; position: where
    among these copies the originals lie on average, 0 to 1 from the lowest score up, 1 where there are none.
    """

    rate: float
    error: float
    position: float


def with_planted(
    first: NoiseRate, originals: NDArray[np.float64], copies: NDArray[np.float64], num_classes: int
) -> NoiseRate:
    """The estimate completed by where the originals lie among the copies (§4.2, Proposition 1).

    first: of `noise_rate.estimate_noise_rate`; originals, copies: scores of (a sample of) both sets, low = likely
    wrong, float (n,) and (m,), n >= 1; C >= 2. A count at the larger of SHARES goes before one at the smaller, as far
    as it is believed. The ends move with the value; those of a count are its sampling error (95%).
    """
    ordered = np.sort(copies)
    for share in SHARES:
        if int(share * len(ordered)) >= 1:
            first = _weighed(first, read_planted(originals, ordered, num_classes, share))
    return first


def read_planted(
    originals: NDArray[np.float64], copies: NDArray[np.float64], num_classes: int, share: float
) -> PlantedReading:
    """Count the originals among the lowest `share` of the copies, which are sorted (§4.2).

    A share eta/(C-1) of the copies has the true label by chance (Eq. 12) and is not among the lowest, as long as it and
    `share` are at most 1 together: of v originals per copy, each counted as a share of its set, the rate is
    v / (1 + v/(C-1)). Needs `share * m` of at least 1 and below m.
    """
    counted = int(share * len(copies))
    lowest, below = copies[:counted], originals[originals < copies[counted]]
    if not len(below):
        return PlantedReading(0.0, 1.0 / len(originals), 1.0)
    odds = (len(below) / len(originals)) / (counted / len(copies))
    rate = odds / (1.0 + odds / (num_classes - 1))
    spread = np.sqrt(1.0 / len(below) - 1.0 / len(originals) + 1.0 / counted - 1.0 / len(copies))
    position = (np.searchsorted(lowest, below, "left") + np.searchsorted(lowest, below, "right")) / (2.0 * counted)
    return PlantedReading(min(1.0, float(rate)), float(rate * spread), float(position.mean(axis=0)))


def _weighed(first: NoiseRate, planted: PlantedReading) -> NoiseRate:
    trust = min(1.0, max(0.0, (_UNEVEN - planted.position) / (_UNEVEN - _EVEN)))
    low, high = max(0.0, planted.rate - SIGMAS * planted.error), min(1.0, planted.rate + SIGMAS * planted.error)

    def between(one: float, other: float) -> float:
        return one + trust * (other - one)

    return NoiseRate(between(first.value, planted.rate), between(first.low, low), between(first.high, high))
