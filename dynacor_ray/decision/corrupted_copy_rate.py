"""How many labels are wrong, from where the originals lie among the planted errors (§4.2, Proposition 1).

Errors that fall on the classes at random are planted errors by another hand: among the copies that rank lowest the
originals are spread evenly, and there are as many of them, in proportion, as labels are wrong. That count is free of
the classifier's own doubt, which `noise_rate` has in its estimate. But errors that people make look less wrong: they
lie higher, and the count misses them. So it is believed only as far as two things hold: the originals are spread
evenly, and they are nearly as many as the disagreement of the surest predictions says, which sees errors of every kind.

Deviations from the paper: it has no such estimate. The constants were chosen on the 50 label sets of `noise_rate`, five
with 2 to 5% wrong, 39 most of which mix random errors with human label noise or class-conditional noise, and 15 of
`dynacor compare`. What the surest predictions do not see either is missed: of human label noise with as many random
errors beside it, 18% wrong in all, 13 to 14% were estimated.

Cost: a sort of the copies' scores and a search among them for each original that ranks as low.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.noise_rate import SIGMAS, NoiseRate

SHARES = (0.5, 0.7)
"""Shares of the copies, lowest scores first, among which originals are counted: the larger has the smaller error, and
where few labels are wrong the smaller is free of right ones for longer."""
_EVEN, _UNEVEN = 0.04, 0.08
"""How far the originals' mean position may be from 1/2 for a count to be believed, and from where on it is not."""
_MISSING, _WHOLE = 0.7, 0.9
"""Ratio of the count to `NoiseRate.surest` up to which it is not believed, and from which it is."""


@dataclass(frozen=True)
class PlantedReading:
    """What the lowest copies say (§4.2).

    rate: share of wrong labels if errors rank as the copies do, in [0, 1]; error: its standard error; position: where
    among these copies the originals lie on average, 0 to 1 from the lowest score up, 1 where there are none.
    """

    rate: float
    error: float
    position: float


def with_corrupted_copies(
    first: NoiseRate, originals: NDArray[np.float64], copies: NDArray[np.float64], num_classes: int
) -> NoiseRate:
    """The estimate completed by where the originals lie among the copies (§4.2, Proposition 1).

    first: of `noise_rate.estimate_noise_rate`; originals, copies: scores of (a sample of) both sets, low = likely
    wrong, float (n,) and (m,), n >= 1; C >= 2. A count at the larger of SHARES goes before one at the smaller, as far
    as it is believed. The ends move with the value, those of a count are its sampling error (95%), and the first
    estimate stays between them.
    """
    ordered, settled = np.sort(copies), first
    for share in SHARES:
        reading = read_corrupted(originals, ordered, num_classes, share)
        if reading is not None:
            settled = _weighed(settled, reading)
    return replace(settled, low=min(settled.low, first.value), high=max(settled.high, first.value))


def read_corrupted(
    originals: NDArray[np.float64], copies: NDArray[np.float64], num_classes: int, share: float
) -> PlantedReading | None:
    """Count the originals among the lowest `share` of the copies, which are sorted (§4.2).

    A share eta/(C-1) of the copies has the true label by chance (Eq. 12) and is not among the lowest, as long as it and
    `share` are at most 1 together: of v originals per copy, each counted as a share of its set, the rate is
    v / (1 + v/(C-1)). `share` is in (0, 1); copies that tie with the first one above it are not counted. None when no
    copy is.
    """
    if not len(copies):
        return None
    end = copies[int(share * len(copies))]
    counted = int(np.searchsorted(copies, end))
    if not counted:
        return None
    lowest, below = copies[:counted], originals[originals < end]
    if not len(below):
        return PlantedReading(0.0, 1.0 / len(originals), 1.0)
    odds = (len(below) / len(originals)) / (counted / len(copies))
    right = odds / (num_classes - 1)
    relative = np.sqrt(1.0 / len(below) - 1.0 / len(originals) + 1.0 / counted - 1.0 / len(copies))
    position = (np.searchsorted(lowest, below, "left") + np.searchsorted(lowest, below, "right")) / (2.0 * counted)
    # d rate / d odds = 1 / (1 + right)^2
    error = odds * relative / (1.0 + right) ** 2
    return PlantedReading(min(1.0, odds / (1.0 + right)), float(error), float(position.mean(axis=0)))


def _weighed(first: NoiseRate, planted: PlantedReading) -> NoiseRate:
    spread = (_UNEVEN - abs(planted.position - 0.5)) / (_UNEVEN - _EVEN)
    found = planted.rate / first.surest if first.surest > 0 else 1.0
    whole = (found - _MISSING) / (_WHOLE - _MISSING)
    trust = min(1.0, max(0.0, spread)) * min(1.0, max(0.0, whole))
    low, high = max(0.0, planted.rate - SIGMAS * planted.error), min(1.0, planted.rate + SIGMAS * planted.error)

    def between(one: float, other: float) -> float:
        return one + trust * (other - one)

    return replace(
        first,
        value=between(first.value, planted.rate),
        low=between(first.low, low),
        high=between(first.high, high),
    )
