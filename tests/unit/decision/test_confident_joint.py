from __future__ import annotations

import numpy as np
import pytest
import torch

from dynacor_ray.decision.confident_joint import (
    ORIGINAL,
    OTHER,
    PADDING,
    JointCounter,
    class_noise_rates,
    confident_class,
)

CPU = torch.device("cpu")


def test_a_case_worked_by_hand() -> None:
    """Rows: sure of 0; sure of 1; above both thresholds, more of 1; below all."""
    probability = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.35, 0.45]])
    top, confident = confident_class(probability, *probability.max(dim=1), torch.tensor([0.4, 0.5]))
    assert top[:3].tolist() == [0, 1, 1]
    assert confident.tolist() == [True, True, True, False]


def test_where_the_predicted_class_is_below_its_threshold_another_may_be_above() -> None:
    probability = torch.tensor([[0.5, 0.3, 0.2]])
    top, confident = confident_class(probability, *probability.max(dim=1), torch.tensor([0.6, 0.25, 0.1]))
    assert (top.tolist(), confident.tolist()) == ([1], [True])


def test_with_very_many_classes_only_the_given_one_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = simulated(2000)
    everything, thresholds = torch.zeros(2000), torch.full((5,), 0.3)
    full = JointCounter(5, thresholds, CPU)
    monkeypatch.setattr("dynacor_ray.decision.confident_joint.MAX_JOINT_CLASSES", 4)
    slim = JointCounter(5, thresholds, CPU)
    for counter in (full, slim):
        counter.add(logits, labels, everything)
    joint = np.zeros((5, 5), int)
    for given, predicted, count in full.cells().tolist():
        joint[given, predicted] = count
    expected = [[c, c, joint[c, c]] for c in range(5)] + [[c, OTHER, joint[c].sum() - joint[c, c]] for c in range(5)]
    assert sorted(slim.cells().tolist()) == sorted(expected)


def slow_counts(probability: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    counts = np.zeros((probability.shape[1],) * 2, dtype=int)
    for row, label in zip(probability, labels, strict=True):
        candidates = [c for c in range(len(row)) if row[c] >= thresholds[c]]
        if candidates:
            counts[label, max(candidates, key=lambda c: row[c])] += 1
    return counts


def simulated(
    rows: int = 3000, classes: int = 5, noise: float = 0.3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a good classifier, and labels of which a known share is wrong."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, rows)
    wrong = random.random(rows) < noise
    given = np.where(wrong, (true + random.integers(1, classes, rows)) % classes, true)
    logits = random.normal(size=(rows, classes)) + 4 * np.eye(classes)[true]
    return torch.from_numpy(logits).float(), torch.from_numpy(given)


def test_the_counter_agrees_with_a_slow_loop_whatever_the_batches() -> None:
    logits, labels = simulated(700)
    counted = torch.arange(len(labels)) % 7 != 0
    probability = torch.softmax(logits, dim=1)
    kept = (probability[counted], labels[counted])
    mean = torch.stack([kept[0][kept[1] == c, c].mean() for c in range(5)])
    expected = slow_counts(kept[0].numpy(), kept[1].numpy(), mean.numpy())
    for size in (64, 700, 7):
        first, second = JointCounter(5, None, CPU), None
        for counter in (first, second):
            counter = counter or JointCounter(5, first.thresholds(), CPU)
            for index in torch.arange(len(labels)).split(size):
                kind = torch.where(counted[index], ORIGINAL, PADDING)
                assert torch.equal(counter.add(logits[index], labels[index], kind), logits[index].argmax(dim=1))
        assert first.thresholds() == pytest.approx(mean, abs=1e-6)
        assert first.counts.sum() == 0, "the first epoch has no thresholds yet"
        assert np.array_equal(counter.counts.view(5, 5).numpy(), expected)


def test_sums_merge_over_workers() -> None:
    logits, labels = simulated(1000)
    everything = torch.arange(1000) % 2  # originals and copies
    whole = JointCounter(5, torch.full((5,), 0.3), CPU)
    whole.add(logits, labels, everything)
    parts = [JointCounter(5, torch.full((5,), 0.3), CPU) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 333), slice(333, None)), strict=True):
        part.add(logits[rows], labels[rows], everything[rows])
    assert torch.equal(parts[0].counts + parts[1].counts, whole.counts)
    assert torch.allclose(parts[0].probability + parts[1].probability, whole.probability)
    assert torch.equal(parts[0].confidence + parts[1].confidence, whole.confidence)
    assert whole.confidence.sum() == 1000
    assert whole.confidence[1].sum() == 500


def test_rates_per_class_by_hand() -> None:
    """Class 0: 1 of 10 off the diagonal, class 1: 3 of 10, of which one in a class not told apart; class 2 unseen."""
    given, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, OTHER])
    count = np.array([9, 1, 7, 2, 1])
    rates = class_noise_rates(given, predicted, count, 3, 0.2)
    assert rates[:2] == pytest.approx([0.1, 0.3])
    assert np.isnan(rates[2])
    assert class_noise_rates(given, predicted, count, 3, 0.1)[:2] == pytest.approx([0.05, 0.15])
    assert class_noise_rates(given, predicted, count, 3, 0.9)[1] == 1.0
    assert (class_noise_rates(given[:1], predicted[:1], count[:1], 1, 0.2) == 0).all()


def test_an_absent_class_is_never_predicted() -> None:
    counter = JointCounter(3, None, CPU)
    counter.add(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), torch.zeros(4))
    assert counter.thresholds()[2] > 1
