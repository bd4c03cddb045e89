"""Sources opened and read whole, and small files for them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.registry import open_source

OUTSIDE = "points outside the data root"
FEATURES = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def opened(path: Any, **options: Any) -> Source:
    return open_source(str(path), SourceOptions(**options))


def whole(source: Source, max_rows: int = 3) -> pa.Table:
    """All rows, read shard by shard after a journey through pickle; labels agree with the labels-only read."""
    shards = pickle.loads(pickle.dumps(source.shards(max_rows)))
    parts = [shard.read() for shard in shards]
    for shard, part in zip(shards, parts, strict=True):
        assert part.num_rows == shard.num_rows <= max_rows
        assert shard.read_labels().to_pylist() == part["label"].to_pylist()
    table = pa.concat_tables(parts)
    assert table["row"].to_pylist() == list(range(source.num_rows))
    return table


def pairs(table: pa.Table, first: str, second: str) -> dict[Any, Any]:
    return dict(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def save(path: Path, columns: dict[str, Any], metadata: dict[str, str] | None = None, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, **options)
    return path
