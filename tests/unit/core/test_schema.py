"""Keys of originals and copies, matrices in columns, and the columns of each file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core import schema


@given(ids=st.lists(st.integers(0, schema.MAX_INSTANCE_ID), max_size=20), copy=st.booleans())
def test_keys_come_back(ids: list[int], copy: bool) -> None:
    numbers = np.array(ids, np.int64)
    keys = schema.encode_key(numbers, copy)
    assert keys.dtype == np.int64
    assert (keys >= 0).all()
    back, is_copy = schema.decode_key(keys)
    assert np.array_equal(back, numbers)
    assert is_copy.tolist() == [copy] * len(ids)
    assert is_copy.dtype == np.bool_


def test_an_instance_and_its_copy_are_neighbors() -> None:
    assert schema.encode_key(np.array([5, 5, 6]), np.array([False, True, False])).tolist() == [10, 11, 12]


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (4, 3)])
def test_matrices_come_back(shape: tuple[int, int]) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.float16).reshape(shape)
    column = schema.fixed_size_list(values)
    assert column.type == pa.list_(pa.float16(), shape[1])
    assert np.array_equal(schema.matrix(column), values)
    chunked = pa.chunked_array([column.slice(0, shape[0] // 2), column.slice(shape[0] // 2)])
    assert np.array_equal(schema.matrix(chunked), values)
    empty = schema.matrix(pa.chunked_array([], column.type))
    assert (empty.shape, empty.dtype) == ((0, shape[1]), np.float16)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 3)])
def test_vectors_come_back_from_bytes(shape: tuple[int, int], tmp_path: Path) -> None:
    values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    column = schema.feature_column(values)
    pq.write_table(pa.table({"v": column}), tmp_path / "v.parquet")
    kept = np.arange(len(values)) % 2 == 0
    for back in (column, pq.read_table(tmp_path / "v.parquet")["v"], pa.chunked_array([column[:2], column[2:]])):
        assert np.array_equal(schema.matrix(back), values)
        assert np.array_equal(schema.matrix(back.filter(pa.array(kept))), values[kept])
    assert schema.matrix(pa.chunked_array([], column.type)).shape == (0, shape[1])


def test_a_transposed_matrix_comes_back() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(schema.matrix(schema.fixed_size_list(values)), values)


def test_images_or_features() -> None:
    assert dataset_names(None) == ["instance_id", "uri", "given_label", "image"]
    assert dataset_names(7) == ["instance_id", "uri", "given_label", "feature"]
    assert schema.dataset_schema(7).field("feature").type == schema.feature_column(np.zeros((0, 7), np.float32)).type
    assert schema.dynamics_schema(9).field("margin").type == pa.list_(pa.float16(), 9)
    assert schema.issues_schema().names[:6] == [
        *("instance_id", "uri", "given_label", "predicted_label", "is_label_issue", "label_quality")
    ]


def dataset_names(dim: int | None) -> list[str]:
    names: list[str] = schema.dataset_schema(dim).names
    return names
