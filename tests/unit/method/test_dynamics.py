"""Margins and the other signals, weights of Eq. 2, signs and their patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dynacor_ray.core.errors import ConfigError, TrainingError
from dynacor_ray.method import dynamics as d

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]])
LABELS = torch.tensor([0, 2, 1])


def test_logit_margin_by_hand() -> None:
    assert d.logit_margin(LOGITS, LABELS).tolist() == [1.5, -2.0, 0.0]


def test_logit_margin_of_two_classes_and_of_one_row() -> None:
    assert d.logit_margin(torch.tensor([[1.0, 4.0]]), torch.tensor([1])).tolist() == [3.0]


def test_logit_margin_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 7, generator=generator)
    labels = torch.randint(7, (40,), generator=generator, dtype=torch.int32)
    slow = [
        float(row[y] - max(row[c] for c in range(7) if c != y)) for row, y in zip(logits, labels.tolist(), strict=True)
    ]
    assert d.logit_margin(logits, labels).tolist() == pytest.approx(slow)


def test_the_other_signals_by_hand() -> None:
    logits, labels = torch.tensor([[math.log(1), math.log(2), math.log(5)]]), torch.tensor([1])
    assert d.given_label_probability(logits, labels).tolist() == pytest.approx([0.25])
    assert d.cross_entropy_loss(logits, labels).tolist() == pytest.approx([math.log(4)])
    assert d.probability_difference(logits, labels).tolist() == pytest.approx([0.625 - 0.25])
    assert d.probability_difference(logits, torch.tensor([2])).tolist() == [0.0]


def test_signals_agree_on_who_is_likely_mislabeled() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    labels = torch.tensor([0, 0])  # the second row is the wrong one
    for low_is_bad in (d.logit_margin, d.given_label_probability):
        good, bad = low_is_bad(logits, labels).tolist()
        assert bad < good
    for high_is_bad in (d.cross_entropy_loss, d.probability_difference):
        good, bad = high_is_bad(logits, labels).tolist()
        assert bad > good


def test_first_eigenvectors_and_alignment_by_hand() -> None:
    features = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    nothing, diverged = torch.zeros(2, 2), torch.full((2, 2), torch.nan)
    grams = torch.stack([features[:2].T @ features[:2], nothing, features[2:].T @ features[2:]])
    directions = d.first_eigenvectors(grams)
    assert directions[0].abs().tolist() == pytest.approx([1.0, 0.0])
    assert directions[1].tolist() == [0.0, 0.0]  # absent class
    assert directions[2].abs().tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    assert d.first_eigenvectors(diverged[None]).tolist() == [[0.0, 0.0]], "the margins tell of it"
    aligned = d.alignment(features, torch.tensor([0, 1, 0, 2]), directions)
    assert aligned.tolist() == pytest.approx([9.0, 0.0, 1.0, 8.0], abs=1e-5)


def test_margin_sign_counts_zero_as_positive() -> None:
    signs = d.sign_patterns(np.array([[-1e-30, 0.0, -0.0, 2.0]])).signs
    assert signs.dtype == np.int8
    assert signs.tolist() == [[-1, 1, 1, 1]]


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=False)))
def test_float16_never_loses_the_sign(margin: np.ndarray) -> None:
    for values in (margin, torch.from_numpy(margin)):
        narrow = d.to_float16_keeping_sign(values)
        assert narrow.dtype == np.float16
        assert ((narrow >= 0) == (margin >= 0)).all()
        assert np.isfinite(narrow).all()


def test_float16_rounds_saturates_and_refuses_nan() -> None:
    margin = np.array([1e6, -np.inf, -1e-12, 1e-12, -0.0, 1.0004, -2.5], dtype=np.float32)
    expected = np.array([65504, -65504, -(2.0**-24), 0, 0, 1.0, -2.5], dtype=np.float16)
    assert d.to_float16_keeping_sign(margin).tolist() == expected.tolist()
    with pytest.raises(TrainingError, match="NaN in 1 of 2 rows; lower the learning rate"):
        d.to_float16_keeping_sign(torch.tensor([0.0, float("nan")]))


def test_paper_weights_are_the_sum_of_both_means() -> None:
    generator = torch.Generator().manual_seed(1)
    is_corrupted = torch.tensor([False] * 30 + [True] * 6)[torch.randperm(36, generator=generator)]
    loss = torch.rand(36, generator=generator)
    weights = d.row_weights(is_corrupted, 6 / 30, "paper")
    equation_2 = loss[~is_corrupted].mean(dim=0) + loss[is_corrupted].mean(dim=0)
    assert float((weights * loss).mean(dim=0)) == pytest.approx(float(equation_2), rel=1e-6)
    assert weights[is_corrupted].unique().tolist() == pytest.approx([6.0])
    assert weights[~is_corrupted].unique().tolist() == pytest.approx([1.2])


def test_uniform_weights_and_refusals() -> None:
    is_corrupted = torch.tensor([True, False])
    assert d.row_weights(is_corrupted, 0.5, "uniform").tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match="at least one corrupted copy"):
        d.row_weights(is_corrupted, 0.0, "paper")


@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 20), st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65, 130])),
        elements=st.sampled_from([-2.0, -0.5, 0.0, 1.0]),
    )
)
def test_sign_patterns_against_numpy(margins: np.ndarray) -> None:
    patterns = d.sign_patterns(margins)
    signs = np.where(margins >= 0, 1, -1).astype(np.int8)
    assert patterns.signs.dtype == np.int8
    assert patterns.inverse.dtype == patterns.counts.dtype == np.int64
    assert patterns.signs[patterns.inverse].tolist() == signs.tolist()
    expected, counts = np.unique(signs, axis=0, return_counts=True) if len(signs) else (signs, np.empty(0))
    assert patterns.signs.tolist() == expected.tolist()  # np.unique sorts rows lexicographically, too
    assert patterns.counts.tolist() == counts.tolist()


@pytest.mark.parametrize("num_epochs", [3, 70])
def test_distinct_rows_stay_distinct_in_every_epoch(num_epochs: int) -> None:
    margins = 1.0 - 2.0 * np.eye(num_epochs)
    assert d.sign_patterns(margins).counts.tolist() == [1] * num_epochs
