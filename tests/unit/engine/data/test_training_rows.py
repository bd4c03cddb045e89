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
from dynacor_ray.core.manifest import DataFile, DatasetManifest, FeatureStats
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels, PackedDataset
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.data.training_rows import TrainingRows, chosen_rows, rows_of_features
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, is_selected

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


def test_copies_follow_the_labels_that_are_learned(tmp_path: Path) -> None:
    """A row that is left out has no copy, and a copy's label differs from the one that its row is given instead."""
    parts = (DataFile("part.parquet", 40, 0, 39),)
    stats = FeatureStats.of(np.eye(40, dtype=np.float32))
    manifest = DatasetManifest(
        "s", "u", "feature", "f", "c", "p", 40, ("a", "b"), (40, 0), 40, parts, "q", None, True, stats=stats
    )
    dataset = PackedDataset(locate(str(tmp_path)), manifest)
    ids = np.arange(40)
    columns = {schema.INSTANCE_ID: ids, schema.GIVEN_LABEL: pa.array(np.zeros(40), pa.int32())}
    columns[schema.FEATURE] = schema.fixed_size_list(np.eye(40, dtype=np.float32))
    (dataset.folder / "part.parquet").write_table(pa.table(columns))
    corruption = CorruptionConfig(gamma=0.5)
    rows = rows_of_features(dataset, corruption)
    instead = np.where(ids < 15, LEFT_OUT, ids % 2).astype(np.int32)
    chosen = chosen_rows(rows, dataset.with_labels(GivenLabels(ids, instead), locate(str(tmp_path / "labels.parquet"))))
    found = all_rows(chosen)
    keys, labels = np.array(found[schema.KEY]), np.array(found[LABEL])
    copied = ids[is_selected(ids, corruption) & (ids >= 15)]
    assert sorted(keys.tolist()) == sorted([*(ids[15:] << 1), *(copied << 1 | 1)])
    assert labels.tolist() == [int((key >> 1) % 2) ^ int(key & 1) for key in keys]
    assert (chosen.facts.num_originals, chosen.facts.num_copies) == (25, len(copied))
    few = np.where(np.isin(ids, copied), LEFT_OUT, instead).astype(np.int32)
    with pytest.raises(DataError, match="Expected at least one corrupted copy, but got no row selected out of"):
        chosen_rows(rows, dataset.with_labels(GivenLabels(ids, few), locate(str(tmp_path / "few.parquet"))))
