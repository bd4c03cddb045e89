"""Classes that scores can hardly tell apart are found, and are not made alike by errors between them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dynacor_ray.decision import alike_classes as module
from dynacor_ray.decision.alike_classes import MOST_ALIKE, AlikeClasses, alike_classes

CLASSES, GROUP, KEPT = 24, 4, 16


def kept(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The KEPT largest of all classes' scores, and which classes they are of."""
    classes = np.argsort(-scores, axis=1)[:, :KEPT]
    return np.take_along_axis(scores, classes, axis=1), classes


def in_groups(rows: int = 3000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores of every class that say of which four a row is, little more; and its class."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, CLASSES, rows)
    group = (true[:, None] // GROUP == np.arange(CLASSES) // GROUP) / GROUP
    return group + 0.1 * np.eye(CLASSES)[true] + 0.05 * rng.standard_normal((rows, CLASSES)), true


def share_of(alike: AlikeClasses, one: int, other: int) -> float:
    return float(alike.share[one][alike.classes[one] == other].sum())


def test_classes_of_a_group_are_alike() -> None:
    scores, _ = in_groups()
    values, classes = kept(scores)
    again = scores + 0.05 * np.random.default_rng(1).standard_normal(scores.shape)
    ranked = np.take_along_axis(again, classes, axis=1)
    alike = alike_classes(values, ranked, classes, CLASSES)
    assert alike.classes.shape == alike.share.shape == (CLASSES, MOST_ALIKE)
    assert alike.share.sum(axis=1) == pytest.approx(1.0)
    for one in range(CLASSES):
        mates = [share_of(alike, one, other) for other in range(CLASSES) if other // GROUP == one // GROUP]
        assert sum(mates) > 0.7
        assert max(mates) < 1.2 * min(mates), "which of them are more alike is chance"


def test_one_class_given_for_another_does_not_make_them_alike() -> None:
    """A quarter of the rows of each class have the next one's label; those of the next do not have this one's."""
    rng = np.random.default_rng(0)
    true = np.arange(3000) % CLASSES
    scores = 0.75 * np.eye(CLASSES)[true] + 0.25 * np.eye(CLASSES)[(true + 1) % CLASSES]
    scores += 0.02 * rng.standard_normal(scores.shape)
    values, classes = kept(scores)
    alike = alike_classes(values, values, classes, CLASSES)
    assert min(share_of(alike, one, one) for one in range(CLASSES)) > 0.7
    assert max(share_of(alike, one, (one + 1) % CLASSES) for one in range(CLASSES)) < 0.03


def test_a_class_that_no_row_shows_is_like_itself_only() -> None:
    scores = np.array([[0.9, 0.4], [0.8, 0.3]])
    alike = alike_classes(scores, scores, np.array([[0, 2], [1, 2]]), 5)
    assert [share_of(alike, one, one) for one in range(5)] == [1.0] * 5
    assert np.array_equal(alike.mean(scores, np.array([[0, 2], [1, 2]])), scores)


def test_scores_below_zero_say_nothing() -> None:
    scores = np.array([[0.9, -0.4], [0.8, -0.4]])
    alike = alike_classes(scores, scores, np.array([[0, 1], [1, 0]]), 2)
    assert (share_of(alike, 0, 0), share_of(alike, 0, 1)) == (1.0, 0.0)


def test_the_mean_is_that_of_the_kept_classes_and_the_same_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, _ = in_groups(50)
    values, classes = kept(scores)
    alike = alike_classes(values, values, classes, CLASSES)
    found = alike.mean(values, classes)
    for row in (0, 17, 49):
        for place in (0, KEPT - 1):
            one = classes[row, place]
            like = zip(classes[row], values[row], strict=True)
            expected = sum(share_of(alike, one, other) * score for other, score in like)
            assert found[row, place] == pytest.approx(expected)
    monkeypatch.setattr(module, "_AT_ONCE", 7 * CLASSES)
    assert np.array_equal(alike.mean(values, classes), found)
    assert alike.mean(values[:0], classes[:0]).shape == (0, KEPT)
