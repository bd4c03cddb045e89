from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core.rng import Purpose, derive_seed, keyed_choice, keyed_hash, keyed_uniform, splitmix64


def test_splitmix64_gives_the_published_sequence() -> None:
    # java.util.SplittableRandom / Vigna's splitmix64.c with state 1234567: the state advances by the golden constant
    state = np.array([1234567 + k * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for k in range(3)], dtype=np.uint64)
    assert splitmix64(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_order_of_words_matters() -> None:
    assert len({derive_seed(0, 1), derive_seed(1, 0), derive_seed(0, 0, 1), derive_seed(0, 1, 0), derive_seed(0)}) == 5


@given(st.lists(st.integers(0, 1 << 62), min_size=1, max_size=30), st.integers(0, 1 << 40))
def test_an_instance_keeps_its_numbers_in_any_company(ids: list[int], seed: int) -> None:
    together = keyed_hash(seed, Purpose.AUGMENTATION, np.array(ids))
    alone = [int(keyed_hash(seed, Purpose.AUGMENTATION, np.array([one]))[0]) for one in ids]
    assert together.tolist() == alone


@pytest.mark.parametrize("purpose", list(Purpose))
def test_uniform_numbers_are_uniform(purpose: Purpose) -> None:
    values = keyed_uniform(3, purpose, np.arange(100_000))
    assert values.min() >= 0.0
    assert values.max() < 1.0
    counts = np.histogram(values, bins=50, range=(0, 1))[0]
    # 49 degrees of freedom: mean 49, standard deviation 10
    assert ((counts - 2000) ** 2 / 2000).sum() < 100


def test_purposes_and_seeds_do_not_share_a_stream() -> None:
    ids = np.arange(20_000)
    streams = [keyed_uniform(seed, purpose, ids) for seed in (0, 1) for purpose in Purpose]
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(len(ids))


def test_choice_covers_exactly_its_range() -> None:
    counts = np.bincount(keyed_choice(0, Purpose.NOISE_LABEL, np.arange(70_000), 7))
    assert counts.shape == (7,)
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30
