"""Rows that tasks of Ray Data wrote, and their hash, without a cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.ray_table import (
    StagedRows,
    _are_pictures,
    _plain_table,
    _write,
    is_ray_data,
    joined_hashes,
    rows_hash,
)
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.frames import StoredTable
from dynacor_ray.sources.python_data import open_python
from tests.opened_sources import whole

ROWS = pa.table(
    {
        "feature": pa.array([[float(row), 1.0] for row in range(1200)], pa.list_(pa.float32())),
        "label": pa.array(["cat", "dog", None] * 400),
        "beside": pa.array(range(1200)),
    }
)


class Blocks(StoredTable):
    """What `RayTable` does, with blocks that this process holds."""

    add_column = "data.zip(labels)"

    def __init__(self, blocks: list[pa.Table], folder: Path) -> None:
        self.schema, self.blocks, self.folder = blocks[0].schema, blocks, locate(str(folder))

    def rows(self, names: list[str]) -> StagedRows:
        files = tuple(_write(block, names, self.folder) for block in self.blocks)
        return StagedRows(self.folder, files, 0, sum(file.rows for file in files))


def test_rows_and_their_fingerprint_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    prints = set()
    for size in (1200, 700, 301):
        blocks = [ROWS.slice(start, size) for start in range(0, 1200, size)]
        source = open_python(Blocks(blocks, tmp_path), None, SourceOptions())
        read = whole(source, 250)
        assert read["feature"].to_pylist() == ROWS["feature"].to_pylist()
        assert read["label"].to_pylist() == ROWS["label"].to_pylist()
        assert read["uri"].to_pylist() == [str(row) for row in range(1200)]
        prints.add(source.fingerprint())
    assert len(prints) == 1
    other = open_python(Blocks([ROWS.slice(1), ROWS.slice(0, 1)], tmp_path), None, SourceOptions())
    assert other.fingerprint() not in prints


def test_a_cut_keeps_the_files_with_its_rows(tmp_path: Path) -> None:
    rows = Blocks([ROWS.slice(start, 100) for start in range(0, 1200, 100)], tmp_path).rows(["beside"])
    part = rows.cut(150, 200).cut(40, 20)
    assert len(part.files) == 2
    assert part.load(["beside"])["beside"].to_pylist() == list(range(190, 210))
    assert len(rows.cut(99, 2).files) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.table({"a": ["x", "y"]}), pa.table({"a": ["y", "x"]})),
        (pa.table({"a": ["xy", ""]}), pa.table({"a": ["x", "y"]})),
        (pa.table({"a": ["x"], "b": ["yz"]}), pa.table({"a": ["xy"], "b": ["z"]})),
        (pa.table({"a": [[1.0, 2.0], [3.0]]}), pa.table({"a": [[1.0], [2.0, 3.0]]})),
        (pa.table({"a": [{"bytes": b"x", "path": None}]}), pa.table({"a": [{"bytes": None, "path": "x"}]})),
        (pa.table({"a": [1, 2]}), pa.table({"a": [1, 3]})),
    ],
)
def test_other_rows_have_another_hash(one: pa.Table, other: pa.Table) -> None:
    assert rows_hash(one) != rows_hash(other)
    parts = [(row.num_rows, rows_hash(row)) for row in (one.slice(0, 1), one.slice(1))]
    assert joined_hashes(parts) == rows_hash(one)


def test_no_rows_have_the_hash_of_nothing() -> None:
    assert rows_hash(ROWS.slice(0, 0)) == (0, 0) == joined_hashes([])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray warns of options of its own
def test_tensors_become_images_or_lists_of_numbers() -> None:
    from ray.data.extensions import ArrowTensorArray, ArrowVariableShapedTensorArray

    pictures = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    numbers = np.arange(8, dtype=np.float32).reshape(2, 4)
    columns = {name: ArrowTensorArray.from_numpy(values) for name, values in (("one", pictures), ("numbers", numbers))}
    table = pa.table(columns | {"varied": ArrowVariableShapedTensorArray.from_numpy([pictures[0], pictures[1][:2]])})
    assert [_are_pictures(field.type) for field in table.schema] == [True, False, True]
    plain = _plain_table(table)
    assert all(image.startswith(b"\x89PNG") for name in ("one", "varied") for image in plain[name].to_pylist())
    assert plain["numbers"].to_pylist() == numbers.tolist()


def test_what_a_data_set_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels as a column .* beside it; pass data.zip\(labels\) and label_column"):
        open_python(Blocks([ROWS], tmp_path), [0] * 1200, SourceOptions())
    with pytest.raises(DataError, match=r"exactly one label column .* in the table, but got the columns feature"):
        open_python(Blocks([ROWS.select(["feature"])], tmp_path), None, SourceOptions())
    with pytest.raises(DataError, match=r"the columns of the first row in every block, but got a block without label"):
        open_python(Blocks([ROWS, ROWS.drop_columns(["label"])], tmp_path), None, SourceOptions())
    with pytest.raises(ConfigError, match="one label column, but got beside and label"):
        open_python(Blocks([ROWS], tmp_path), "beside", SourceOptions(label_column="label"))
    assert not is_ray_data(ROWS)
