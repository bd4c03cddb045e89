from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.decision.early_scores import own_label_influence, two_class_influence, without_own_label


def seen(
    rows: int, classes: int, influence: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits that have seen two labels, what they would be without, and both labels, none of which they knew."""
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(rows, classes))
    first = rng.integers(0, classes, rows)
    second = (first + 1 + rng.integers(0, classes - 1, rows)) % classes
    logits, at = clean.copy(), np.arange(rows)
    for label in (first, second):
        power = np.exp(clean)
        logits[at, label] += influence * (1 - power[at, label] / power.sum(axis=1))
    return logits, clean, first, second


def test_the_influence_of_a_label_comes_back_from_copies() -> None:
    logits, _, given, corrupted = seen(20_000, 6, 0.4)
    assert own_label_influence(logits, given, corrupted) == pytest.approx(0.4, abs=0.03)


def test_without_influence_there_is_nothing_to_take_off() -> None:
    logits, clean, given, corrupted = seen(20_000, 6, 0.0)
    assert own_label_influence(logits, given, corrupted) == pytest.approx(0.0, abs=0.03)
    assert own_label_influence(np.zeros((0, 4)), given[:0], given[:0]) == 0
    expected = clean - clean.mean(axis=1, keepdims=True)
    assert without_own_label(logits, given, 0.0) == pytest.approx(expected)


def test_labels_are_taken_off_where_they_were_seen() -> None:
    logits, clean, given, corrupted = seen(2000, 6, 0.2)
    left = without_own_label(logits, given, 0.2, corrupted)
    centered = clean - clean.mean(axis=1, keepdims=True)
    before = logits - logits.mean(axis=1, keepdims=True)
    assert np.abs(left - centered).mean() < 0.25 * np.abs(before - centered).mean()
    once = np.where(np.arange(2000) < 1000, corrupted, -1)
    assert without_own_label(logits, given, 0.2, once)[:1000] == pytest.approx(left[:1000])
    assert without_own_label(logits, given, 0.2, once)[1000:] == pytest.approx(
        without_own_label(logits, given, 0.2)[1000:]
    )


def test_two_classes_compare_rows_with_and_without_a_copy() -> None:
    rng = np.random.default_rng(1)
    other, labels = rng.normal(1, 1, 5000), rng.integers(0, 2, 5000)
    has_copy = rng.random(5000) < 0.1
    margin = 2 * other + rng.normal(0, 0.3, 5000)
    margin -= 0.5 * has_copy / (1 + np.exp(-margin))
    logits = np.zeros((5000, 2))
    logits[np.arange(5000), labels] = margin
    assert two_class_influence(logits, labels, has_copy, other) == pytest.approx(0.5, abs=0.08)
    assert two_class_influence(logits, labels, np.zeros(5000, np.bool_), other) == 0


def test_labels_of_twins_are_taken_off_with_their_weight() -> None:
    """A row with label 0 and two twins of label 1 saw a third of each label."""
    clean = np.array([[1.0, 0.5, -0.5]])
    residual = 1 - np.exp(clean) / np.exp(clean).sum()
    seen = clean + 0.01 * residual * np.array([[1 / 3, 2 / 3, 0.0]])
    left = without_own_label(seen, np.array([0]), 0.01, twins=np.array([[0.0, 2.0, 0.0]]))
    assert left == pytest.approx(clean - clean.mean(), abs=2e-5)
    alone = without_own_label(seen, np.array([0]), 0.01, twins=np.zeros((1, 3)))
    assert alone == pytest.approx(without_own_label(seen, np.array([0]), 0.01))


def test_the_influence_of_rows_that_weigh_less() -> None:
    logits, _, given, corrupted = seen(20_000, 6, 0.1)
    assert own_label_influence(logits, given, corrupted, np.full(20_000, 0.25)) == pytest.approx(0.4, abs=0.06)
