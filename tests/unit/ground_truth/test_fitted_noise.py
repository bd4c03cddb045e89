"""Noise that is fitted to all rows: hand-sized cases, and the same labels block by block."""

from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.ground_truth.fitted_noise import ClassSums, difficulty, hard_rows
from dynacor_ray.ground_truth.noise_spec import given_labels, parse_noise

IDS = np.arange(4000)
TRUE = IDS % 4
FEATURES = np.eye(4, 9)[TRUE] + np.random.default_rng(0).normal(0, 0.4, (4000, 9))


def made(text: str, seed: int = 0) -> np.ndarray:
    return given_labels(parse_noise(text), TRUE, IDS, 4, seed, FEATURES - FEATURES.mean(axis=0))


def test_sums_are_those_of_all_rows_and_may_lack_a_class() -> None:
    rows, labels = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0, 0, 2])
    whole = ClassSums.of(rows, labels, 3)
    parts = ClassSums.of(rows[:1], labels[:1], 3).merge(ClassSums.of(rows[1:], labels[1:], 3))
    for sums in (whole, parts):
        assert sums.means().tolist() == [[2, 2], [np.inf, np.inf], [5, 6]]
    with pytest.raises(DataError, match="finite features"):
        ClassSums.of(np.array([[np.nan]]), np.array([0]), 2)


def test_a_row_is_hard_where_another_mean_is_near() -> None:
    means = np.array([[0.0, 0.0], [4.0, 0.0], [np.inf, np.inf], [0.0, 10.0]])
    sketch = difficulty(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 9.0]]), np.array([0, 0, 3]), means)
    assert sketch.tolist() == [[16, 1], [1 - 9, 1], [81 - 1, 0]]
    given = hard_rows(np.array([0, 0, 3]), np.arange(3), 0.5, 4, 0, sketch)
    assert all(label in pair for label, pair in zip(given, [(0, 1), (0, 1), (3, 0)], strict=True))


def test_hard_rows_err_to_the_nearest_other_class_at_their_rate() -> None:
    given = made("hard_rows:0.1")
    wrong = given != TRUE
    assert wrong.mean() == pytest.approx(0.1, abs=0.01)
    means = np.stack([FEATURES[one == TRUE].mean(axis=0) for one in range(4)])
    distance = ((FEATURES[:, None] - means) ** 2).sum(axis=2)
    own = distance[IDS, TRUE]
    distance[IDS, TRUE] = np.inf
    gap = distance.min(axis=1) - own
    assert (gap[wrong] < np.quantile(gap, 0.3)).all(), "errors are where classes meet"
    assert (given[wrong] == distance.argmin(axis=1)[wrong]).mean() > 0.95
    assert (made("hard_rows:0.1") == given).all()
    assert (made("hard_rows:0.1", seed=1) != given).any()


def test_a_weak_annotator_errs_as_a_function_of_the_features() -> None:
    given = made("weak_annotator:0.5")
    wrong = given != TRUE
    assert 0.05 < wrong.mean() < 0.45, "wrong less often than asked, since it may be right"
    few = made("weak_annotator:0.2") != TRUE
    assert (wrong | ~few).all(), "nested in the rate"
    assert (made("weak_annotator:0.5") == given).all()
    assert (made("weak_annotator:0") == TRUE).all()
