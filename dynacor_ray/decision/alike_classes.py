"""Scores of a class with those of the classes that are like it, where there are many classes (ours).

Of classes that come in groups of alike ones, a regression's scores differ much between groups and little within one.
One weight for both is too little for the first or too much for the second, and a model that is too sure within a group
takes right labels for wrong ones. So the label noise model gets one score more, which is the mean over the classes that
are like a class, and weighs what tells groups apart by itself. Of few classes matrix scaling does that.

Class j is like class c as far as rows that show c have scores of j, or those that show j have scores of c, whichever is
less: where one class is given for another by mistake, and not the other way around, the two are not alike. What a row
shows is what another score ranks first, so that chance does not make a class too much like itself. Which of the alike
classes are more alike is chance as well, of few rows. So likeness is taken twice: a class is like those that the ones
like it are like.

Cost: K M products per row, for K classes of which M are alike each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

MOST_ALIKE = 16
"""Classes that are alike, itself among them, at most."""
_AT_ONCE = 4_000_000
"""Values of a block of rows by all classes."""


@dataclass(frozen=True)
class AlikeClasses:
    """For each of C classes which ones are like it. classes: int64 (C, M); share: float64 (C, M), rows sum to 1."""

    classes: NDArray[np.int64]
    share: NDArray[np.float64]

    def mean(self, scores: NDArray[np.float64], classes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Of each class of each row the mean score of those like it, float64 (n, K).

        scores: float64 (n, K); classes: ints (n, K), different in each row. Classes that a row does not keep have 0, as
        a regression on one-hot labels says of them.
        """
        step = min(len(scores), max(1, _AT_ONCE // len(self.classes)))
        found, by_class = np.empty(scores.shape), np.zeros((step, len(self.classes)))
        for first in range(0, len(scores), max(1, step)):
            part, kept = slice(first, first + step), classes[first : first + step]
            of_all = by_class[: len(kept)]
            np.put_along_axis(of_all, kept, scores[part], axis=1)
            like = np.take_along_axis(of_all, self.classes[kept].reshape(len(kept), -1), axis=1)
            found[part] = (like.reshape(*kept.shape, -1) * self.share[kept]).sum(axis=2)
            np.put_along_axis(of_all, kept, 0.0, axis=1)  # to fill with zeros would cost C per row
        return found


def alike_classes(
    scores: NDArray[np.float64], ranked: NDArray[np.float64], classes: NDArray[np.integer[Any]], num_classes: int
) -> AlikeClasses:
    """Which classes are alike, by the scores of some rows.

    scores, ranked: float64 (n, K), n >= 1, two scores that have not seen the label, of which the second says what a row
    shows; classes: ints (n, K), different in each row. A class that no row shows is like itself only.
    """
    rows = np.arange(len(classes))
    shown = classes[rows, ranked.argmax(axis=1)]
    cells = np.repeat(shown, classes.shape[1]), classes.ravel()
    size = (num_classes, num_classes)
    total = sparse.csr_array((np.maximum(scores, 0.0).ravel(), cells), shape=size)
    seen = np.maximum(np.bincount(shown, minlength=num_classes), 1)
    mean = sparse.diags_array(1.0 / seen) @ total
    likeness = _most_alike(mean.minimum(mean.T))
    likeness = _most_alike(likeness @ likeness)
    row, column = likeness.coords
    place = np.arange(len(row)) - np.searchsorted(row, row)
    found = np.tile(np.arange(num_classes)[:, None], min(MOST_ALIKE, num_classes))
    share = np.zeros(found.shape)
    found[row, place], share[row, place] = column, likeness.data
    return AlikeClasses(found, share)


def _most_alike(likeness: sparse.csr_array) -> sparse.coo_array:
    """The MOST_ALIKE largest values of each row, as shares of their sum; a row without any is like itself only."""
    alone = np.asarray(likeness.max(axis=1).todense()).ravel() <= 0.0
    alike = (likeness + sparse.diags_array(alone.astype(np.float64))).tocoo()
    row, column = alike.coords
    order = np.lexsort((-alike.data, row))
    row, column, value = row[order], column[order], alike.data[order]
    first = (np.arange(len(row)) - np.searchsorted(row, row) < MOST_ALIKE) & (value > 0.0)
    row, column, value = row[first], column[first], value[first]
    sums = np.bincount(row, value, likeness.shape[0])
    return sparse.coo_array((value / sums[row], (row, column)), shape=likeness.shape)
