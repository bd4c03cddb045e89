"""Small files that claim to be huge: refused, within memory."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core.errors import DataError, DynacorError
from dynacor_ray.core.image_decoding import ImageError, load_rgb, probe
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data import ingest
from dynacor_ray.sources import piece_memory, row_files
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from tests.opened_sources import opened, save

ROWS = 260_000


@pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream], ids=["file", "stream"])
@pytest.mark.parametrize("packed", ["image", "dictionary", "nothing"])
def test_packed_batches_are_measured_before_they_are_unpacked(
    make: Callable[..., Any], packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 kB of them took 6.2 GB."""
    monkeypatch.setattr(row_files, "_MOST_UNPACKED", 1 << 20)
    images = pa.array([bytes(1 << 19)] * 4, pa.large_binary())
    columns = {"label": list("abab"), "image": images.dictionary_encode() if packed == "dictionary" else images}
    if packed == "dictionary":
        columns["image"] = pa.array([bytes([n]) * (1 << 19) for n in range(4)]).dictionary_encode()
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=None if packed == "nothing" else "zstd")
    with make(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    if packed == "nothing":
        assert opened(tmp_path / "a.arrow").num_rows == 4
        return
    with pytest.raises(DataError, match=r"batches of a\.arrow that fit into memory, but got one of 2 MiB"):
        opened(tmp_path / "a.arrow")


def test_of_large_packed_batches_one_is_unpacked_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes up to a gigabyte, however small its file."""
    monkeypatch.setattr(piece_memory, "LARGE_BYTES", 1 << 18)
    inside, most, unpack = 0, 0, row_files.ArrowRows.batches

    def watched(*arguments: Any) -> Any:
        nonlocal inside, most
        for batch in unpack(*arguments):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            try:
                yield batch
            finally:
                inside -= 1

    monkeypatch.setattr(row_files.ArrowRows, "batches", watched)
    table = pa.table({"label": list("abab"), "feature": pa.array([[float(row)] * (1 << 15) for row in range(4)])})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for name in "abcd":
        with pa.ipc.new_file(str(tmp_path / f"{name}.arrow"), table.schema, options=options) as writer:
            writer.write_table(table)
    monkeypatch.setattr("dynacor_ray.engine.runtime.tasks.usable_cpus", lambda: 4)
    source = opened(tmp_path)
    inside = most = 0
    assert ingest.count_labels(source.shards(4)) == {"a": 8, "b": 8}
    assert most == 1
    packed = ingest.ingest(source, locate(str(tmp_path / "packed")), 0.0, Progress(quiet=True))
    assert (packed.manifest.num_rows, most) == (16, 1)


def repeated(value: bytes | str) -> pa.Array[pa.DataType]:
    """One value in every row, as a file holds it: once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(ROWS, np.int32)), pa.array([value]))


@pytest.mark.parametrize(("column", "read"), [("image", "read"), ("label", "read_labels")])
def test_a_repeated_value_is_refused_before_it_fills_memory(
    column: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of some kB that would become 3.1 GB of images or labels."""
    monkeypatch.setattr(piece_memory, "MAX_BYTES", 64 << 20)
    value = bytes(12_000) if column == "image" else "x" * 12_000
    columns = {"image": repeated(b"x"), "label": repeated("a")} | {column: repeated(value)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    (shard,) = opened(tmp_path / "a.parquet").shards(10**6)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match=r"rows of a\.parquet that fit into memory, but got more than 64 MiB in fewer"):
        getattr(shard, read)()
    assert pa.default_memory_pool().max_memory() <= max(before, 256 << 20)


def test_a_huge_value_in_a_dictionary_is_read_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "_BATCH_BYTES", 1 << 20)
    monkeypatch.setattr(piece_memory, "MAX_BYTES", 3 << 20)
    columns = {"image": repeated(bytes(900_000)), "label": repeated("a")}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", compression="zstd", store_schema=False)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DataError, match="that fit into memory"):
        open_source(str(tmp_path / "a.parquet"), SourceOptions()).shards(10**6)[0].read()
    assert pa.default_memory_pool().max_memory() <= max(before, 64 << 20)


def test_many_columns_and_deep_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "MAX_COLUMNS", 1000)
    with pytest.raises(DataError, match=r"at most 1,000 columns in a\.parquet, but got 1,001"):
        opened(save(tmp_path / "a.parquet", {f"c{i}": [1] for i in range(1001)}))
    kind = pa.float32()
    for _ in range(1000):
        kind = pa.struct([("x", kind)])
    pq.write_table(pa.table({"label": ["a"], "feature": pa.nulls(1, kind)}), tmp_path / "deep.parquet")
    with pytest.raises(DynacorError):
        opened(tmp_path / "deep.parquet", feature_column="feature")


@pytest.mark.parametrize("text", ["<svg xmlns='http://www.w3.org/2000/svg'/>", "%PDF-1.7", "%!PS-Adobe-3.0 EPSF-3.0"])
def test_documents_that_pose_as_images(text: str) -> None:
    with pytest.raises(ImageError, match="not an image"):
        probe(text.encode())


def test_of_a_long_animation_one_frame_is_read() -> None:
    """10^5 frames of 300 x 300 would be 27 GB."""
    frames = [Image.new("L", (300, 300), shade) for shade in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    whole = buffer.getvalue()
    start = whole.rindex(b"\x21\xf9")
    data = whole[:start] + whole[start:-1] * 100_000 + b";"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (probe(data).width, load_rgb(data).shape) == (300, (300, 300, 3))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
