from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.decision.corrupted_copy_rate import SHARES, PlantedReading, read_corrupted, with_corrupted_copies
from dynacor_ray.decision.noise_rate import NoiseRate

FIRST = NoiseRate(0.5, 0.4, 0.6, surest=0.01)


def ranked(rows: int, noise: float, classes: int, harder: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of originals and copies: right labels around 5, wrong ones around 0, those of originals `harder` higher.

    Of a wrong original's copies one in C-1 has the true label.
    """
    random = np.random.default_rng(seed)
    wrong = random.random(rows) < noise
    originals = random.normal(np.where(wrong, harder, 5.0))
    right_by_chance = random.random(rows // 10) < noise / (classes - 1)
    return originals, random.normal(np.where(right_by_chance, 5.0, 0.0))


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.28])
def test_errors_at_random_are_counted(noise: float, classes: int) -> None:
    found = with_corrupted_copies(FIRST, *ranked(100_000, noise, classes), classes)
    assert found.value == pytest.approx(noise, rel=0.05)
    assert found.low < noise < found.high


def test_copies_that_are_right_by_chance_are_allowed_for() -> None:
    """Of two classes with 40% wrong, two copies in five have the true label: without Eq. 12 it would be 67%.

    Among the lowest 70% of the copies there are some of those, and the count is too high; among half there are none.
    """
    originals, copies = ranked(100_000, 0.4, 2)
    reading = read(originals, copies, 2, 0.5)
    counted = (originals < np.sort(copies)[5_000]).mean() / 0.5
    assert counted == pytest.approx(0.4 / 0.6, rel=0.05)
    assert reading.rate == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("harder", [1.0, 2.0])
def test_errors_that_look_less_wrong_leave_the_first_estimate(harder: float) -> None:
    originals, copies = ranked(20_000, 0.2, 10, harder)
    assert read(originals, copies, 10, SHARES[-1]).rate < 0.15, "the count would miss many"
    assert with_corrupted_copies(FIRST, originals, copies, 10) == FIRST


@pytest.mark.parametrize(("random", "hidden"), [(0.1, 0.1), (0.05, 0.15), (0.02, 0.08)])
def test_errors_of_another_kind_beside_random_ones_are_not_lost(random: float, hidden: float) -> None:
    """Random errors look even by themselves; that there are more is seen by the surest predictions only."""
    originals, copies = ranked(20_000, random, 10)
    originals[: int(hidden * 20_000)] = 3.5
    first = NoiseRate(random + hidden + 0.01, 0.0, 1.0, surest=random + hidden)
    assert read(originals, copies, 10, 0.7).position == pytest.approx(0.5, abs=0.04)
    assert with_corrupted_copies(first, originals, copies, 10) == first


def test_errors_that_look_more_wrong_than_copies_leave_the_first_estimate() -> None:
    originals, copies = ranked(20_000, 0.2, 10, harder=-1.0)
    assert with_corrupted_copies(FIRST, originals, copies, 10) == FIRST


def test_clean_labels_of_a_weak_classifier_leave_the_first_estimate() -> None:
    random = np.random.default_rng(0)
    originals, copies = random.normal(2.0, size=20_000), random.normal(0.0, size=2_000)
    assert read(originals, copies, 10, 0.7).rate > 0.05, "right ones among the lowest copies"
    first = NoiseRate(0.01, 0.0, 0.05, surest=0.005)
    assert with_corrupted_copies(first, originals, copies, 10) == first


def test_the_error_holds_the_truth_as_often_as_it_says() -> None:
    readings = [read(*ranked(5_000, 0.2, 10, seed=seed), 10, 0.7) for seed in range(200)]
    held = np.mean([abs(one.rate - 0.2) <= 1.96 * one.error for one in readings])
    assert 0.9 < held < 0.99


@pytest.mark.parametrize(("classes", "noise"), [(10, 0.2), (10, 0.6), (2, 0.4)])
def test_the_error_is_that_of_repeated_samples(classes: int, noise: float) -> None:
    readings = [read(*ranked(5_000, noise, classes, seed=seed), classes, 0.5) for seed in range(200)]
    told = float(np.mean([one.error for one in readings]))
    assert told == pytest.approx(np.std([one.rate for one in readings]), rel=0.2)


def test_a_reading_by_hand() -> None:
    """Copies 0..9, the lowest half 0..4: three of ten originals are below 5, at 0.5, 1 and 4."""
    originals = np.array([0.5, 1.0, 4.0, *range(10, 17)], float)
    reading = read(originals, np.arange(10.0), 4, 0.5)
    assert reading.rate == pytest.approx(0.6 / (1 + 0.6 / 3))
    assert reading.position == pytest.approx(np.mean([0.2, 0.3, 0.9])), "a tie is half-way"


def test_equal_scores_are_counted_on_both_sides_alike() -> None:
    originals, copies = ranked(100_000, 0.2, 10)
    rounded = with_corrupted_copies(FIRST, 2 * np.round(originals / 2), 2 * np.round(copies / 2), 10)
    assert rounded.value == pytest.approx(0.2, rel=0.05)
    assert with_corrupted_copies(FIRST, np.zeros(50), np.zeros(10), 10) == FIRST, "nothing is below anything"


def spread_over(lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """10,000 originals of which some lie at these values among copies 0..999, the rest above all."""
    return np.concatenate([lowest, np.full(10_000 - len(lowest), 2_000.0)]), np.arange(1000.0)


def test_the_larger_share_goes_before_the_smaller() -> None:
    originals, copies = spread_over(np.concatenate([np.arange(0.5, 500), np.arange(500.5, 700, 1.25)]))
    small, large = (read(originals, copies, 10, share) for share in SHARES)
    assert small.rate / large.rate > 1.04
    assert with_corrupted_copies(FIRST, originals, copies, 10).value == pytest.approx(large.rate)


def test_a_count_is_believed_half_where_the_spread_is_half_even() -> None:
    """Between 60 and 500 of 500: mean position 0.56; of 700 it is 0.4, which is too far off."""
    originals, copies = spread_over(np.arange(60.5, 500))
    reading = read(originals, copies, 10, 0.5)
    trust = (0.08 - (reading.position - 0.5)) / 0.04
    assert trust == pytest.approx(0.5, abs=0.03)
    found = with_corrupted_copies(FIRST, originals, copies, 10)
    assert found.value == pytest.approx(FIRST.value + trust * (reading.rate - FIRST.value))
    assert found.low == pytest.approx(FIRST.low + trust * (reading.rate - 1.96 * reading.error - FIRST.low))
    assert found.high == FIRST.value, "the first estimate stays within the range"


def test_a_count_is_believed_half_where_it_is_somewhat_short() -> None:
    originals, copies = spread_over(np.arange(0.5, 700))
    rate = read(originals, copies, 10, 0.7).rate
    first = NoiseRate(0.5, 0.4, 0.6, surest=rate / 0.8)
    once = (first.value + rate) / 2
    assert with_corrupted_copies(first, originals, copies, 10).value == pytest.approx((once + rate) / 2, rel=1e-3), (
        "two counts"
    )


@pytest.mark.parametrize("copies", [0, 1])
def test_too_few_copies_leave_the_first_estimate(copies: int) -> None:
    assert with_corrupted_copies(FIRST, np.arange(10.0), np.arange(float(copies)), 3) == FIRST


def read(originals: np.ndarray, copies: np.ndarray, classes: int, share: float) -> PlantedReading:
    """`read_corrupted` of copies in any order, which finds some."""
    reading = read_corrupted(originals, np.sort(copies), classes, share)
    assert reading is not None
    return reading


def test_no_original_as_low_as_the_copies_leaves_the_first_estimate() -> None:
    assert with_corrupted_copies(FIRST, np.arange(100.0, 200.0), np.arange(50.0), 3) == FIRST


@settings(max_examples=60, deadline=None)
@given(
    originals=st.lists(st.integers(-20, 20), min_size=1, max_size=60),
    copies=st.lists(st.integers(-20, 20), max_size=60),
    classes=st.integers(2, 100),
)
def test_the_estimate_is_a_share_in_its_range_and_depends_on_ranks_only(
    originals: list[int], copies: list[int], classes: int
) -> None:
    one, other = np.array(originals, float), np.array(copies, float)
    found = with_corrupted_copies(FIRST, one, other, classes)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert with_corrupted_copies(FIRST, np.exp(one / 5), np.exp(other / 5), classes) == found
