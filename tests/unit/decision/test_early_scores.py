from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.decision.early_scores import own_label_influence, two_class_influence, without_own_label


def seen(
    rows: int, classes: int, influence: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits that have seen two labels, what they would be without, which classes these are of, and the second label.

    The first label, which the logits know no more than the second, comes first.
    """
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(rows, classes))
    clean -= clean.mean(axis=1, keepdims=True)
    labels = (rng.integers(0, classes, rows)[:, None] + np.arange(classes)) % classes
    place = 1 + rng.integers(0, classes - 1, rows)
    logits, at = clean.copy(), np.arange(rows)
    share = np.exp(clean) / np.exp(clean).sum(axis=1, keepdims=True)
    for label in (0, place):
        logits[at, label] += influence * (1 - share[at, label])
    return logits - logits.mean(axis=1, keepdims=True), clean, labels, labels[at, place]


def unseen(clean: np.ndarray) -> np.ndarray:
    """Scores that have not seen the labels, and sum to 1."""
    return 0.1 * clean + 1 / clean.shape[1]


def test_the_influence_of_a_label_comes_back_from_copies() -> None:
    """From 100 sets of 300 copies: the upper end of its interval, a little above it, and seldom below."""
    sets = [seen(300, 6, 0.4, seed) for seed in range(100)]
    found = [own_label_influence(logits, classes, given, 6, unseen(clean)) for logits, clean, classes, given in sets]
    assert np.mean(found) == pytest.approx(0.43, abs=0.03)
    assert (np.array(found) < 0.37).mean() < 0.05
    strange = [own_label_influence(*one[::2], one[3], 6, np.full(one[1].shape, 1 / 6)) for one in sets]
    assert np.std(found) < 0.5 * np.std(strange), "what a label happens to look like is taken off"


def test_the_influence_comes_back_where_only_some_classes_are_known() -> None:
    """The label, and the five most probable of 40 others: what is unseen is told by the mean, which is 0."""
    logits, clean, classes, given = seen(20_000, 41, 0.4)
    others = 1 + np.argsort(-logits[:, 1:], axis=1)[:, :5]
    kept = np.insert(others, 0, 0, axis=1)
    some = np.take_along_axis(logits, kept, axis=1), np.take_along_axis(classes, kept, axis=1)
    other = np.take_along_axis(unseen(clean), kept, axis=1)
    assert own_label_influence(*some, given, 41, other) == pytest.approx(0.4, abs=0.05)


def test_without_influence_there_is_nothing_to_take_off() -> None:
    logits, clean, classes, given = seen(20_000, 6, 0.0)
    assert own_label_influence(logits, classes, given, 6, unseen(clean)) == pytest.approx(0.0, abs=0.03)
    nothing = np.zeros((0, 4))
    assert own_label_influence(nothing, classes[:0], given[:0], 4, nothing) == 0
    np.testing.assert_allclose(without_own_label(logits, 0.0, 6), clean, rtol=1e-6, atol=1e-12)


def test_labels_are_taken_off_where_they_were_seen() -> None:
    logits, clean, classes, second = seen(2000, 6, 0.2)
    also = classes == second[:, None]
    left = without_own_label(logits, 0.2, 6, also)
    assert np.abs(left - clean).mean() < 0.25 * np.abs(logits - clean).mean()
    once = also & (np.arange(2000) < 1000)[:, None]
    expected = np.concatenate([left[:1000], without_own_label(logits, 0.2, 6)[1000:]])
    np.testing.assert_allclose(without_own_label(logits, 0.2, 6, once), expected, rtol=1e-6, atol=1e-12)


def test_two_classes_compare_rows_with_and_without_a_copy() -> None:
    rng = np.random.default_rng(1)
    other = rng.normal(1, 1, 5000)
    has_copy = rng.random(5000) < 0.1
    margin = 2 * other + rng.normal(0, 0.3, 5000)
    margin -= 0.5 * has_copy / (1 + np.exp(-margin))
    logits = np.stack([margin, np.zeros(5000)], axis=1)
    assert two_class_influence(logits, has_copy, other) == pytest.approx(0.5, abs=0.08)
    assert two_class_influence(logits, np.zeros(5000, np.bool_), other) == 0


def test_labels_of_twins_are_taken_off_with_their_weight() -> None:
    """A row with label 0 and two twins of label 1 saw a third of each label."""
    clean = np.array([[1.0, 0.5, -0.5]])
    residual = 1 - np.exp(clean) / np.exp(clean).sum()
    seen = clean + 0.01 * residual * np.array([[1 / 3, 2 / 3, 0.0]])
    left = without_own_label(seen, 0.01, 3, twins=np.array([[0.0, 2.0, 0.0]]))
    assert left == pytest.approx(clean - clean.mean(), abs=2e-5)
    alone = without_own_label(seen, 0.01, 3, twins=np.zeros((1, 3)))
    assert alone == pytest.approx(without_own_label(seen, 0.01, 3))


def test_the_influence_of_rows_that_weigh_less() -> None:
    logits, clean, classes, given = seen(20_000, 6, 0.1)
    weight = np.full(20_000, 0.25)
    assert own_label_influence(logits, classes, given, 6, unseen(clean), weight) == pytest.approx(0.4, abs=0.06)
