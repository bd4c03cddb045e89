"""Rows with chosen labels: those that are left out are gone, weights come along, and twins share anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.core.errors import DataError
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels, PackedDataset
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.data.training_rows import TrainingRows, chosen_rows
from dynacor_ray.method.corruption import LABEL

IDS = np.arange(6) * 10


def chosen(folder: Path, labels: list[int], weights: list[float] | None = None) -> TrainingRows:
    """Six rows, of which the first three are equal, with these labels."""
    parts = (DataFile("part", 6, 0, 50),)
    manifest = DatasetManifest("s", "u", "feature", "f", "c", "p", 6, ("a", "b"), (3, 3), 1, parts, "q", None, True)
    dataset = PackedDataset(locate(str(folder)), manifest)

    def read(piece: Any, known: GivenLabels) -> pa.Table:
        columns = {schema.KEY: pa.array(IDS << 1), LABEL: pa.array(known.of(IDS), pa.int32())}
        return pa.table(columns | {schema.FEATURE: schema.fixed_size_list(IDS[:, None].astype(np.float32))})

    twins = TwinLabels.of(Duplicates(IDS[:3], IDS[[0, 0, 0]]), np.zeros(3, np.int32), np.ones(3, bool))
    facts = RowFacts(6, 0, 2, 1, np.zeros(1, np.float32), 1.0, np.array([3, 3]), None, twins)
    known = GivenLabels(IDS, np.array(labels, np.int32), np.array(weights, np.float32) if weights else None)
    rows = TrainingRows(("part",), read, dataset, facts)
    return chosen_rows(rows, dataset.with_labels(known, locate(str(folder / "labels.parquet"))))


def all_rows(rows: TrainingRows) -> dict[str, list[Any]]:
    (table,) = rows.local(False).iter_batches(None)
    return {name: table[name].to_pylist() for name in table.column_names if name != schema.FEATURE}


def test_rows_that_are_left_out_are_gone(tmp_path: Path) -> None:
    rows = chosen(tmp_path, [0, LEFT_OUT, 1, 1, LEFT_OUT, 1])
    assert all_rows(rows) == {schema.KEY: [0, 40, 60, 100], LABEL: [0, 1, 1, 1]}
    assert rows.facts.total == rows.facts.num_originals == 4
    assert rows.facts.class_counts.tolist() == [1, 3]
    assert not rows.facts.weighted
    assert rows.facts.row_weights(np.array([0, 40, 60])).tolist() == [0.5, 0.5, 1.0], "two of three twins are left"


def test_weights_come_along(tmp_path: Path) -> None:
    rows = chosen(tmp_path, [0, 0, 1, 1, LEFT_OUT, 1], [0.5, 1.0, 1.5, 0.0, 9.0, 2.0])
    assert rows.facts.weighted
    assert all_rows(rows)[schema.WEIGHT] == [0.5, 1.0, 1.5, 0.0, 2.0]


def test_at_least_one_row_must_be_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected at least one row to train on, but got none of 6"):
        chosen(tmp_path, [LEFT_OUT] * 6)
