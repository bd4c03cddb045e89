"""Rows with the same image or feature: which they are, and which labels they were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.arrays import sorted_positions

MOST_COPIES = 20
"""Rows per distinct one from which equal rows are taken for rows that the features cannot tell apart."""


@dataclass(frozen=True)
class Duplicates:
    """Groups of equal rows.

    Attributes:
        ids: int64 (M,), increasing: the rows that have a twin.
        first: int64 (M,): smallest id of the group of each.
    """

    ids: NDArray[np.int64]
    first: NDArray[np.int64]

    def first_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Smallest id of each row's group; its own where it has no twin. int64 (n,) -> int64 (n,)."""
        at = sorted_positions(self.ids, ids)
        return np.where(at >= 0, self.first[at], ids) if len(self.ids) else ids

    def distinct(self, num_rows: int) -> int:
        """How many different rows there are among all `num_rows`."""
        return num_rows - len(self.ids) + len(np.unique(self.first))

    def has_twin(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows have a twin. int64 (n,) -> bool (n,)."""
        return sorted_positions(self.ids, ids) >= 0


def find_duplicates(ids: NDArray[np.int64], hashes: NDArray[np.uint64]) -> Duplicates:
    """Groups of rows with equal hashes. ids: int64 (n,); hashes: uint64 (n, 2).

    >>> found = find_duplicates(np.array([4, 2, 3]), np.array([[1, 1], [1, 1], [1, 2]], np.uint64))
    >>> found.ids, found.first
    (array([2, 4]), array([2, 2]))
    """
    order = np.lexsort((ids, hashes[:, 1], hashes[:, 0]))
    ids, hashes = ids[order], hashes[order]
    begins = np.ones(len(ids), np.bool_)
    begins[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
    group = np.cumsum(begins) - 1
    has_twin = np.bincount(group)[group] > 1 if len(ids) else begins
    first = ids[begins][group]
    by_id = np.argsort(ids[has_twin])
    return Duplicates(ids[has_twin][by_id], first[has_twin][by_id])


@dataclass(frozen=True)
class TwinLabels(Duplicates):
    """Groups of equal rows with the labels that they were given, counted by group: 28 bytes per row or less.

    Attributes:
        group: int32 (M,): number of each row's group.
        size: int32 (G,): rows of each group.
        start: int64 (G + 1,): where the labels of a group begin in the next three.
        label: int32 (K,): labels that occur in a group, each once.
        count: int32 (K,): how often.
        fitted: int32 (K,): how often among the rows that may be fitted.
    """

    group: NDArray[np.int32]
    size: NDArray[np.int32]
    start: NDArray[np.int64]
    label: NDArray[np.int32]
    count: NDArray[np.int32]
    fitted: NDArray[np.int32]

    @classmethod
    def of(cls, duplicates: Duplicates, labels: NDArray[np.integer[Any]], is_fitted: NDArray[np.bool_]) -> TwinLabels:
        """Count the labels. labels: ints (M,); is_fitted: bool (M,); both of `duplicates.ids`."""
        _, group, size = np.unique(duplicates.first, return_inverse=True, return_counts=True)
        classes = int(labels.max(initial=0)) + 1
        cell, place, count = np.unique(group * classes + labels, return_inverse=True, return_counts=True)
        return cls(
            ids=duplicates.ids,
            first=duplicates.first,
            group=group.astype(np.int32),
            size=size.astype(np.int32),
            start=np.searchsorted(cell, np.arange(len(size) + 1) * classes).astype(np.int64),
            label=(cell % classes).astype(np.int32),
            count=count.astype(np.int32),
            fitted=np.bincount(place, weights=is_fitted, minlength=len(cell)).astype(np.int32),
        )

    def sizes(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of each row's group, itself included: 1 without twins. int64 (n,) -> int64 (n,)."""
        at = sorted_positions(self.ids, ids)
        return np.where(at >= 0, self.size[self.group[at]], 1).astype(np.int64) if len(self.ids) else np.ones_like(ids)

    def counts(self, ids: NDArray[np.int64], num_classes: int, only_fitted: bool = False) -> NDArray[np.float32]:
        """How often each label was given in each row's group, itself included: float32 (n, C); 0 without twins."""
        found = np.zeros((len(ids), num_classes), np.float32)
        row, label, count = self.cells(ids, only_fitted)
        found[row, label] = count
        return found

    def cells(
        self, ids: NDArray[np.int64], only_fitted: bool = False
    ) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]:
        """The same as a list: row, label and count of each label that occurs in the group of a row with twins."""
        at = sorted_positions(self.ids, ids)
        rows = np.flatnonzero(at >= 0)
        begin, end = (self.start[self.group[at[rows]] + more] for more in (0, 1))
        # every row's own stretch of labels, one after the other
        length = end - begin
        row = np.repeat(np.arange(len(rows)), length)
        cell = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + begin[row]
        return rows[row], self.label[cell], (self.fitted if only_fitted else self.count)[cell]

    def conflicts(self) -> NDArray[np.int64]:
        """Numbers of the groups whose rows were given different labels."""
        return np.flatnonzero(np.diff(self.start) > 1)

    def labels_of(self, group: int) -> dict[int, int]:
        """How often each label was given in a group."""
        cells = slice(int(self.start[group]), int(self.start[group + 1]))
        return dict(zip(self.label[cells].tolist(), self.count[cells].tolist(), strict=True))
