"""Features and images in files of many kinds: wide tables, Arrow, partitions, repositories of data sets."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pytest

from dynacor_ray.core.errors import DataError, StorageError
from dynacor_ray.sources import text_rows
from dynacor_ray.sources.image_files import LFS_HEAD, is_pattern
from tests.opened_sources import opened, png, save, whole, write

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6) / 8
LABELS = ["a", "b", "a", "b"]
WIDE = {f"f{place}": VALUES[:, place] for place in range(6)}


def text(columns: dict[str, Any], mark: str = ",", end: str = "\n") -> str:
    rows = zip(*columns.values(), strict=True)
    return end.join([mark.join(columns), *(mark.join(map(str, row)) for row in rows), ""])


def vectors(source: Any, max_rows: int = 3) -> np.ndarray:
    return np.array(whole(source, max_rows)["feature"].to_pylist(), dtype=np.float32)


@pytest.mark.parametrize(("name", "mark", "end"), [("t.csv", ",", "\n"), ("t.tsv", "\t", "\r\n"), ("t.txt", ";", "\n")])
def test_wide_text(tmp_path: Path, name: str, mark: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_rows, "_CHUNK_BYTES", 50)
    data = write(tmp_path / name, text({"id": range(10, 14), **WIDE, "label": LABELS}, mark, end))
    source = opened(data)
    assert (source.kind, source.num_rows) == ("feature", 4)
    assert source.notes[-1] == "6 columns, f0 to f5, are the features."
    assert ("Read fields as divided by ';'." in source.notes) is (mark == ";")
    np.testing.assert_array_equal(vectors(source, 1), VALUES)
    assert whole(source)["label"].to_pylist() == LABELS
    assert whole(source)["uri"].to_pylist() == ["10", "11", "12", "13"]
    unnamed = opened(write(tmp_path / f"u{name}", text({**WIDE, "label": LABELS}, mark, end)))
    assert whole(unnamed)["uri"].to_pylist() == [f"u{name}#{row}" for row in range(4)]
    np.testing.assert_array_equal(vectors(opened(data, feature_columns=("f[24]",))), VALUES[:, [2, 4]])


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.csv", lambda content: content.decode().encode("utf-16")),
        ("t.csv.gz", gzip.compress),
        ("t.csv.bz2", bz2.compress),
        ("t.csv.xz", lzma.compress),
        ("t.csv.zst", lambda content: pa.Codec("zstd").compress(content, asbytes=True)),
        ("u.csv.gz", lambda content: gzip.compress(content.decode().encode("utf-16-be"))),
    ],
)
def test_wide_text_that_has_no_lines_to_jump_to(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_rows, "_CHUNK_BYTES", 50)
    source = opened(write(tmp_path / name, pack(text({**WIDE, "label": LABELS}).encode())))
    copied = pickle.loads(pickle.dumps(source.shards(1)[2]))
    monkeypatch.setattr(text_rows, "_PLAIN", {})
    np.testing.assert_array_equal(np.array(copied.read()["feature"].to_pylist()), VALUES[2:3])
    np.testing.assert_array_equal(vectors(source, 1), VALUES)
    assert whole(source)["label"].to_pylist() == LABELS


KILLED = """
import os, sys
from pathlib import Path
from tests.opened_sources import opened
assert opened(Path(sys.argv[1])).num_rows == 4
os.kill(os.getpid(), 9)
"""


def test_the_plain_copy_has_no_name_that_a_killed_process_would_leave(tmp_path: Path) -> None:
    data, folder = tmp_path / "t.csv.gz", tmp_path / "tmp"
    folder.mkdir()
    write(data, gzip.compress(text({**WIDE, "label": LABELS}).encode()))
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", KILLED, str(data)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert list(folder.iterdir()) == []


def test_many_packed_files_keep_few_handles_and_each_is_read_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose copy had to go, and in several threads at once."""
    monkeypatch.setattr(text_rows, "_PLAIN", {})
    monkeypatch.setattr(text_rows, "_COPIES", 2)
    monkeypatch.setattr(text_rows, "_CHUNK_BYTES", 50)
    for number in range(8):
        columns = {**{name: values + number for name, values in WIDE.items()}, "label": LABELS}
        write(tmp_path / f"{number}.csv.gz", gzip.compress(text(columns).encode()))
    before, source = len(os.listdir("/dev/fd")), opened(tmp_path / "*.csv.gz")
    expected = np.concatenate([VALUES + number for number in range(8)])
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda shard: shard.read(), source.shards(2)))
    np.testing.assert_array_equal(np.array(pa.concat_tables(tables)["feature"].to_pylist()), expected)
    assert len(text_rows._PLAIN) == 2
    assert len(os.listdir("/dev/fd")) <= before + 2


def test_a_damaged_file_of_xz_is_named(tmp_path: Path) -> None:
    whole_file = lzma.compress(text({**WIDE, "label": LABELS}).encode())
    for content in (b"no xz", whole_file[:-9]):
        with pytest.raises(StorageError, match=r"to read .*t\.csv\.xz, but got '.*'; write the file again"):
            opened(write(tmp_path / "t.csv.xz", content))


@pytest.mark.parametrize(
    ("data", "is_one"), [("s3://***@bucket/a.parquet?x=1", False), ("s3://k:s*@bucket/*.csv", True), ("a/b*.csv", True)]
)
def test_a_masked_password_is_no_pattern(data: str, is_one: bool) -> None:
    assert is_pattern(data) == is_one


def test_a_pattern_takes_files_of_one_folder(tmp_path: Path) -> None:
    for name in ("a", "b", "x"):
        save(tmp_path / f"{name}.parquet", {**WIDE, "label": LABELS})
        write(tmp_path / f"{name}.csv.gz", gzip.compress(text({**WIDE, "label": LABELS}).encode()))
    for ending in ("parquet", "csv*"):
        source = opened(tmp_path / f"[ab]*.{ending}")
        np.testing.assert_array_equal(vectors(source), np.concatenate([VALUES, VALUES]))
        assert whole(source)["uri"][4].as_py().startswith("b.")
    with pytest.raises(DataError, match=r"files c\*\.csv in .*, but got none; check the pattern"):
        opened(tmp_path / "c*.csv")
    with pytest.raises(DataError, match=r"\* in the last part of a path only, but got .*; name the folder"):
        opened(tmp_path / "*" / "a.parquet")
    with pytest.raises(DataError, match=r"but got 6 of type \.csv, \.parquet; name files of one kind"):
        opened(tmp_path / "*")


def test_wide_parquet_and_its_wrong_columns(tmp_path: Path) -> None:
    data = save(tmp_path / "t.parquet", {**WIDE, "label": LABELS, "level": LABELS})
    np.testing.assert_array_equal(vectors(opened(data)), VALUES)
    with pytest.raises(DataError, match=r"columns of numbers that match g\* in t.parquet, but got the columns f0, .*"):
        opened(data, feature_columns=("g*",))
    with pytest.raises(DataError, match=r"match l\* f\* in t.parquet, but got column 'level' of type string; correct"):
        opened(data, feature_columns=("l*", "f*"))


def test_what_stands_for_a_missing_number(tmp_path: Path) -> None:
    """As spreadsheets, pandas and the tables of UCI write it."""
    lines = text({**WIDE, "label": LABELS}) + "".join(
        f"{word},1,1,1,1,1,a\n" for word in ("#DIV/0!", "?", "None", "NA")
    )
    first = vectors(opened(write(tmp_path / "t.csv", lines)))[:, 0]
    assert np.isnan(first).tolist() == [False] * 4 + [True] * 4
    source = opened(write(tmp_path / "t.data", "?,1,?,2,a\n" + "1,2,3,4,b\n" * 3))
    assert (source.num_rows, source.notes[1]) == (4, "4 columns, column_1 to column_4, are the features.")


def test_lines_that_end_in_two_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that were joined no row is lost, nor where a cell holds the end of a line at the end of a block."""
    monkeypatch.setattr(text_rows, "_CHUNK_BYTES", 50)
    head, *rows = text({**WIDE, "label": LABELS}).splitlines()
    joined = "\n".join([head, *rows]) + "\n" + "\r\n".join(rows) + "\r\n"
    assert whole(opened(write(tmp_path / "t.csv", joined)))["label"].to_pylist() == LABELS * 2
    cells = "f0,f1,f2,f3,label\r\n" + "".join(f'1,2,3,{row},"two\n{"lines" * 5}"\r\n' for row in range(9))
    assert opened(write(tmp_path / "t.csv", cells)).num_rows == 9


def test_what_excel_writes(tmp_path: Path) -> None:
    """A line for its delimiter, decimal commas also in labels, a blank behind a name."""
    rows = "".join(f"{row},5;1;2;3;{row % 2},0\r\n" for row in range(4))
    source = opened(write(tmp_path / "t.csv", "sep=;\r\nf0;f1;f2;f3;Label \r\n" + rows))
    assert whole(source)["label"].to_pylist() == ["0", "1", "0", "1"]
    assert vectors(source)[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]


def test_wide_text_that_is_no_table(tmp_path: Path) -> None:
    lines = text({**WIDE, "label": LABELS})
    with pytest.raises(DataError, match=r"t.csv to be a table, but got '.*Expected 7 columns, got 2.*'; correct the f"):
        opened(write(tmp_path / "t.csv", lines + "1,2\n"))
    with pytest.raises(DataError, match=r"numbers in f0 to f5 of t.csv, but got column 'f0' with 'Total'; correct it"):
        opened(write(tmp_path / "t.csv", lines + "Total,1,1,1,1,1,a\n"))
    late = opened(write(tmp_path / "t.csv", lines + ("1." + "0" * 90 + ",1,1,1,1,1,a\n") * 12_000 + "1,x,1,1,1,1,a\n"))
    with pytest.raises(DataError, match=r"t.csv to be a table, but got '.*conversion error to double.*'"):
        late.shards(1000)[-1].read()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(list(VALUES.astype(np.float16)), pa.list_(pa.float16())),
        pa.array(VALUES.tolist(), pa.list_(pa.float64(), 6)),
        pa.array(VALUES.reshape(4, 2, 3).tolist(), pa.list_(pa.list_(pa.float32()))),
        pa.array(VALUES.reshape(4, 2, 3).tolist(), pa.list_(pa.list_(pa.float32(), 3), 2)),
        pa.FixedShapeTensorArray.from_numpy_ndarray(VALUES.reshape(4, 2, 3)),
        pa.array((VALUES * 8).astype(int).tolist(), pa.list_(pa.int64())),
    ],
    ids=["half", "fixed", "nested", "nested fixed", "tensor", "integers"],
)
def test_vectors_of_any_layout(tmp_path: Path, column: pa.Array) -> None:
    source = opened(save(tmp_path / "t.parquet", {"embedding": column, "label": LABELS}, row_group_size=3))
    scale = 8 if pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type) else 1
    np.testing.assert_array_equal(vectors(source, 2), VALUES * scale)


def test_a_nested_vector_may_be_missing(tmp_path: Path) -> None:
    column = pa.array([None, [[1.0], [2.0, 3.0]], [], [[4.0]]], pa.list_(pa.list_(pa.float32())))
    table = whole(opened(save(tmp_path / "t.parquet", {"embedding": column, "label": LABELS})))
    assert table["feature"].to_pylist() == [None, [1, 2, 3], [], [4]]


@pytest.mark.parametrize("values", [[b"1234"] * 4, ["[1, 2]"] * 4], ids=["binary", "string"])
def test_vectors_in_disguise_are_refused_by_name(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(
        DataError, match=r"vectors of numbers in column 'embedding' of t.parquet, but got type .*; store"
    ):
        opened(save(tmp_path / "t.parquet", {"embedding": values, "label": LABELS}))


def test_a_known_path_column_goes_before_guesses_by_type(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{row}.png", png())) for row in range(4)]
    boxes = pa.array([[0.0, 0.0, 8.0, 8.0]] * 4, pa.list_(pa.float32()))
    source = opened(save(tmp_path / "t.parquet", {"bbox": boxes, "label": LABELS, "path": paths}))
    assert source.kind == "image"
    assert whole(source)["image"].to_pylist() == [png()] * 4
    images = {"bbox": boxes, "label": LABELS, "image": [png()] * 4}
    assert opened(save(tmp_path / "i.parquet", images)).kind == "image"


def test_empty_partitions(tmp_path: Path) -> None:
    save(tmp_path / "d" / "0.parquet", {"feature": pa.array([], pa.null()), "label": pa.array([], pa.null())})
    save(tmp_path / "d" / "1.parquet", {"feature": VALUES.tolist(), "label": LABELS})
    save(tmp_path / "d" / "2.parquet", {"other": pa.array([], pa.int8())})
    assert whole(opened(tmp_path / "d"))["uri"].to_pylist() == [f"1.parquet#{row}" for row in range(4)]


def test_hive_folders(tmp_path: Path) -> None:
    for label in ("a", "c%20d", "__HIVE_DEFAULT_PARTITION__"):
        save(tmp_path / f"label={label}" / "x.parquet", {"feature": VALUES[:2].tolist()})
    table = whole(opened(tmp_path), 2)
    assert table["label"].to_pylist() == [None, None, "a", "a", "c d", "c d"]
    assert table["uri"][2].as_py() == "label=a/x.parquet#0"


def test_a_repository_of_a_data_set(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "x")
    for split, rows in (("train", slice(0, 3)), ("test", slice(3, 4))):
        columns = {"feature": VALUES[rows].tolist(), "label": LABELS[rows]}
        save(tmp_path / "data" / f"{split}-00000-of-00001.parquet", columns)
    source = opened(tmp_path)
    assert source.num_rows == 4
    assert source.notes == ("The splits test, train are read together; --split takes one.",)
    assert opened(tmp_path, split="train").num_rows == 3
    with pytest.raises(
        DataError, match=r"files of a split 'dev' in .*, but got the files data/test-.*; leave out --spl"
    ):
        opened(tmp_path, split="dev")
    write(tmp_path / "data" / "test-00000-of-00001.parquet", LFS_HEAD + b"v1\noid sha256:0\nsize 9\n")
    with pytest.raises(DataError, match=r"got a pointer of Git LFS, not the file; run git lfs pull"):
        opened(tmp_path)


@pytest.mark.parametrize("form", ["stream", "file"])
def test_saved_to_disk(tmp_path: Path, form: str) -> None:
    table = pa.table({"feature": VALUES.tolist(), "label": LABELS})
    write(tmp_path / "state.json", "{}")
    writer = ipc.new_stream if form == "stream" else ipc.new_file
    with writer(tmp_path / "data-00000-of-00001.arrow", table.schema) as sink:
        sink.write_table(table, max_chunksize=3)
    np.testing.assert_array_equal(vectors(opened(tmp_path), 2), VALUES)
    write(tmp_path / "data-00000-of-00001.arrow", b"ARROW1 but then no more")
    with pytest.raises(DataError, match=r"data-00000-of-00001.arrow to be a readable Arrow file"):
        opened(tmp_path)


def test_images_at_the_paths_of_structs(tmp_path: Path) -> None:
    write(tmp_path / "img" / "x.png", png(5))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    given = [{"bytes": None, "path": "img/x.png"}, {"bytes": png(), "path": "x"}, {"bytes": None, "path": "no.png"}]
    columns = {"image": pa.array([*given, {"bytes": None, "path": None}], kind), "label": LABELS}
    table = whole(opened(save(tmp_path / "t.parquet", columns)))
    assert table["image"].to_pylist() == [png(5), png(), None, None]
    assert table["error"].to_pylist() == [None, None, "missing file", None]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("folder", ["", "train/"])
def test_a_list_of_labels_beside_images(tmp_path: Path, name: str, folder: str) -> None:
    lines = {"metadata.csv": "file_name,label\nx.png,a\n", "metadata.jsonl": '{"file_name": "x.png", "label": "a"}\n'}
    write(tmp_path / f"{folder}x.png", png())
    write(tmp_path / f"{folder}{name}", lines[name])
    source = opened(tmp_path)
    assert source.name == "metadata"
    table = whole(source)
    assert table.select(["uri", "label", "image", "error"]).to_pylist() == [
        {"uri": f"{folder}x.png", "label": "a", "image": png(), "error": None}
    ]
    if folder:
        write(tmp_path / "test" / name, lines[name])
        with pytest.raises(
            DataError, match=r"one list of labels in .*, but got test/.*, train/.*; choose one with --sp"
        ):
            opened(tmp_path)
        assert opened(tmp_path, split="train").num_rows == 1
