"""Given labels by instance, from files and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.packed_dataset import GivenLabels, PackedDataset
from dynacor_ray.core.storage import locate


def dataset_of(folder: Path, *names: str) -> PackedDataset:
    """A data set of which only these files are there."""
    parts = tuple(DataFile(name, 2, 0, 7) for name in names)
    manifest = DatasetManifest("s", "u", "feature", "f", "c", "p", 4, ("a", "b"), (1, 1), 2, parts, "q", None, True)
    return PackedDataset(locate(str(folder)), manifest)


def test_labels_are_found_by_id_in_any_order_and_from_several_files(tmp_path: Path) -> None:
    for name, ids in (("a", [7, 2]), ("b", [5, 0])):
        place = locate(str(tmp_path / f"{name}.parquet"))
        labels = pa.array([i * 10 for i in ids], pa.int32())
        place.write_table(pa.table({"instance_id": pa.array(ids), "given_label": labels, "uri": ["x", "y"]}))
    known = dataset_of(tmp_path, "a.parquet", "b.parquet").labels()
    assert known.of(np.array([5, 0, 7, 5])).tolist() == [50, 0, 70, 50]
    assert known.of(np.array([], np.int64)).tolist() == []
    for unknown in (3, 8, -1):
        with pytest.raises(DataError, match=f"none for instance_id {unknown}"):
            known.of(np.array([2, unknown]))


def test_replaced_labels_come_back(tmp_path: Path) -> None:
    labels = GivenLabels(np.array([1, 4, 6]), np.array([2, 0, 2], np.int32))
    known = dataset_of(tmp_path, "gone").with_labels(labels, locate(str(tmp_path / "labels.parquet"))).labels()
    assert known.ids.tolist() == [1, 4, 6]
    assert known.labels.tolist() == [2, 0, 2]
    assert known.counts(4).tolist() == [1, 0, 2, 0]
    assert known.weights is None
    assert known.weights_of(np.array([4, 6])).tolist() == [1.0, 1.0]


def test_weights_come_back_with_their_labels(tmp_path: Path) -> None:
    labels = GivenLabels(np.array([1, 4, 6]), np.array([2, 0, 2], np.int32), np.array([0.5, 2.0, 0.25], np.float32))
    known = dataset_of(tmp_path, "gone").with_labels(labels, locate(str(tmp_path / "labels.parquet"))).labels()
    assert known.weights_of(np.array([6, 1])).tolist() == [0.25, 0.5]


def test_duplicates_come_back_sorted(tmp_path: Path) -> None:
    packed = dataset_of(tmp_path, "gone")
    assert packed.duplicates() is None
    columns = {"instance_id": pa.array([9, 2, 5, 4]), "duplicate_of": pa.array([4, 2, 2, 4])}
    locate(str(tmp_path / "twins.parquet")).write_table(pa.table(columns))
    manifest = dataclasses.replace(packed.manifest, duplicates="twins.parquet")
    found = dataclasses.replace(packed, manifest=manifest).duplicates()
    assert found is not None
    assert found.ids.tolist() == [2, 4, 5, 9]
    assert found.first.tolist() == [2, 4, 2, 4]


@pytest.mark.parametrize("rows", [59, 60])
def test_equal_rows_of_a_coarse_table_are_no_duplicates(tmp_path: Path, rows: int) -> None:
    """Three distinct rows of 60: the features hardly tell rows apart."""
    packed = dataset_of(tmp_path, "gone")
    columns = {"instance_id": pa.array(np.arange(rows)), "duplicate_of": pa.array(np.arange(rows) % 3)}
    locate(str(tmp_path / "twins.parquet")).write_table(pa.table(columns))
    manifest = dataclasses.replace(packed.manifest, duplicates="twins.parquet", num_rows=rows)
    assert (dataclasses.replace(packed, manifest=manifest).duplicates() is None) == (rows == 60)
