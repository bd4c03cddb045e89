"""Given labels by instance, from files and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.labels import GivenLabels, LabelTable


def test_labels_are_found_by_id_in_any_order_and_from_several_files(tmp_path: Path) -> None:
    places = []
    for name, ids in (("a", [7, 2]), ("b", [5, 0])):
        place = locate(str(tmp_path / f"{name}.parquet"))
        labels = pa.array([i * 10 for i in ids], pa.int32())
        place.write_table(pa.table({"instance_id": pa.array(ids), "given_label": labels, "uri": ["x", "y"]}))
        places.append(place)
    known = LabelTable(tuple(places)).read()
    assert known.of(np.array([5, 0, 7, 5])).tolist() == [50, 0, 70, 50]
    assert known.of(np.array([], np.int64)).tolist() == []
    for unknown in (3, 8, -1):
        with pytest.raises(DataError, match=f"none for instance_id {unknown}"):
            known.of(np.array([2, unknown]))


def test_replaced_labels_come_back(tmp_path: Path) -> None:
    labels = GivenLabels(np.array([1, 4, 6]), np.array([2, 0, 2], np.int32))
    known = LabelTable.write(locate(str(tmp_path / "labels.parquet")), labels).read()
    assert known.ids.tolist() == [1, 4, 6]
    assert known.labels.tolist() == [2, 0, 2]
    assert known.counts(4).tolist() == [1, 0, 2, 0]
