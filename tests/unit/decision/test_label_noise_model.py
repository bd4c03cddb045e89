"""The label noise model by hand: its transitions, scaled scores, twins and what it leaves unexplained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from dynacor_ray.decision.label_noise_model import ClassPairs, LabelNoiseModel

TWO = ClassPairs(np.array([1, 2]), np.ones(2), np.zeros(2), np.ones(2))
"""Of two classes each is taken for the other."""


def test_only_scores_of_regressions_are_scaled() -> None:
    """The first two blocks. The third is of a network's logits."""
    scaling = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    model = LabelNoiseModel(np.array([1.0, 0.5, 3.0]), scaling, np.zeros(3), np.zeros(3), TWO)
    scores, classes = np.random.default_rng(0).normal(size=(3, 1, 3)), np.array([[2, 0, 1]])
    own, other, last = (scores[0] + 0.5 * scores[1])[0, [1, 2, 0]]  # of class 0, 1 and 2
    logits = np.array([last, 2.0 * own, other + 0.5 * own]) + 3.0 * scores[2, 0]
    assert model.class_probability(scores, classes)[0] == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    in_order = model.class_probability(scores[:, :, [1, 2, 0]], None)
    assert in_order[:, [2, 0, 1]] == pytest.approx(model.class_probability(scores, classes))
    by_vector = dataclasses.replace(model, scaling=np.array([2.0, 1.0, 0.5]))
    logits = np.array([0.5 * last, 2.0 * own, other]) + 3.0 * scores[2, 0]
    assert by_vector.class_probability(scores, classes)[0] == pytest.approx(np.exp(logits) / np.exp(logits).sum())


def test_transition_rows_sum_to_one() -> None:
    """Of class 0 label 2 has a value of its own; the other pairs are alike."""
    pairs = ClassPairs(np.array([2]), np.array([0.75]), np.array([0.25, 0.5, 0.5]), np.ones(3))
    model = LabelNoiseModel(np.ones(1), np.ones(3), np.zeros(3), np.array([0.2, 0.1, 0.0]), pairs)
    matrix = model.transition(np.arange(3)[:, None], np.arange(3))
    assert matrix == pytest.approx(np.array([[0.8, 0.05, 0.15], [0.05, 0.9, 0.05], [0.0, 0.0, 1.0]]))
    none = ClassPairs(np.zeros(0, np.int64), np.zeros(0), np.full(3, 0.5), np.ones(3))
    assert none.at(np.array([0, 2]), np.array([1, 1])).tolist() == [0.5, 0.5]


def test_twins_by_hand() -> None:
    """Class 0 or 1 equally likely by x; 10% of each are given the other label. Labeled 0, its two twins 1."""
    model = LabelNoiseModel(np.ones(1), np.ones(2), np.zeros(2), np.array([0.1, 0.1]), TWO)
    scores, classes = np.zeros((1, 2, 2)), np.array([[0, 1], [0, 1]])
    twins = sparse.csr_array(np.array([[0.0, 2.0], [0.0, 0.0]]))
    joint = model.joint(scores, classes, twins)
    assert joint[0] == pytest.approx([0.9 * 0.01 / (0.9 * 0.01 + 0.1 * 0.81), 0.9])
    assert joint[1] == pytest.approx(model.joint(scores, classes)[1])
    assert model.log_odds(scores, classes, twins)[0] == pytest.approx(np.log(9))
    many = model.joint(scores, classes, sparse.csr_array(np.array([[0.0, 5000.0], [4000.0, 4000.0]])))
    assert many[0] == pytest.approx([0, 1])
    assert many[1] == pytest.approx([0.9, 0.1])


def test_labels_of_the_surest_rows_that_a_model_leaves_unexplained_by_hand() -> None:
    """Of 100 rows 30 are to 90% of the first class, with errors in 10% to 82%; 18 of them have its label."""
    first = np.where(np.arange(100) < 30, 0.9, 0.6)
    given = np.concatenate([np.zeros(18), np.ones(12), np.zeros(70)]).astype(np.int64)
    scores = np.log(np.stack([first, 1.0 - first], axis=1))
    classes = np.stack([given, 1 - given], axis=1)
    for error, said in ((0.0, 0.9), (0.1, 0.82)):
        model = LabelNoiseModel(np.ones(1), np.ones(2), np.zeros(2), np.full(2, error), TWO)
        found = model.unexplained(np.take_along_axis(scores, classes, axis=1)[None], classes)
        assert found == pytest.approx((said - 0.6 - (0.6 * 0.4 / 30) ** 0.5) / said)
    sure = np.tile([0, 1], (100, 1))
    assert model.unexplained(np.take_along_axis(scores, sure, axis=1)[None], sure) == 0


def test_a_class_that_stands_for_others_is_no_surer_than_one_of_them() -> None:
    """Of 30 classes six are kept: the label with 0.16, another, and four that have 0.2 for seven classes each."""
    probability, stand_for = np.array([0.16, 0.04, 0.2, 0.2, 0.2, 0.2]), np.array([1, 1, 7, 7, 7, 7])
    scores = np.tile(np.log(probability / stand_for), (1, 100, 1))
    pairs = ClassPairs(np.empty(0, np.int64), np.empty(0), np.full(30, 1 / 29), np.ones(30))
    model = LabelNoiseModel(np.ones(1), np.ones(30), np.zeros(30), np.zeros(30), pairs)
    assert model.unexplained(scores, np.tile(np.arange(6), (100, 1))) == 0
