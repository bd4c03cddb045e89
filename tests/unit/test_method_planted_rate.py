from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.method.noise_rate import NoiseRate
from dynacor_ray.method.planted_rate import SHARES, read_planted, with_planted

FIRST = NoiseRate(0.5, 0.4, 0.6)


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
    found = with_planted(FIRST, *ranked(100_000, noise, classes), classes)
    assert found.value == pytest.approx(noise, rel=0.05)
    assert found.low < noise < found.high


def test_copies_that_are_right_by_chance_are_allowed_for() -> None:
    """Of two classes with 40% wrong, two copies in five have the true label: without Eq. 12 it would be 67%.

    Among the lowest 70% of the copies there are some of those, and the count is too high; among half there are none.
    """
    originals, copies = ranked(100_000, 0.4, 2)
    reading = read_planted(originals, np.sort(copies), 2, 0.5)
    counted = (originals < np.sort(copies)[5_000]).mean() / 0.5
    assert counted == pytest.approx(0.4 / 0.6, rel=0.05)
    assert reading.rate == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("harder", [1.0, 2.0])
def test_errors_that_look_less_wrong_leave_the_first_estimate(harder: float) -> None:
    originals, copies = ranked(20_000, 0.2, 10, harder)
    assert read_planted(originals, np.sort(copies), 10, SHARES[-1]).rate < 0.15, "the count would miss many"
    assert with_planted(FIRST, originals, copies, 10) == FIRST


def test_clean_labels_leave_the_first_estimate_or_give_less() -> None:
    first = NoiseRate(0.01, 0.0, 0.02)
    assert with_planted(first, *ranked(20_000, 0.0, 10), 10).value <= 0.01


def test_the_range_holds_the_truth_as_often_as_it_says() -> None:
    held = []
    for seed in range(200):
        found = with_planted(FIRST, *ranked(5_000, 0.2, 10, seed=seed), 10)
        held.append(found.low <= 0.2 <= found.high)
    assert np.mean(held) > 0.9


def test_the_error_is_that_of_repeated_samples() -> None:
    readings = []
    for seed in range(200):
        originals, copies = ranked(5_000, 0.2, 10, seed=seed)
        readings.append(read_planted(originals, np.sort(copies), 10, 0.5))
    told = float(np.mean([one.error for one in readings]))
    assert told == pytest.approx(np.std([one.rate for one in readings]), rel=0.2)


def test_a_reading_by_hand() -> None:
    """Copies 0..9, the lowest half 0..4: three of ten originals are below 5, at 0.5, 1 and 4."""
    originals = np.array([0.5, 1.0, 4.0, *range(10, 17)], float)
    reading = read_planted(originals, np.arange(10.0), 4, 0.5)
    assert reading.rate == pytest.approx(0.6 / (1 + 0.6 / 3))
    assert reading.position == pytest.approx(np.mean([0.2, 0.3, 0.9])), "a tie is half-way"


@pytest.mark.parametrize("copies", [0, 1])
def test_too_few_copies_leave_the_first_estimate(copies: int) -> None:
    assert with_planted(FIRST, np.arange(10.0), np.arange(float(copies)), 3) == FIRST


def test_no_original_as_low_as_the_copies_leaves_the_first_estimate() -> None:
    assert with_planted(FIRST, np.arange(100.0, 200.0), np.arange(50.0), 3) == FIRST


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
    found = with_planted(FIRST, one, other, classes)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert with_planted(FIRST, np.exp(one / 5), np.exp(other / 5), classes) == found
