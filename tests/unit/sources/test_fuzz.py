"""Files that were changed at random: an error of ours, quarantined rows, or rows."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import storage
from dynacor_ray.core.errors import DataError
from tests import fuzzing, opened_sources


@pytest.mark.parametrize("name", fuzzing.ORIGINALS)
def test_the_originals_are_sound(name: str, tmp_path: Path) -> None:
    """Else nothing behind what refuses them would be reached."""
    fuzzing.write(fuzzing.ORIGINALS[name].files, tmp_path)
    fuzzing.read(name, tmp_path)


# pyarrow's, of lines that it cannot decode
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_changed_files_raise_nothing_unexpected(tmp_path: Path) -> None:
    """The first 300 inputs of `make slow`, one whose footer made Arrow abort, and one with a name that is no UTF-8."""
    outcomes = Counter(fuzzing.outcome(number, tmp_path / "input") for number in (*range(300), 1336, 2239))
    assert min(outcomes["read"], outcomes["refused"]) > 100, outcomes
    assert not list(tmp_path.iterdir())


def npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def claimed(rows: int, *rest: int) -> bytes:
    """An array that says to have many rows, and has none."""
    stream = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": (rows, *rest)}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def arrow(offsets: list[int]) -> bytes:
    """Vectors whose offsets Arrow takes as they stand in the file."""
    vectors = pa.Array.from_buffers(
        pa.list_(pa.float32()), 4, [None, pa.py_buffer(np.array(offsets, np.int32))], children=[pa.nulls(8, "float32")]
    )
    table, stream = pa.table({"label": [*"abab"], "feature": vectors}), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def misnamed() -> bytes:
    """A parquet file, the name of one of whose columns is no text."""
    stream = io.BytesIO()
    pq.write_table(pa.table({"zq": [1, 2], "label": ["a", "b"]}), stream, store_schema=False)
    return stream.getvalue().replace(b"zq", b"\xff\xfe")


DAMAGED = {
    "cut.npy": (npy(np.ones((4, 2)))[:-8], "x ends before its last row"),
    "header.npy": (npy(np.ones((4, 2))).replace(b"(4, 2)", b"(4, ("), "to be an array of NumPy"),
    "member.npz": (
        zipped(x=npy(np.ones((4, 2))), y=npy(np.arange(4) % 2)).replace(b"PK\3\4", b"PK\3\5"),
        "to be a .npz",
    ),
    "bomb.npz": (zipped(x=claimed(10**10, 2), y=claimed(10**10)), r"labels that are .* \(10000000000,\)"),
    "names.jsonl": (b'{"\xff": 1, "label": "a"}\n' * 4, "in names.jsonl, but got the columns \ufffd, label"),
    "names.parquet": (misnamed(), r"names\.parquet to be a readable parquet file"),
    "long.csv": (b"label,x%s,x1,x2,x3\n" % (b"1" * 5000) + b"a,1,2,3,4\n" * 4, "at least two classes"),
    "twice.csv": (b"label,x0,x1,x1,x3\n" + b"a,1,2,3,4\n" * 4, "distinct column names"),
    "label.csv": (b"label,x0,x1,x2,x3\n" + (b"%s,1,2,3,4\n1,1,2,3,4\n" % (b"1" * 5000)) * 2, "at most 500 characters"),
    "offsets.arrow": (arrow([0, 2, 10**6, 6, 8]), "to be a readable Arrow file"),
    "message.arrow": (b"\xff\xff\xff\xff\x10\0\0\0" + bytes(64), "to be a readable Arrow file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_was_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is tried again: the bytes of a file on this machine stay what they are."""
    monkeypatch.setattr(storage.time, "sleep", None)
    content, message = DAMAGED[name]
    place = opened_sources.write(tmp_path / ("x.npy" if name.endswith(".npy") else name), content)
    if name.endswith(".npy"):
        opened_sources.write(tmp_path / "y.npy", npy(np.arange(4) % 2))
    with pytest.raises(DataError, match=message):
        fuzzing.read_rows(str(place))


def test_a_file_that_ends_before_the_rows_of_its_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened_sources.save(tmp_path / "a.parquet", {"label": [*"abab"], "feature": [[1.0, 2.0]] * 4})
    (shard,) = opened_sources.opened(data).shards(9)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: iter(()))
    with pytest.raises(DataError, match=r"the 4 rows that a\.parquet says to hold, but got 0"):
        shard.read()
