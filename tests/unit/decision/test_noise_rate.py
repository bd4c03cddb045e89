from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.decision.noise_rate import (
    BINS,
    NoiseRate,
    count_confidence,
    counted_epochs,
    disagreement_among_sure,
    estimate_noise_rate,
    for_few_rows,
    sampling_error,
)


def simulated(rows: int, noise: float, doubt: float, seed: int = 0) -> np.ndarray:
    """Counts of a classifier that is right about the true class but for a share `doubt`, where it is unsure."""
    random = np.random.default_rng(seed)
    true = random.integers(0, 5, rows)
    copies = np.arange(rows) >= rows * 10 // 11
    wrong = copies | (random.random(rows) < noise)
    label = np.where(wrong, (true + random.integers(1, 5, rows)) % 5, true)
    unsure = random.random(rows) < doubt
    predicted = np.where(unsure & (random.random(rows) < 0.7), random.integers(0, 5, rows), true)
    height = np.where(unsure, random.uniform(0.5, 2, rows), random.uniform(3, 8, rows))
    logits = torch.from_numpy(np.eye(5)[predicted] * height[:, None])
    probability = torch.softmax(logits, dim=1)
    return counted(probability, torch.from_numpy(label), torch.from_numpy(copies)).numpy()


def counted(probability: torch.Tensor, label: torch.Tensor, copy: torch.Tensor) -> torch.Tensor:
    """`count_confidence` of what is predicted."""
    largest, predicted = probability.max(dim=1)
    return count_confidence(largest, predicted != label, copy)


def test_rows_are_counted_by_kind_agreement_and_certainty() -> None:
    largest, disagrees = torch.tensor([0.5, 0.75, 0.75, 1.0]), torch.tensor([False, False, True, False])
    counts = count_confidence(largest, disagrees, torch.tensor([False, False, True, True]))
    found = [tuple(cell) for cell in counts.nonzero().tolist()]
    assert found == [(0, 0, 15), (0, 0, 31), (1, 0, BINS - 1), (1, 1, 31)], "1/16 of a bit: 1 bit, 2 bits, all bits"
    assert counts.sum() == 4


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 500), seed=st.integers(0, 5))
def test_counts_add_up_over_batches(cut: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probability = torch.softmax(3 * torch.randn(500, 4, generator=generator), dim=1)
    label, copy = torch.randint(4, (500,), generator=generator), torch.rand(500, generator=generator) < 0.1
    whole = counted(probability, label, copy)
    parts = [counted(probability[s], label[s], copy[s]) for s in (slice(0, cut), slice(cut, None))]
    assert torch.equal(parts[0] + parts[1], whole)


def slow(counts: np.ndarray, share: float) -> float:
    """Row by row: the surest originals, those of one bin in any order, and the copies that are as sure."""
    rows = [(level, kind) for kind in (0, 1) for level in range(BINS) for _ in range(counts[0, kind, level])]
    rows.sort(key=lambda row: -row[0])
    wanted = share * len(rows)
    disagree = seen = 0.0
    at = 0.0
    for level in range(BINS - 1, -1, -1):
        here = counts[0, :, level].sum()
        if at >= wanted or not here:
            part = float(at < wanted)
        else:
            part = min(1.0, (wanted - at) / here)
        disagree += part * counts[0, 1, level]
        seen += part * counts[1, 1, level]
        at += here
    return min(1.0, (disagree / len(rows)) / max(seen / counts[1].sum(), 0.05 * share))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_disagreement_agrees_with_a_slow_loop(share: float) -> None:
    counts = np.zeros((2, 2, BINS), np.int64)
    random = np.random.default_rng(3)
    counts[:, :, 20:60:3] = random.integers(0, 9, (2, 2, 14))
    assert disagreement_among_sure(counts, share) == pytest.approx(slow(counts, share))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.6])
def test_the_noise_rate_of_a_knowing_classifier_is_recovered(noise: float) -> None:
    rate = estimate_noise_rate({1: simulated(60_000, noise, doubt=0.2)}, 2, 500)
    assert rate is not None
    assert rate.value == pytest.approx(noise, abs=0.012)
    assert rate.low <= rate.value <= rate.high


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_the_range_holds_the_truth_as_often_as_it_says(noise: float) -> None:
    """Samples of 2,000 rows of a classifier that knows: the readings agree, only the sample moves them."""
    ranges = [estimate_noise_rate({1: simulated(2_000, noise, doubt=0.05, seed=seed)}, 2, 100) for seed in range(200)]
    held = np.mean([one is not None and one.low <= noise <= one.high for one in ranges])
    assert held > 0.92


def test_the_sampling_error_falls_with_the_root_of_the_rows() -> None:
    few = [simulated(2_000, 0.2, 0.1, seed) for seed in range(100)]
    told = float(np.mean([sampling_error(one, 0.6) for one in few]))
    assert told / sampling_error(simulated(32_000, 0.2, doubt=0.1), 0.6) == pytest.approx(4, rel=0.1)
    assert told == pytest.approx(np.std([disagreement_among_sure(one, 0.6) for one in few]), rel=0.2)


def test_doubt_is_not_taken_for_wrong_labels() -> None:
    """Clean labels and a classifier that is unsure, and mostly wrong, about more than half of the rows."""
    counts = simulated(60_000, 0.0, doubt=0.6)
    assert disagreement_among_sure(counts, 1.0) > 0.3
    rate = estimate_noise_rate({1: counts}, 2, 500)
    assert rate is not None
    assert rate.value < 0.005
    assert rate.high > 0.05, "the range tells of the doubt"


def test_doubt_that_fades_is_taken_to_fade_on() -> None:
    """4% of the surest 60% disagree and 1% of the surest 30%: of what is left there, a quarter is counted again."""
    counts = np.zeros((2, 2, BINS), np.int64)
    counts[0, :, 200] = 2970, 30
    counts[0, :, 100] = 2790, 210
    counts[0, 0, 10] = 4000
    counts[1, 1, 200] = counts[1, 1, 100] = 300
    counts[1, 1, 10] = 400
    assert [disagreement_among_sure(counts, share) for share in (0.3, 0.6)] == pytest.approx([0.01, 0.04])
    rate = estimate_noise_rate({1: counts}, 2, 500)
    assert rate is not None
    assert rate.value == pytest.approx(0.01 / 4)
    assert rate.surest == pytest.approx(0.01)
    assert rate.low == 0
    assert rate.high > 0.04


def test_epochs_that_count() -> None:
    assert list(counted_epochs(20, 200)) == [2, 3, 4, 5, 6]
    assert list(counted_epochs(20, 16)) == [4, 5, 6, 7, 8], "few steps: later"
    assert list(counted_epochs(20, 1)) == [4, 5, 6, 7, 8]
    assert list(counted_epochs(2, 1000)) == [1]
    assert list(counted_epochs(1, 1000)) == [0]
    for epochs in range(1, 120):
        for steps in (1, 7, 100, 10_000):
            used = counted_epochs(epochs, steps)
            assert len(used) >= 1
            assert 0 <= used[0] <= used[-1] < epochs


def test_only_the_epochs_that_count_are_read() -> None:
    good, other = simulated(5000, 0.2, 0.1), simulated(5000, 0.9, 0.1, seed=1)
    counts = {epoch: good if epoch in counted_epochs(20, 100) else other for epoch in range(20)}
    alone = estimate_noise_rate({2: good}, 20, 100)
    assert alone is not None
    rate = estimate_noise_rate(counts, 20, 100)
    assert rate is not None
    assert (rate.value, rate.high) == pytest.approx((alone.value, alone.high))


def test_nothing_to_read_gives_no_estimate() -> None:
    assert estimate_noise_rate({}, 20, 100) is None
    without_copies = simulated(1000, 0.1, 0.1)
    without_copies[1] = 0
    assert estimate_noise_rate({2: without_copies}, 20, 100) is None


def epoch(originals: int, copies: int) -> np.ndarray:
    """Counts of 100 originals and 100 copies, of which so many disagree."""
    counts = np.zeros((2, 2, BINS), np.int64)
    for kind, disagree in enumerate((originals, copies)):
        counts[kind, :, 60] = 100 - disagree, disagree
    return counts


def learning(epochs: int, best: int) -> dict[int, np.ndarray]:
    """Counts of a training that learns 2% of the originals per epoch, and memorizes wrong labels after the best one."""
    return {one: epoch(96 - 2 * one, 100 if one <= best else 40) for one in range(epochs)}


@pytest.mark.parametrize(
    ("epochs", "best", "unlearned", "learned"),
    [
        (40, 39, 0.18, 0.82 - 0.42),  # half of 40 epochs ends with the 20th, which leaves 96% - 2 x 19
        (20, 19, 0.58, 0.78 - 0.58),
        (20, 15, 0.66, (0.82 - 0.66) * 20 / 16),  # a shorter training leaves more to be learned
        (20, 8, 0.0, 0.0),  # nine epochs tell nothing
        (8, 7, 0.0, 0.0),
    ],
)
def test_what_training_has_not_learned(epochs: int, best: int, unlearned: float, learned: float) -> None:
    counts = learning(epochs, best)
    for one in (counts, dict(reversed(counts.items()))):
        rate = estimate_noise_rate(one, epochs, 100)
        assert rate is not None
        assert (rate.unlearned, rate.learned) == pytest.approx((unlearned, learned))


def test_epochs_without_copies_say_nothing_of_what_is_learned() -> None:
    counts = learning(20, 19)
    counts[9][1] = 0  # of the middle, which is not among those that the estimate is read from
    rate = estimate_noise_rate(counts, 20, 100)
    assert rate is not None
    assert (rate.unlearned, rate.learned) == pytest.approx((0.58, 0.8 - 0.58)), "of the epoch before that"


def test_what_is_learned_is_never_negative() -> None:
    counts = {one: epoch(20 + 2 * one, 40 + 3 * one) for one in range(20)}
    rate = estimate_noise_rate(counts, 20, 100)
    assert rate is not None
    assert (rate.unlearned, rate.learned) == (pytest.approx(58 / 97), 0.0), "at half of the training it was 38 / 67"


def test_few_rows_per_class_bear_out_less_of_an_estimate() -> None:
    rate = NoiseRate(0.09, 0.02, 0.12, 0.04, unlearned=0.1, learned=0.03)
    assert for_few_rows(rate, 300, 10) == for_few_rows(rate, 1200, 20) == rate
    assert (
        for_few_rows(rate, 299, 10)
        == for_few_rows(rate, 1199, 20)
        == NoiseRate(0.02, 0.02, 0.12, 0.02, unlearned=0.1, learned=0.03, few_rows=True)
    )
    assert for_few_rows(rate, 99, 10) == NoiseRate(0.0, 0.0, 0.12, 0.0, unlearned=0.0, learned=0.0, few_rows=True)
