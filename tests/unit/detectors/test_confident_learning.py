from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.detectors.confident_learning import (
    FOLDS,
    OUT_OF_SAMPLE,
    among_present,
    both,
    confident_learning,
    fold_of,
    prune_by_noise_rate,
)
from dynacor_ray.detectors.evidence import Evidence

FILTERS = {"prune_by_noise_rate": prune_by_noise_rate, "both": both, "confident_learning": confident_learning}


def test_folds_are_even_and_belong_to_the_instance() -> None:
    ids = np.arange(100_000)
    fold = fold_of(ids, 5, 0)
    assert fold.dtype == np.int64
    assert np.bincount(fold) / len(ids) == pytest.approx(np.full(5, 0.2), abs=0.01)
    order = np.random.default_rng(0).permutation(len(ids))
    assert (fold_of(ids[order], 5, 0) == fold[order]).all()
    assert (fold_of(ids, 5, 1) != fold).mean() == pytest.approx(0.8, abs=0.01)


def test_absent_classes_leave_the_probabilities() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.6, 0.0, 0.4]])
    labels, kept = among_present(np.array([2, 0, 0]), probabilities)
    assert labels.tolist() == [1, 0, 0]
    assert kept.tolist() == [pytest.approx([0.4, 0.6]), [0.5, 0.5], pytest.approx([0.6, 0.4])]


def synthetic(num_classes: int = 4, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes, given labels wrong in a fifth, and probabilities of a good classifier."""
    generator = np.random.default_rng(7)
    true = np.arange(count) % num_classes
    given = np.where(generator.random(count) < 0.2, (true + 1) % num_classes, true)
    logits = generator.normal(0, 1, (count, num_classes)) + 3 * np.eye(num_classes)[true]
    probabilities = np.exp(logits)
    return true, given.astype(np.int32), probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_those_of_cleanlab(name: str) -> None:
    library = pytest.importorskip("cleanlab")
    true, given, probabilities = synthetic()
    verdict = FILTERS[name](Evidence(given_label=given, num_classes=4, trained={"probabilities": probabilities}))
    expected = library.filter.find_label_issues(given, probabilities, filter_by=name, n_jobs=1)
    assert (verdict.is_label_issue == expected).all()
    assert verdict.score == pytest.approx(probabilities[np.arange(400), given])
    assert (verdict.is_label_issue & (given != true)).sum() > 0.7 * (given != true).sum()


@pytest.mark.parametrize("name", FILTERS)
def test_a_class_without_labels_changes_nothing(name: str) -> None:
    pytest.importorskip("cleanlab")
    _, given, probabilities = synthetic()
    plain = FILTERS[name](Evidence(given_label=given, num_classes=4, trained={"probabilities": probabilities}))
    wider = np.insert(probabilities * 0.9, 1, 0.1, axis=1)
    shifted = Evidence(
        given_label=given + (given >= 1), num_classes=5, trained={"probabilities": wider.astype(np.float32)}
    )
    verdict = FILTERS[name](shifted)
    assert (verdict.is_label_issue == plain.is_label_issue).all()
    assert verdict.score == pytest.approx(plain.score, abs=1e-6)


def test_one_class_alone_has_no_issues() -> None:
    pytest.importorskip("cleanlab")
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]])
    verdict = both(Evidence(given_label=np.ones(2, np.int32), num_classes=2, trained={"probabilities": probabilities}))
    assert verdict.is_label_issue.tolist() == [False, False]
    assert verdict.score.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("judge", FILTERS.values(), ids=FILTERS)
def test_a_missing_library_is_named(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without_cleanlab(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cleanlab"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return find(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cleanlab)
    _, given, probabilities = synthetic()
    with pytest.raises(ConfigError, match=r"pip install 'dynacor-ray\[cleanlab\]'"):
        judge(Evidence(given_label=given, num_classes=4, trained={"probabilities": probabilities}))


def test_folds_predict_what_they_did_not_learn_and_together_everything() -> None:
    members = OUT_OF_SAMPLE.classifiers(3, np.array([80, 60, 60]), 2)
    ids, labels = np.arange(200), torch.arange(200) % 3
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(200, 3)
    for fold, member in enumerate(members):
        held_out = fold_of(ids, FOLDS, 2) == fold
        assert (member.learns(ids) == ~held_out).all()
        assert member.record(logits, labels, ids, last=False) == {}
        kept = member.record(logits, labels, ids, last=True)["probabilities"]
        assert not kept[torch.from_numpy(~held_out)].any()
        total += kept
    assert torch.allclose(total, torch.softmax(logits, dim=1))
