"""What the classifier predicted over the epochs, in short (§4.3), for the report; no detector reads it.

Apart from the other functions of the dynamics since it needs no torch: what assembles dynamics starts a second earlier
and takes 300 MB less without it.

Cost: one sort of (n, E) small integers along the epochs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import DataError, expected_got


def summarize_predictions(predicted: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Most frequent top-1 class over the epochs and its share (summary of Eq. 1's epochs for the report, §4.3).

    predicted: int32 (n, E), E >= 1. Returns the mode, int32 (n,), and its share, float32 (n,) in (0, 1]. Among equally
    frequent classes the one predicted latest wins: later epochs know more. Raises DataError when E = 0.

    >>> summarize_predictions(np.array([[1, 1, 2, 1], [3, 0, 0, 3]], np.int32))
    (array([1, 3], dtype=int32), array([0.75, 0.5 ], dtype=float32))
    """
    num_rows, num_epochs = predicted.shape
    if num_epochs < 1:
        raise DataError(expected_got("predictions of at least one epoch", "none", "train for one epoch or more"))
    if num_rows == 0:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
    order = np.argsort(predicted, axis=1, kind="stable")
    ordered = np.take_along_axis(predicted, order, axis=1)
    starts = np.ones(predicted.shape, dtype=np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.flatnonzero(starts)
    stop = np.append(first[1:], predicted.size)
    # a stable sort leaves the latest epoch of a class at the end of its run
    score = (stop - first) * num_epochs + order.reshape(-1)[stop - 1]
    runs_per_row = np.count_nonzero(starts, axis=1)
    best = np.maximum.reduceat(score, np.cumsum(runs_per_row) - runs_per_row)
    mode = predicted[np.arange(num_rows), best % num_epochs].astype(np.int32)
    return mode, (best // num_epochs / num_epochs).astype(np.float32)
