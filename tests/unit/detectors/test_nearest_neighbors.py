from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.detectors.nearest_neighbors import NO_INSTANCE, NearestNeighbors, normalized


def brute_force(features: np.ndarray, ids: np.ndarray, k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Sort all others by similarity, then id, one instance at a time."""
    values, names = [], []
    for row, one in enumerate(ids):
        ranked = sorted(
            (-float(features[row] @ features[other]), int(number)) for other, number in enumerate(ids) if number != one
        )
        ranked = ranked[:k] + [(np.inf, NO_INSTANCE)] * (k - len(ranked))
        values.append([-similarity for similarity, _ in ranked])
        names.append([number for _, number in ranked])
    return values, names


def found(features: np.ndarray, ids: np.ndarray, k: int, chunks: list[np.ndarray]) -> NearestNeighbors:
    rows, numbers = torch.from_numpy(features), torch.from_numpy(ids)
    nearest = NearestNeighbors(rows, numbers, k)
    for chunk in chunks:
        nearest.update(rows[chunk], numbers[chunk])
    return nearest


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_and_order_equals_brute_force(data: st.DataObject) -> None:
    """Small whole numbers: products are exact and ties are many, also at the k-th place and between duplicates."""
    count, k = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 14))
    seed = data.draw(st.integers(0, 2**16))
    generator = np.random.default_rng(seed)
    features = generator.integers(-1, 2, (count, 3)).astype(np.float32)
    ids = generator.permutation(100)[:count].astype(np.int64)
    order = np.array(data.draw(st.permutations(range(count))), np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    chunks = np.split(order, cuts)
    values, names = brute_force(features, ids, k)
    nearest = found(features, ids, k, chunks)
    assert nearest.ids.tolist() == names
    assert nearest.similarity.tolist() == values


def test_real_features_are_those_of_brute_force() -> None:
    rows = normalized(torch.from_numpy(np.random.default_rng(0).normal(size=(300, 16)))).numpy()
    ids = np.arange(300)[::-1].copy()
    values, names = brute_force(rows, ids, 10)
    nearest = found(rows, ids, 10, np.array_split(np.arange(300), 7))
    assert nearest.similarity.dtype == torch.float32
    assert nearest.ids.dtype == torch.int64
    assert nearest.ids.tolist() == names
    assert nearest.similarity.numpy() == pytest.approx(np.array(values), abs=1e-6)


def test_a_duplicate_is_a_neighbor_but_the_instance_itself_is_not() -> None:
    rows = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]], np.float32)
    assert found(rows, np.array([7, 3, 5, 1]), 2, [np.arange(4)]).ids.tolist() == [[3, 5], [5, 7], [3, 7], [3, 5]]


def test_queries_need_not_be_references() -> None:
    nearest = NearestNeighbors(torch.tensor([[1.0, 0.0]]), torch.tensor([9]), 2)
    nearest.update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert nearest.ids.tolist() == [[NO_INSTANCE, NO_INSTANCE]]
    nearest.update(torch.tensor([[0.5, 0.0]]), torch.tensor([2]))
    assert nearest.ids.tolist() == [[2, NO_INSTANCE]]
    assert nearest.similarity.tolist() == [[0.5, -float("inf")]]


def test_normalized_rows_have_length_one_and_zeros_stay() -> None:
    rows = normalized(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float16))
    assert rows.dtype == torch.float32
    assert rows.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]


def test_rows_of_one_group_are_no_neighbors() -> None:
    rows = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    ids, groups = torch.tensor([7, 3, 5, 1]), torch.tensor([3, 3, 5, 1])
    nearest = NearestNeighbors(rows, ids, 2, groups)
    nearest.update(rows, ids, groups)
    assert nearest.ids.tolist() == [[5, 1], [5, 1], [3, 7], [3, 5]]
