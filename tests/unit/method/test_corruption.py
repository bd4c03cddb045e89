from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.core.schema import decode_key
from dynacor_ray.ground_truth.synthetic_noise import symmetric
from dynacor_ray.method.corruption import CorruptionConfig, corrupt, corrupted_label, expected_noise_rates, is_selected

CLASSES = 5


def block(ids: np.ndarray) -> pa.Table:
    """Rows whose given label and payload are functions of the id, so that any mix-up shows."""
    return pa.table(
        {
            "instance_id": pa.array(ids, pa.int64()),
            "uri": pa.array([f"u{i}" for i in ids], pa.string()),
            "given_label": pa.array(ids % CLASSES, pa.int32()),
            "image": pa.array([f"pixels of {i}".encode() for i in ids], pa.binary()),
        }
    )


def sorted_rows(tables: list[pa.Table]) -> list[dict[str, object]]:
    return pa.concat_tables(tables).sort_by("key").to_pylist()


def test_rows_of_one_block_are_the_originals_and_then_the_copies() -> None:
    ids = np.array([7, 3, 11, 4])
    rows = corrupt(block(ids), CorruptionConfig(gamma=1.0), CLASSES)
    assert rows.column_names == ["key", "label", "uri", "image"]
    assert rows.schema.types == [pa.int64(), pa.int32(), pa.string(), pa.binary()]
    source, is_corrupted = decode_key(rows["key"].to_numpy())
    assert source.tolist() == [7, 3, 11, 4, 7, 3, 11, 4]
    assert is_corrupted.tolist() == [False] * 4 + [True] * 4
    assert rows["uri"].to_pylist() == [f"u{i}" for i in source]
    assert rows["label"].to_pylist()[:4] == [2, 3, 1, 4]
    assert all(new != old for new, old in zip(rows["label"].to_pylist()[4:], [2, 3, 1, 4], strict=True))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 1 << 61), min_size=1, max_size=60, unique=True),
    st.lists(st.integers(0, 60), max_size=5),
    st.randoms(use_true_random=False),
    st.floats(0.05, 1.0),
)
def test_any_split_and_order_of_rows_gives_the_same_rows(ids, cuts, random, gamma) -> None:  # type: ignore[no-untyped-def]
    config = CorruptionConfig(gamma=gamma, seed=5)
    shuffled = random.sample(ids, len(ids))
    pieces = [piece for piece in np.split(np.array(shuffled), sorted(cuts)) if len(piece)]
    split = [corrupt(block(piece), config, CLASSES) for piece in pieces]
    assert sorted_rows(split) == sorted_rows([corrupt(block(np.array(ids)), config, CLASSES)])


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.sampled_from([1.0, 0.9]), st.integers(0, 1000))
def test_corrupted_sets_are_nested_in_gamma(first: float, second: float, pool: float, seed: int) -> None:
    ids = np.arange(2000)
    small, large = sorted((first, second))
    inner = is_selected(ids, CorruptionConfig(gamma=small, seed=seed, copy_pool=pool))
    outer = is_selected(ids, CorruptionConfig(gamma=large, seed=seed, copy_pool=pool))
    assert not (inner & ~outer).any()


@pytest.mark.parametrize("pool", [1.0, 0.9, 0.3])
def test_the_share_of_copies_is_gamma_whatever_the_pool(pool: float) -> None:
    selected = is_selected(np.arange(200_000), CorruptionConfig(gamma=0.25, copy_pool=pool))
    assert selected.mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 200_000))


def test_with_a_pool_no_gamma_reaches_the_rest_of_the_data() -> None:
    ids = np.arange(50_000)
    whole_pool = is_selected(ids, CorruptionConfig(gamma=0.9, copy_pool=0.9))
    assert whole_pool.mean() == pytest.approx(0.9, abs=0.01)
    assert not (is_selected(ids, CorruptionConfig(gamma=0.2, copy_pool=0.9)) & ~whole_pool).any()


def test_seeds_give_different_sets() -> None:
    ids = np.arange(20_000)
    both = is_selected(ids, CorruptionConfig(seed=0)) & is_selected(ids, CorruptionConfig(seed=1))
    assert both.mean() == pytest.approx(0.01, abs=0.004)


def test_the_corrupted_label_is_uniform_over_the_other_classes() -> None:
    ids = np.arange(100_000)
    given_label = ids % CLASSES
    label = corrupted_label(given_label, ids, CLASSES, seed=0)
    assert label.dtype == np.int32
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (given_label, label), 1)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(CLASSES, dtype=bool)]
    # 15 degrees of freedom: mean 15, standard deviation 5.5
    assert ((off - 5000) ** 2 / 5000).sum() < 40


@pytest.mark.parametrize("seed", [0, 5])
def test_a_copy_has_the_label_of_its_seed(seed: int) -> None:
    config, ids = CorruptionConfig(gamma=0.5, seed=seed), np.arange(300)
    chosen = ids[is_selected(ids, config)]
    labels = corrupt(block(ids), config, CLASSES)["label"].to_numpy()[300:]
    assert labels.tolist() == corrupted_label(chosen % CLASSES, chosen, CLASSES, seed).tolist()


def test_two_classes_leave_one_choice() -> None:
    assert corrupted_label(np.array([0, 1, 1]), np.array([4, 5, 6]), 2, seed=9).tolist() == [1, 0, 0]


def test_the_new_label_does_not_depend_on_membership() -> None:
    ids = np.arange(100_000)
    selected = is_selected(ids, CorruptionConfig(gamma=0.1))
    share = np.bincount(corrupted_label(np.zeros_like(ids), ids, CLASSES, seed=0)[selected], minlength=CLASSES)[1:]
    assert share / share.sum() == pytest.approx(0.25, abs=0.03)


def test_expected_noise_rates_are_those_of_a_simulated_set() -> None:
    ids = np.arange(200_000)
    true_label = (ids * 7) % CLASSES
    given_label = symmetric(true_label, ids, 0.4, CLASSES, seed=1)
    selected = is_selected(ids, CorruptionConfig(gamma=0.3, seed=2))
    copies = corrupted_label(given_label[selected], ids[selected], CLASSES, seed=2)
    wrong_copies, wrong_originals = copies != true_label[selected], given_label != true_label
    corrupted, overall = expected_noise_rates(0.4, 0.3, CLASSES)
    assert corrupted == pytest.approx(1 - 0.4 / 4)
    assert overall == pytest.approx((0.4 + 0.3 * 0.9) / 1.3)
    assert wrong_copies.mean() == pytest.approx(corrupted, abs=0.005)
    assert np.concatenate((wrong_copies, wrong_originals)).mean() == pytest.approx(overall, abs=0.005)


def test_proposition_1_holds_up_to_its_bound() -> None:
    for num_classes in (2, 10, 100):
        bound = 1 - 1 / num_classes
        assert expected_noise_rates(bound - 1e-6, 0.1, num_classes)[0] > bound
        assert expected_noise_rates(bound, 0.1, num_classes)[0] == pytest.approx(bound)


def test_blocks_without_rows_or_without_copies_keep_their_columns() -> None:
    empty = corrupt(block(np.arange(0)), CorruptionConfig(), CLASSES)
    full = corrupt(block(np.arange(50)), CorruptionConfig(), CLASSES)
    assert empty.num_rows == 0
    assert empty.schema == full.schema


def test_unusable_tables_are_refused() -> None:
    with pytest.raises(DataError, match="range of -1"):
        corrupt(block(np.array([-1, 2])), CorruptionConfig(), CLASSES)
    with pytest.raises(DataError, match=r"labels in 0\.\.1, but got label 2 of instance 2"):
        corrupted_label(np.array([0, 1, 2]), np.arange(3), 2, seed=0)
    with pytest.raises(ConfigError, match="at least 2 classes"):
        corrupted_label(np.array([0]), np.arange(1), 1, seed=0)
    with pytest.raises(ConfigError, match="noise rate"):
        expected_noise_rates(40, 0.1, 10)
    with pytest.raises(ConfigError, match="at least 2 classes"):
        expected_noise_rates(0.4, 0.1, 1)
