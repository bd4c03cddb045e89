"""Groups of equal rows and the labels that they were given, against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dynacor_ray.core.duplicates import Duplicates, TwinLabels, find_duplicates

RNG = np.random.default_rng(0)
NUMBER = RNG.integers(0, 40, 60)  # rows of the same number are equal
IDS = RNG.permutation(1000)[:60].astype(np.int64)
LABELS = RNG.integers(0, 4, 60)
FITTED = RNG.random(60) < 0.7


def made() -> tuple[Duplicates, TwinLabels]:
    hashes = np.stack([np.full(60, 2**64 - 1, np.uint64), NUMBER.astype(np.uint64)], axis=1)
    found = find_duplicates(IDS, hashes)
    order = np.argsort(IDS)
    place = order[np.searchsorted(IDS[order], found.ids)]
    return found, TwinLabels.of(found, LABELS[place], FITTED[place])


def test_groups_and_their_first_row() -> None:
    found, twins = made()
    sizes = Counter(NUMBER.tolist())
    assert found.ids.tolist() == sorted(IDS[[sizes[n] > 1 for n in NUMBER.tolist()]].tolist())
    for row, number in zip(IDS, NUMBER, strict=True):
        assert found.first_of(np.array([row])).tolist() == [IDS[number == NUMBER].min()]
        assert twins.sizes(np.array([row])).tolist() == [sizes[int(number)]]


def test_labels_are_counted_by_group() -> None:
    _, twins = made()
    everywhere, fitted = twins.counts(IDS, 4), twins.counts(IDS, 4, only_fitted=True)
    for place, number in enumerate(NUMBER):
        group = number == NUMBER
        expected = np.bincount(LABELS[group], minlength=4) * (group.sum() > 1)
        assert everywhere[place].tolist() == expected.tolist()
        assert fitted[place].tolist() == (np.bincount(LABELS[group & FITTED], minlength=4) * (group.sum() > 1)).tolist()
    conflicting = {n for n in NUMBER.tolist() if len(set(LABELS[n == NUMBER].tolist())) > 1}
    assert len(twins.conflicts()) == len(conflicting) > 0
    first = int(twins.conflicts()[0])
    member = twins.ids[twins.group == first][0] == IDS
    assert twins.labels_of(first) == Counter(LABELS[NUMBER[member] == NUMBER].tolist())


@pytest.mark.parametrize("rows", [0, 3])
def test_without_duplicates(rows: int) -> None:
    ids = np.arange(rows)
    found = find_duplicates(ids, np.stack([ids, ids], axis=1).astype(np.uint64))
    assert len(found.ids) == 0
    assert found.first_of(np.array([7, 8])).tolist() == [7, 8]
    twins = TwinLabels.of(found, np.zeros(0, np.int64), np.zeros(0, bool))
    assert twins.sizes(np.array([7])).tolist() == [1]
    assert not twins.counts(np.array([7]), 3).any()


def test_one_group_of_a_million_rows_is_counted_at_once() -> None:
    ids = np.arange(1_000_000)
    found = find_duplicates(ids, np.zeros((len(ids), 2), np.uint64))
    twins = TwinLabels.of(found, ids % 3, np.ones(len(ids), bool))
    assert twins.counts(ids[:2], 3).tolist() == [[333334, 333333, 333333]] * 2
