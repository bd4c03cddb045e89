"""Lookups in sorted arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sorted_positions(ordered: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each value in an increasing array, -1 where it is absent. int64 (N,), (M,) -> int64 (M,).

    >>> sorted_positions(np.array([2, 5, 9]), np.array([9, 3])).tolist()
    [2, -1]
    """
    if len(ordered) == 0:
        return np.full(len(values), -1)
    position = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.where(ordered[position] == values, position, -1)
