"""Mean training dynamics of groups of rows with their quartiles (Eq. 1), in one pass and little memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import DataError, expected_got

GROUPS = ("flagged", "unflagged", "planted")
"""Originals that look wrong, originals that do not, and the corrupted copies."""
_DROPPED_BITS = 4
"""A margin is counted without the last bits of its float16: quartiles are exact to 1 part in 64."""
_CODES = 1 << (16 - _DROPPED_BITS)


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean margin, lower and upper quartile per epoch of one group; empty if it has no rows."""

    rows: int
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Trajectories:
    """Counts of margins by group, epoch and value, which add up over batches."""

    def __init__(self, num_epochs: int) -> None:
        self._shape = (len(GROUPS), num_epochs, _CODES)
        self._counts = np.zeros(self._shape, np.int64)
        self._sums = np.zeros(self._shape[:2])
        self._rows = np.zeros(len(GROUPS), np.int64)

    def add(self, margins: NDArray[np.float16], group: NDArray[np.int64]) -> None:
        """Count one batch. margins: float16 (n, E), finite; group: int64 (n,), index in GROUPS."""
        if margins.shape[1] != self._shape[1]:
            got = f"{margins.shape[1]}"
            remedy = "run again in an empty directory"
            raise DataError(expected_got(f"{self._shape[1]} epochs in every row", got, remedy))
        epochs = np.arange(self._shape[1])
        flat = (group[:, None] * self._shape[1] + epochs) * _CODES + _codes(margins)
        self._counts += np.bincount(flat.ravel(), minlength=self._counts.size).reshape(self._shape)
        for place in range(len(GROUPS)):
            mine = margins[group == place]
            self._sums[place] += mine.sum(axis=0, dtype=np.float64)
            self._rows[place] += len(mine)

    def bands(self) -> dict[str, Band]:
        """Mean and quartiles per group of GROUPS."""
        return {name: self._band(place) for place, name in enumerate(GROUPS)}

    def _band(self, place: int) -> Band:
        rows = int(self._rows[place])
        if rows == 0:
            return Band(rows=0, mean=(), low=(), high=())
        reached = self._counts[place].cumsum(axis=1)
        low, high = (_values(np.argmax(reached >= share * rows, axis=1)) for share in (0.25, 0.75))
        mean = self._sums[place] / rows
        return Band(rows=rows, mean=tuple(mean.tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))


def _codes(margins: NDArray[np.float16]) -> NDArray[np.int64]:
    """Integers in the order of the margins: float16 sorts by its bits once the sign is handled."""
    bits = np.ascontiguousarray(margins).view(np.uint16)
    ordered = np.where(bits & 0x8000, ~bits, bits | 0x8000)
    return (ordered >> _DROPPED_BITS).astype(np.int64)


def _values(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The margin in the middle of those that share a code."""
    ordered = ((codes << _DROPPED_BITS) | (1 << (_DROPPED_BITS - 1))).astype(np.uint16)
    bits = np.where(ordered & 0x8000, ordered & 0x7FFF, ~ordered)
    return bits.astype(np.uint16).view(np.float16).astype(np.float64)
