"""One-hot classes become labels; several classes in a row are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.python_data import open_python
from tests.opened_sources import opened, png, save, whole, write

PATHS = ["img/a.png", "img/b.png", "img/c.png", "img/d.png"]
ONES = {"healthy": [1, 0, 0, 0], "rust": [0, 1, 0, 1], "scab": [0, 0, 1, 0]}
LABELS = ["healthy", "rust", "scab", "rust"]
NOTE = "3 columns of 0 and 1, healthy to scab, are the classes."


def csv(columns: dict[str, Any]) -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows), ""])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(PATHS):
        write(tmp_path / name, png(shade))
    return tmp_path


@pytest.mark.parametrize(("ending", "kind"), [("csv", int), ("csv", float), ("parquet", int), ("parquet", bool)])
def test_a_column_per_class(folder: Path, ending: str, kind: type) -> None:
    columns = {"image_id": PATHS, "width": [8] * 4} | {name: [kind(one) for one in ONES[name]] for name in ONES}
    data = folder / f"t.{ending}"
    source = opened(write(data, csv(columns)) if ending == "csv" else save(data, columns))
    table = whole(source)
    assert table["label"].to_pylist() == LABELS
    assert table["image"].to_pylist() == [png(shade) for shade in range(4)]
    assert source.notes == (NOTE,)


def test_one_hot_classes_beside_features(tmp_path: Path) -> None:
    columns = {f"f{place}": [0.5, 0.25, 0.75, 1.5] for place in range(4)} | ONES
    for source in (opened(write(tmp_path / "t.csv", csv(columns))), opened(save(tmp_path / "t.parquet", columns))):
        assert source.kind == "feature"
        assert whole(source)["label"].to_pylist() == LABELS
        assert [len(row) for row in whole(source)["feature"].to_pylist()] == [4] * 4
        assert source.shards(9)[0].read_labels().to_pylist() == LABELS


def test_several_classes_in_a_row_are_refused(folder: Path) -> None:
    several = ONES | {"healthy": [1, 1, 0, 0]}
    wanted = r"one class per row in healthy to scab of t.csv, but got 1 of 4 with several, such as healthy, rust; keep"
    with pytest.raises(DataError, match=wanted):
        opened(write(folder / "t.csv", csv({"path": PATHS} | several)))


def test_numbers_that_are_no_classes_are_not_taken(folder: Path) -> None:
    with pytest.raises(DataError, match="exactly one label column"):
        opened(write(folder / "t.csv", csv({"path": PATHS, "age": [3, 4, 5, 6], "weight": [0, 1, 1, 0]})))
    row_without = ONES | {"scab": [0, 0, 0, 0]}
    source = opened(write(folder / "t.csv", csv({"path": PATHS} | row_without)))
    assert source.shards(9)[0].read_labels().to_pylist() == ["healthy", "rust", None, "rust"]


def test_python_takes_them_too(folder: Path) -> None:
    frame = pd.DataFrame({"path": [str(folder / name) for name in PATHS]} | ONES)
    assert whole(open_python(frame, None, SourceOptions()))["label"].to_pylist() == LABELS
    ones = np.stack(list(ONES.values()), axis=1)
    source = open_python(np.eye(4), ones, SourceOptions(classes=tuple(ONES)))
    assert whole(source)["label"].to_pylist() == ["0", "1", "2", "1"]
    with pytest.raises(DataError, match=r"or one-hot, but got \(4, 3\) with other rows than one 1 and zeros; pass one"):
        open_python(np.eye(4), ones + 1, SourceOptions())
    assert pa.types.is_string(whole(source)["label"].type)
