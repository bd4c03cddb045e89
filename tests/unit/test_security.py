"""Untrusted data on its way through a run: nothing of it is executed, leads out of its folder, blocks, or lies.

What one module refuses by itself is tested beside that module.
"""

from __future__ import annotations

import codecs
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray
from ray.data._internal.tensor_extensions.arrow import ArrowTensorTypeV2

from dynacor_ray.core.errors import DataError, DynacorError
from dynacor_ray.engine.data.ingest import count_labels
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.sources.validate import Validated, build_vocabulary, feature_dim_of, validate_rows
from tests.opened_sources import png, save

LABELS, FEATURES = list("abab"), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]


class Trap:
    """Makes a directory where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def looked_at(data: Path, **options: Any) -> Validated:
    """All that a run does with the rows of a small source before training."""
    source = open_source(str(data), SourceOptions(**options))
    (shard,) = source.shards(1000)
    vocabulary, table = build_vocabulary(count_labels([shard]), source), shard.read()
    return validate_rows(table, source.kind, vocabulary, feature_dim_of(table) if source.kind == "feature" else None)


@pytest.mark.parametrize("place", ["label", "image", "feature", "uri", "true_label", "instance_id", "second file"])
def test_python_objects_in_parquet_are_not_unpickled(tmp_path: Path, place: str) -> None:
    """Ray registers a type whose values are pickles; such a column is refused, or ignored where it is not needed."""
    objects = ArrowPythonObjectArray.from_objects([Trap(tmp_path / "trace")] * 4)
    columns: dict[str, Any] = {"label": LABELS, "feature": FEATURES}
    options: dict[str, Any] = {}
    if place == "image":
        del columns["feature"]
    if place == "second file":
        save(tmp_path / "data" / "a.parquet", {"label": LABELS, "uri": LABELS})
        save(tmp_path / "data" / "b.parquet", {"label": objects, "uri": LABELS})
    else:
        if place == "feature":
            objects, options = pa.ListArray.from_arrays([0, 1, 2, 3, 4], objects), {"feature_column": "feature"}
        save(tmp_path / "data" / "a.parquet", columns | {place: objects})
    if place == "uri":
        assert looked_at(tmp_path / "data").rows["uri"].to_pylist() == [f"a.parquet#{i}" for i in range(4)]
        options = {"uri_column": "uri"}
    with pytest.raises(DataError):
        looked_at(tmp_path / "data", **options)
    assert not (tmp_path / "trace").exists()


def test_a_type_described_by_a_pickle_is_refused(tmp_path: Path) -> None:
    """Ray 2.49 to 2.54 described the shape of its tensors by a pickle, and unpickled it when a file was opened."""
    storage_type = pa.large_list(pa.float32())
    described = {
        b"ARROW:extension:name": ArrowTensorTypeV2((2,), pa.float32()).extension_name.encode(),
        b"ARROW:extension:metadata": pickle.dumps(Trap(tmp_path / "trace")),
    }
    fields = [pa.field("label", pa.string()), pa.field("feature", storage_type, metadata=described)]
    table = pa.Table.from_arrays([pa.array(LABELS), pa.array(FEATURES, storage_type)], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet to be a readable parquet file"):
        looked_at(tmp_path / "a.parquet")
    assert not (tmp_path / "trace").exists()


def test_what_a_table_may_name(tmp_path: Path) -> None:
    """Any file or URI, since it is a list of where images lie; but no chain of protocols, and only images are kept."""
    (tmp_path / "table").mkdir()
    (tmp_path / "near.png").write_bytes(png())
    (tmp_path / "secret.txt").write_text("secret")
    errors = {
        "../near.png": None,
        f"{tmp_path}/near.png": None,
        f"file://{tmp_path}/near.png": None,
        "../secret.txt": "not an image",
        f"filecache::file://{tmp_path}/near.png": "chain of protocols",
        f"zip://near.png::{tmp_path}/x.zip": "chain of protocols",
        "reference://x": "unknown or unreachable storage",
        "/dev/zero": "not a regular file",
    }
    lines = "".join(f"{uri},{'ab'[row % 2]}\n" for row, uri in enumerate(errors))
    (tmp_path / "table" / "t.csv").write_text("uri,label\n" + lines)
    checked = looked_at(tmp_path / "table" / "t.csv")
    reasons = dict(zip(checked.quarantine["uri"].to_pylist(), checked.quarantine["reason"].to_pylist(), strict=True))
    assert reasons == {uri: error for uri, error in errors.items() if error}
    assert checked.rows["image"].to_pylist() == [png()] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["near.png", "secret.txt", "table"]


def test_links_in_circles_end(tmp_path: Path) -> None:
    """Three links to their own folder would be walked 3^40 times; a link to files elsewhere is followed once."""
    save(tmp_path / "data" / "a.parquet", {"label": LABELS, "feature": FEATURES})
    save(tmp_path / "more" / "b.parquet", {"label": LABELS, "feature": FEATURES})
    for name in ("x", "y", "z"):
        os.symlink(".", tmp_path / "data" / name)
        os.symlink(tmp_path / "more", tmp_path / "data" / f"more-{name}")
    checked = looked_at(tmp_path / "data" / "a.parquet")
    assert checked.rows.num_rows == 4
    source = open_source(str(tmp_path / "data"), SourceOptions())
    assert source.num_rows == 8
    assert [shard.read()["uri"][0].as_py() for shard in source.shards(4)] == ["a.parquet#0", "more-x/b.parquet#0"]


@pytest.mark.parametrize("name", ["t.csv", "a.parquet", "noisy_train_key_list.txt", "noisy_label_kv.txt"])
def test_pipes_and_devices_do_not_block(tmp_path: Path, name: str) -> None:
    data = tmp_path if name.endswith(".txt") else tmp_path / name
    (tmp_path / "noisy_train_key_list.txt").write_text("a.jpg\n")
    (tmp_path / "noisy_label_kv.txt").write_text("a.jpg 1\n")
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        (tmp_path / name).unlink(missing_ok=True)
        make(tmp_path / name)
        with pytest.raises(DynacorError, match=r"a regular file|parquet files"):
            open_source(str(data), SourceOptions())


@pytest.mark.parametrize("key", ["class_names", "huggingface"])
def test_deep_json_in_a_footer(tmp_path: Path, key: str) -> None:
    data = save(tmp_path / "a.parquet", {"label": LABELS, "feature": FEATURES}, {key: "[" * 200_000})
    if key == "huggingface":
        assert looked_at(data).rows.num_rows == 4
        return
    with pytest.raises(DataError, match="a JSON list of strings as class_names"):
        looked_at(data)


def test_class_names_are_short_and_few_columns_are_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at most 500 characters, but got one of 100,000; .*--label-column"):
        looked_at(save(tmp_path / "a.parquet", {"label": ["x" * 100_000, "y"] * 2, "feature": FEATURES}))
    with pytest.raises(DataError, match="and 2,980 more; name it") as caught:
        looked_at(save(tmp_path / "b.parquet", {f"column {i}": [1] for i in range(3000)}))
    assert len(str(caught.value)) < 2000


def test_errors_about_hostile_names_are_printable(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        looked_at(save(tmp_path / "a.parquet", {"la\x1b]0;owned\x07bel": [1], "feature": [[1.0]]}))
    assert str(caught.value).isprintable()
    (tmp_path / "b.csv").write_bytes(b'uri,label\n"\x1b[31m,a\n')
    with pytest.raises(DataError) as caught:
        looked_at(tmp_path / "b.csv")
    assert str(caught.value).isprintable()


def test_labels_that_are_not_utf_8(tmp_path: Path) -> None:
    """A file may claim text and hold other bytes: they become U+FFFD, and stop nothing."""
    raw = pa.array([b"caf\xe9", b"tea", b"caf\xe9", b"tea"])
    text = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    checked = looked_at(save(tmp_path / "a.parquet", {"label": text, "uri": text, "feature": FEATURES}))
    assert checked.rows["given_label"].to_pylist() == [0, 1, 0, 1]
    assert checked.rows["uri"].to_pylist() == ["caf\ufffd", "tea"] * 2


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_paths_and_labels_that_are_not_utf_8(kind: str, tmp_path: Path) -> None:
    """The first values of a column of text are looked at, too: whether they name images."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png())
    columns = {"path": [b"a.png", b"caf\xe9.png", b"b.png", b"b.png"], "label": [b"caf\xe9", b"x", b"x", b"caf\xe9"]}
    data = tmp_path / f"t.{kind}"
    if kind == "jsonl":
        lines = zip(*columns.values(), strict=True)
        data.write_bytes(b"".join(b'{"path": "%s", "label": "%s"}\n' % line for line in lines))
    else:
        raw = {name: pa.array(values).buffers() for name, values in columns.items()}
        save(data, {name: pa.Array.from_buffers(pa.string(), 4, buffers) for name, buffers in raw.items()})
    rows = open_source(str(data), SourceOptions()).shards(4)[0].read()
    assert rows["label"].to_pylist() == ["caf\ufffd", "x", "x", "caf\ufffd"]
    assert rows["uri"].to_pylist() == ["a.png", "caf\ufffd.png", "b.png", "b.png"]
    assert rows["error"].to_pylist() == [None, "missing file", None, None]


def test_a_table_in_text_that_says_to_be_utf_8_and_is_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(codecs.BOM_UTF8 + b"path,label\ncaf\xe9.png,x\na.png,y\n")
    with pytest.raises(DataError, match=r"t\.csv to be a table in text, but got '.*UTF8.*'; correct the file"):
        open_source(str(tmp_path / "t.csv"), SourceOptions())


REPORTS = """
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.engine.runtime.mlflow_client import check_tracking
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage import usage_lib
reports = not is_telemetry_disabled()
try:
    check_tracking("nowhere://x")
except ConfigError:
    print(reports, not is_telemetry_disabled(), usage_lib.usage_stats_enabled())
"""


def test_no_library_reports_its_use() -> None:
    """MLflow would, until it is asked for here, and Ray; neither in a test of its own or on a machine for tests."""
    pytest.importorskip("mlflow")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command, environment = (
        [sys.executable, "-W", "ignore", "-c", REPORTS],
        kept | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=100)
    assert told.stdout.split() == ["True", "False", "False"]
