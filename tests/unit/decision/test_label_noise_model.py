"""The label noise model: its gradient, and known rates and pairs that come back within their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from dynacor_ray.core.errors import DataError
from dynacor_ray.decision.label_noise_model import (
    LabelNoiseModel,
    _Objective,
    error_interval,
    fit_label_noise,
    pair_interval,
    transition,
)

RATES = np.array([0.05, 0.3, 0.1, 0.02, 0.2])


def drawn(matrix: np.ndarray, rows: int, seed: int, apart: float = 1.2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (1, N, C), given and true labels; a softmax of the scores is the true posterior."""
    rng = np.random.default_rng(seed)
    classes = len(matrix)
    true = rng.integers(0, classes, rows)
    scores = np.eye(classes)[true] * apart + rng.normal(size=(rows, classes)) * 0.35
    given = (np.cumsum(matrix[true], axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return scores[None], given, true


def noisy(seed: int = 0) -> np.ndarray:
    pairs = np.random.default_rng(seed).dirichlet(np.ones(4), 5)
    return np.stack([np.insert(RATES[c] * pairs[c], c, 1.0 - RATES[c]) for c in range(5)])


def test_the_gradient_is_exact() -> None:
    rng = np.random.default_rng(0)
    objective = _Objective(rng.normal(size=(2, 200, 4)), rng.integers(0, 4, 200))
    at = objective.start() + rng.normal(size=len(objective.start())) * 0.3
    numeric = approx_fprime(at, lambda vector: objective(vector)[0], 1e-6)
    assert objective(at)[1] == pytest.approx(numeric, abs=1e-6)


def test_known_rates_and_pairs_come_back_within_their_intervals() -> None:
    rates, entries = [], []
    for seed in range(6):
        matrix = noisy(seed)
        scores, given, _ = drawn(matrix, 3000, seed)
        model = fit_label_noise(scores, given)
        found, cells = error_interval(model, scores, given), pair_interval(model, scores, given)
        rates.append((found.low <= RATES) & (found.high >= RATES))
        entries.append((cells.low <= matrix) & (cells.high >= matrix))
        assert model.error == pytest.approx(RATES, abs=0.06)
        assert (found.high - found.low < 0.12).all(), "and they say something"
    assert np.mean(rates) >= 0.9
    assert np.mean(entries) >= 0.9


def test_the_joint_says_which_rows_are_wrong_and_what_they_are() -> None:
    scores, given, true = drawn(noisy(), 6000, 1, apart=0.8)
    joint = fit_label_noise(scores, given).joint(scores, given)
    assert joint.sum(axis=1) == pytest.approx(1.0)
    wrong = 1.0 - joint[np.arange(6000), given]
    assert wrong.mean() == pytest.approx((given != true).mean(), abs=0.01)
    sure = wrong > 0.95
    assert (joint.argmax(axis=1) == true)[sure].mean() > 0.95
    for low, high in ((0.0, 0.1), (0.2, 0.8), (0.9, 1.0)):
        rows = (wrong >= low) & (wrong <= high)
        assert (given != true)[rows].mean() == pytest.approx(wrong[rows].mean(), abs=0.1), "calibrated"


def test_two_classes_with_errors_on_one_side() -> None:
    scores, given, _ = drawn(np.array([[0.7, 0.3], [0.0, 1.0]]), 2000, 2)
    model = fit_label_noise(scores, given)
    assert model.error == pytest.approx([0.3, 0.0], abs=0.04)
    assert model.pairs.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(("classes", "rows"), [(2, 200), (10, 1000), (200, 1000)])
def test_clean_labels_have_no_errors(classes: int, rows: int) -> None:
    scores, given, _ = drawn(np.eye(classes), rows, 3, apart=2.0)
    joint = fit_label_noise(scores, given).joint(scores, given)
    assert (joint[np.arange(rows), given] < 0.5).mean() <= 0.01


def test_a_class_without_rows_keeps_the_common_rate() -> None:
    scores, given, _ = drawn(np.full((3, 3), 0.1) + 0.7 * np.eye(3), 1000, 4)
    wide = np.concatenate([scores, np.full((1, 1000, 1), -2.0)], axis=2)
    model = fit_label_noise(wide, given)
    assert np.isfinite(model.error).all()
    assert 0.0 < model.error[3] < 0.5


def test_order_of_rows_does_not_matter() -> None:
    scores, given, _ = drawn(noisy(), 500, 5)
    order = np.random.default_rng(0).permutation(500)
    first, second = fit_label_noise(scores, given), fit_label_noise(scores[:, order], given[order])
    assert first.error == pytest.approx(second.error, abs=1e-3)


def test_transition_rows_sum_to_one() -> None:
    model = LabelNoiseModel(np.ones(1), np.zeros(2), np.array([0.2, 0.1]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert transition(model.error, model.pairs) == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9]]))


def test_nothing_to_fit_is_said() -> None:
    with pytest.raises(DataError, match=r"scores of shape \(K, N, C\)"):
        fit_label_noise(np.zeros((1, 0, 3)), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="C >= 2"):
        fit_label_noise(np.zeros((1, 4, 1)), np.zeros(4, np.int64))


def test_twins_by_hand() -> None:
    """Class 0 or 1 equally likely by x; 10% of each are given the other label. Labeled 0, its two twins 1."""
    model = LabelNoiseModel(np.ones(1), np.zeros(2), np.array([0.1, 0.1]), np.array([[0.0, 1.0], [1.0, 0.0]]))
    scores, label = np.zeros((1, 2, 2)), np.array([0, 0])
    joint = model.joint(scores, label, np.array([[0.0, 2.0], [0.0, 0.0]]))
    assert joint[0] == pytest.approx([0.9 * 0.01 / (0.9 * 0.01 + 0.1 * 0.81), 0.9])
    assert joint[1] == pytest.approx(model.joint(scores, label)[1])
    assert model.log_odds(scores, label, np.array([[0.0, 2.0], [0.0, 0.0]]))[0] == pytest.approx(np.log(9))
    many = model.joint(scores, label, np.array([[0.0, 5000.0], [4000.0, 4000.0]]))
    assert many[0] == pytest.approx([0, 1])
    assert many[1] == pytest.approx([0.9, 0.1])
