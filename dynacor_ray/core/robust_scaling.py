"""Features as they come: columns in other units than the rest, and rows far out, brought back into line (ours).

A time stamp or a row number among the columns, or one row in other units, would decide the mean, the scale and every
distance alone. What is usual is read from a sample by quantiles, which a few rows do not move:

- The unit of a column is the 90% quantile of its distances to its median, among those that are not zero: a column that
  is rarely anything but zero has the unit of what it then is. Columns get the median unit if theirs is more than
  `FAR_COLUMN` times above or below it, or more than `LARGE_COLUMN` times above it and larger in square than the sum of
  all smaller ones: such a column has most of the variance. Where units spread (`MIXED_UNITS`), all columns get it.
- A row farther from the medians than `FAR_ROW` times the median row is moved back to that distance, in its direction.

Features that are alike, such as those of an encoder or its principal components, stay bit for bit what they are.

Cost: quantiles of a sample of `SAMPLE_ROWS` rows; one product per value to apply, where there is anything to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_ROWS = 4096
"""Rows that the medians and units are read from: 64 MiB of 4,096 columns."""
FAR_COLUMN, LARGE_COLUMN = 30.0, 5.0
"""Principal components of encoders reach 15 times the median unit, with a fifth of the variance in one; pixels a ninth.
The row number of 200 rows beside 64 pixels has 10 times the median unit, and three quarters of the variance."""
MIXED_UNITS = 10.0
"""Quotient of the 90% and the 10% quantile of the units: at most 4 of features that are alike."""
FAR_ROW = 5.0
"""Features that are alike have their farthest row at 1.2 to 2.5 times the median distance."""
_UNIT_QUANTILE = 0.9
_AT_HAND = 1 << 17
_LEAST_UNIT = 1e-6
"""Of the median: less is rounding, and the column counts as constant."""


@dataclass(frozen=True)
class RobustScaling:
    """How features are brought into line.

    Attributes:
        center: medians of the columns, length D.
        weights: factors of the columns, length D; 1 leaves one as it is.
        limit: largest distance from the center after that; infinite where no row can be far.
        far_columns: columns whose unit is far from that of the others, the largest first.
        constant_columns: columns with one value in the whole sample.
        mixed: whether all columns were given the same unit.
    """

    center: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float
    far_columns: tuple[int, ...]
    constant_columns: tuple[int, ...]
    mixed: bool

    @classmethod
    def of(cls, sample: NDArray[np.floating[Any]]) -> RobustScaling:
        """Read from a sample of rows. sample: finite float (n, D), n >= 1."""
        rows = sample.astype(np.float64)
        # Twice: in a column that is rarely anything but zero, far rows can be many among the values that are not.
        first = cls._of(rows)
        near = first.distances(rows) <= first.limit
        return first if near.all() else cls._of(rows[near])

    @classmethod
    def _of(cls, rows: NDArray[np.float64]) -> RobustScaling:
        center = np.median(rows, axis=0)
        distance = np.abs(rows - center)
        unit = _units(distance)
        unit[unit <= _LEAST_UNIT * np.abs(center)] = 0.0
        varies = unit > 0
        weights, far, mixed = np.ones_like(unit), np.empty(0, np.int64), False
        if varies.any():
            usual = float(np.exp(np.median(np.log(unit[varies]))))
            ratio = np.where(varies, unit / usual, 1.0)
            low, high = np.quantile(ratio[varies], (1.0 - _UNIT_QUANTILE, _UNIT_QUANTILE))
            smaller = np.sort(ratio[varies])
            below = np.concatenate([[0.0], np.cumsum(smaller**2)])[np.searchsorted(smaller, ratio)]
            out = (np.maximum(ratio, 1.0 / ratio) > FAR_COLUMN) | ((ratio > LARGE_COLUMN) & (ratio**2 > below))
            mixed = bool(high > MIXED_UNITS * low)
            weights = np.where(out | mixed, 1.0 / ratio, 1.0)
            far = np.flatnonzero(out)[np.argsort(-ratio[out], kind="stable")]
        length = np.linalg.norm(distance * weights, axis=1)
        away = length[length > 0]
        return cls(
            center=tuple(center.tolist()),
            weights=tuple(weights.tolist()),
            limit=FAR_ROW * float(np.median(away)) if len(away) else float("inf"),
            far_columns=tuple(far.tolist()),
            constant_columns=tuple(np.flatnonzero(~varies).tolist()),
            mixed=mixed,
        )

    @property
    def scales(self) -> bool:
        """Whether any column is scaled."""
        return any(weight != 1.0 for weight in self.weights)

    def may_be_far(self, center: NDArray[np.float64], reach: float) -> bool:
        """Whether a row may be far that is no farther than `reach` from some center, float (D,), as it is."""
        return self.scales or not reach + float(np.linalg.norm(center - np.asarray(self.center))) <= self.limit

    def distances(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Distance of each row from the center, columns scaled, float64 (n,). features: float (n, D)."""
        distance: NDArray[np.float64] = np.linalg.norm(self._moved(features), axis=1)
        return distance

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows brought into line, float32 (n, D); scaled columns are centered. features: float32 (n, D)."""
        rows = self._moved(features)
        distance = np.linalg.norm(rows, axis=1)
        far = distance > self.limit
        rows[far] *= (self.limit / distance[far])[:, None]
        same = np.asarray(self.weights) == 1.0
        lined: NDArray[np.float32] = np.where(same, features, rows).astype(np.float32)
        lined[far] = rows[far] + np.where(same, self.center, 0.0)
        return lined

    def _moved(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = (features - np.asarray(self.center)) * np.asarray(self.weights)
        return rows


def reach_of(features: NDArray[np.float32], center: NDArray[np.float64]) -> float:
    """A bound for the distance of every row from a center, a little above the largest. float32 (n, D), float64 (D,)."""
    near, step, largest = center.astype(np.float32), max(1, _AT_HAND // len(center)), 0.0
    with np.errstate(over="ignore"):  # then the bound is infinite
        for start in range(0, len(features), step):
            away = features[start : start + step] - near
            largest = max(largest, float(np.einsum("ij,ij->i", away, away).max()))
    rounding = 1e-6 * float(np.linalg.norm(center))  # of float32, in the differences
    return 1.001 * float(np.sqrt(largest)) + rounding


def _units(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 90% quantile of the distances of each column that are not zero, float64 (D,); 0 for a constant column."""
    ordered = np.sort(distance, axis=0)
    zeros = (ordered == 0).sum(axis=0)
    place = zeros + np.ceil(_UNIT_QUANTILE * (len(ordered) - zeros)).astype(np.int64) - 1
    units: NDArray[np.float64] = np.where(
        zeros < len(ordered), ordered[np.minimum(place, len(ordered) - 1), np.arange(ordered.shape[1])], 0.0
    )
    return units
