"""Scores that never saw a row's own label: exact where the row was fitted, plain where it was not, and resumed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.decision import feature_hashing, likely_classes
from dynacor_ray.decision.leave_one_out_ridge import RidgeSums
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training import left_out_scores
from dynacor_ray.engine.training.left_out_scores import LeftOutScores

ROWS, DIM, CLASSES = 300, 5, 3
CPU = torch.device("cpu")
FACTS = RowFacts(ROWS, 0, CLASSES, DIM, np.zeros(DIM, np.float32), 1.0, np.full(CLASSES, ROWS // CLASSES))
KEYS = torch.arange(ROWS) << 1
FITTED = torch.arange(ROWS) % 4 != 0
ALL = torch.arange(CLASSES).expand(ROWS, -1)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(ROWS) % CLASSES
    return torch.randn((ROWS, DIM), generator=generator) + 2 * torch.eye(CLASSES, DIM)[labels], labels


def asked(seed: int = 3, wide: bool = True, parts: int = 1) -> dict[str, torch.Tensor]:
    features, labels = rows()
    scores = LeftOutScores(FACTS, seed, CPU, wide)
    scores.begin()
    for part in torch.arange(ROWS).tensor_split(parts):
        scores.add(KEYS[part], features[part], labels[part], FITTED[part])
    scores.solve(1)
    return scores.ask(KEYS, features, labels, FITTED, ALL)


def test_a_fitted_row_is_scored_by_a_regression_without_it() -> None:
    features, labels = rows()
    without = FITTED.clone()
    without[1] = False
    sums = RidgeSums(CLASSES, torch.zeros(DIM), 1.0)
    sums.add(features[without], labels[without])
    ridge = sums.solve()
    assert ridge is not None
    plain = ridge.predict(features[1:2], labels[1:2], torch.tensor([False]))
    # the penalty is chosen anew without the row, which moves the scores a little
    assert torch.allclose(asked()[schema.RIDGE_SCORES][1:2], plain, atol=5e-3)


def test_both_regressions_answer_however_the_rows_come() -> None:
    whole, parts = asked(), asked(parts=7)
    assert set(whole) == {schema.RIDGE_SCORES, schema.WIDE_RIDGE_SCORES}
    for name in whole:
        assert whole[name].shape == (ROWS, CLASSES)
        assert torch.allclose(whole[name], parts[name], atol=1e-4)
    assert not torch.allclose(whole[schema.WIDE_RIDGE_SCORES], asked(seed=4)[schema.WIDE_RIDGE_SCORES], atol=1e-3)
    assert set(asked(wide=False)) == {schema.RIDGE_SCORES}


def test_the_wide_one_is_fitted_to_a_sample_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = asked()
    monkeypatch.setattr(left_out_scores, "WIDE_ROWS", 100)
    after = asked()
    assert torch.equal(before[schema.RIDGE_SCORES], after[schema.RIDGE_SCORES])
    assert not torch.allclose(before[schema.WIDE_RIDGE_SCORES], after[schema.WIDE_RIDGE_SCORES], atol=1e-3)


def test_what_was_solved_is_resumed() -> None:
    features, labels = rows()
    first = LeftOutScores(FACTS, 3, CPU, True)
    first.begin()
    first.add(KEYS, features, labels, FITTED)
    first.solve(1)
    second = LeftOutScores(FACTS, 3, CPU, True)
    second.restore(first.state())
    for name, values in first.ask(KEYS, features, labels, FITTED, ALL).items():
        assert torch.equal(second.ask(KEYS, features, labels, FITTED, ALL)[name], values)
    first.close()
    assert not first.is_open
    assert second.is_open


def test_twins_are_left_out_together() -> None:
    """Rows 1, 2 and 4 are equal and have three labels; 4 is not fitted. Against the regression without all three."""
    features, labels = rows()
    features[[2, 4]] = features[1].clone()
    group = np.array([1, 2, 4])
    equal = Duplicates(group, np.ones(3, np.int64))
    twins = TwinLabels.of(equal, labels.numpy()[group], FITTED.numpy()[group])
    scores = LeftOutScores(dataclasses.replace(FACTS, twins=twins), 3, CPU, True)
    scores.begin()
    scores.add(KEYS, features, labels, FITTED)
    scores.solve(1)
    found = scores.ask(KEYS, features, labels, FITTED, ALL)
    rest = FITTED.clone()
    rest[group] = False
    sums = RidgeSums(CLASSES, torch.zeros(DIM), 1.0)
    sums.add(features[rest], labels[rest])
    ridge = sums.solve()
    assert ridge is not None
    plain = ridge.predict(features[1:2], labels[1:2], torch.tensor([False]))[0]
    for row in group.tolist():
        assert torch.allclose(found[schema.RIDGE_SCORES][row], plain, atol=5e-3)
        for name in found:
            assert torch.allclose(found[name][row], found[name][1], atol=1e-5)


def test_twins_are_sampled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out_scores, "WIDE_ROWS", 100)
    ids = np.arange(ROWS)
    twins = TwinLabels.of(Duplicates(ids, ids // 10 * 10), ids % CLASSES, FITTED.numpy())
    scores = LeftOutScores(dataclasses.replace(FACTS, twins=twins), 3, CPU, True)
    chosen = scores._is_sampled(KEYS).numpy().reshape(-1, 10)
    assert (chosen == chosen[:, :1]).all()
    assert 0 < chosen.mean() < 1


def test_likely_classes_are_the_label_and_those_that_a_regression_without_the_row_ranks_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, labels = rows()
    labels[0] = 1  # shows class 0
    scores = LeftOutScores(FACTS, 3, CPU, True)
    assert scores.likely(KEYS, None, labels)[:2].tolist() == [[1, 2, 0], [1, 2, 0]], "all, where they are few"
    monkeypatch.setattr(left_out_scores, "MOST_CLASSES", 2)
    monkeypatch.setattr(likely_classes, "MOST_CLASSES", 2)
    monkeypatch.setattr(likely_classes, "DRAWN", 0)
    scores.begin()
    scores.add(KEYS, features, labels, FITTED)
    scores.solve(1)
    everything = scores.ask(KEYS, features, labels, FITTED, ALL)[schema.RIDGE_SCORES]
    everything[torch.arange(ROWS), labels] = -torch.inf
    found = scores.likely(KEYS, features, labels)
    assert torch.equal(found, torch.stack([labels, everything.argmax(dim=1)], dim=1))
    monkeypatch.setattr(left_out_scores, "_VALUES", 7 * CLASSES)
    some = scores.ask(KEYS, features, labels, FITTED, found)
    assert torch.allclose(some[schema.RIDGE_SCORES][:, 1], everything.max(dim=1).values, atol=1e-5)
    scores.close(keep_likely=True)
    assert torch.equal(scores.likely(KEYS, features, labels), found), "also in the epochs after"
    scores.close()
    assert not scores.is_open


def test_very_many_features_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And tell as much as before: hashed to more places than there are, they are hardly changed."""
    before = asked()
    monkeypatch.setattr(left_out_scores, "MAX_FEATURES", DIM - 1)
    monkeypatch.setattr(feature_hashing, "HASHED", 100)
    after = asked()
    for name, scores in before.items():
        assert not torch.equal(scores, after[name])
        assert torch.corrcoef(torch.stack([scores.flatten(), after[name].flatten()]))[0, 1] > 0.9
    assert all(torch.allclose(after[name], asked(parts=3)[name], atol=1e-4) for name in after)
