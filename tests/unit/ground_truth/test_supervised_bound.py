"""The bound of App. B: finds what can be found, nothing where there is nothing, and never judges what it learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import DataError
from dynacor_ray.detectors.evidence import Verdict
from dynacor_ray.ground_truth import supervised_bound as bound
from dynacor_ray.ground_truth.metrics import detection_metrics

QUICK = bound.BoundConfig(epochs=3, batch_size=64)


def separable(rows: int = 300, epochs: int = 6, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dynamics whose shape tells the wrong rows, and whose mean does not: they rise or fall around 0."""
    random = np.random.default_rng(0)
    wrong = random.random(rows) < noise
    slope = np.where(wrong, -1.0, 1.0)[:, None] * np.linspace(-1, 1, epochs)
    dynamics = slope + 0.2 * random.normal(size=(rows, epochs))
    return (dynamics - dynamics.mean(axis=1, keepdims=True)).astype(np.float16), np.arange(rows) * 7, wrong


def judged(signal: np.ndarray, ids: np.ndarray, wrong: np.ndarray, reader: str, config: bound.BoundConfig) -> Verdict:
    """All folds together."""
    return bound.merge_folds([bound.score_fold(signal, ids, wrong, reader, n, config) for n in range(bound.FOLDS)])


def test_separable_dynamics_are_told_apart_and_their_mean_is_not() -> None:
    dynamics, ids, wrong = separable()
    found = judged(dynamics, ids, wrong, "dynamics", QUICK)
    assert detection_metrics(found.is_label_issue, found.score, wrong)["f1"] > 0.98
    mean = judged(dynamics, ids, wrong, "mean", QUICK)
    assert 0.3 < detection_metrics(mean.is_label_issue, mean.score, wrong)["auroc"] < 0.7


@pytest.mark.parametrize("reader", bound.READERS)
def test_a_level_is_told_by_both_readers(reader: str) -> None:
    random = np.random.default_rng(1)
    wrong = random.random(300) < 0.2
    loss = 1000 * (np.where(wrong, 3.0, 0.0)[:, None] + random.normal(size=(300, 5)))  # any unit will do
    found = judged(loss, np.arange(300), wrong, reader, replace(QUICK, batch_size=32))
    assert detection_metrics(found.is_label_issue, found.score, wrong)["f1"] > 0.95


@pytest.mark.parametrize("reader", bound.READERS)
def test_permuted_truth_leaves_chance(reader: str) -> None:
    """Were a row judged by a model that learned it, 512 hidden units would remember some of it."""
    dynamics, ids, wrong = separable(400)
    permuted = np.random.default_rng(2).permutation(wrong)
    found = judged(dynamics, ids, permuted, reader, QUICK)
    assert 0.4 < detection_metrics(found.is_label_issue, found.score, permuted)["auroc"] < 0.6


def test_no_row_is_judged_by_a_model_that_learned_its_truth() -> None:
    """Changing the truth of a fold's rows changes nothing of what that fold is told."""
    dynamics, ids, wrong = separable(100)
    seen = []
    for fold in range(bound.FOLDS):
        before = bound.score_fold(dynamics, ids, wrong, "dynamics", fold, QUICK)
        other = wrong.copy()
        other[before.rows] = ~other[before.rows]
        after = bound.score_fold(dynamics, ids, other, "dynamics", fold, QUICK)
        assert np.array_equal(before.score, after.score)
        seen.append(before.rows)
    assert sorted(ids[np.concatenate(seen)].tolist()) == [7 * i for i in range(100)], "every row once"


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    dynamics, ids, wrong = separable(100)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    found = judged(dynamics, ids, wrong, "dynamics", QUICK)
    assert torch.equal(torch.random.get_rng_state(), state), "the global random state is left alone"
    order = np.random.default_rng(3).permutation(100)
    shuffled = judged(dynamics[order], ids[order], wrong[order], "dynamics", QUICK)
    assert np.allclose(shuffled.score, found.score[order], atol=1e-6)
    other = judged(dynamics, ids, wrong, "dynamics", replace(QUICK, seed=1))
    assert not np.allclose(other.score, found.score)


def test_the_best_cut_by_hand_and_against_a_loop() -> None:
    f1, cut = bound._best_cut(np.array([0.0, 1.0, 2.0, 3.0]), np.array([False, True, False, True]))
    assert (f1, cut) == (pytest.approx(0.8), 0.5)
    assert bound._best_cut(np.zeros(4), np.array([True, False, True, True])) == (pytest.approx(6 / 7), -1.0)
    random = np.random.default_rng(4)
    logits, wrong = random.integers(0, 9, 60).astype(float), random.random(60) < 0.4
    f1, cut = bound._best_cut(logits, wrong)

    def of(at: float) -> float:
        flagged = logits > at
        return 2 * int((flagged & wrong).sum()) / int(flagged.sum() + wrong.sum())

    assert f1 == pytest.approx(max(of(at) for at in np.arange(-0.5, 9)))
    assert of(cut) == pytest.approx(f1)


def test_a_constant_signal_flags_without_knowing() -> None:
    wrong = np.random.default_rng(5).random(200) < 0.3
    found = judged(np.ones((200, 3)), np.arange(200), wrong, "dynamics", QUICK)
    assert np.isfinite(found.score).all()


def test_wrong_input_is_told() -> None:
    dynamics, ids, _ = separable(100)
    with pytest.raises(DataError, match=r"0 wrong of .* training rows; use more rows, or more noise"):
        judged(dynamics, ids, np.zeros(100, bool), "mean", QUICK)
