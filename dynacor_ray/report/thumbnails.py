"""Small copies of images for the report, decoded and encoded anew: no byte of a source file passes through."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import ImageError, load_rgb
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import Location, retry_transient

SIDE = 112
"""Longest side of a thumbnail in pixels."""
_QUALITY = 80
READ_BYTES = 2 << 30
"""Most bytes to read of the packed images: the rows shown may lie far apart, and images are read in groups."""


@dataclass(frozen=True)
class _Group:
    """A row group of a packed file with some of the requested rows.

    Attributes:
        part: name of the file.
        index: number of the row group.
        size: bytes of its images.
        rank: position of the first of its rows in the request.
    """

    part: str
    index: int
    size: int
    rank: int


def thumbnail(image: bytes, side: int = SIDE) -> str | None:
    """A `data:` URI of the image's center square as JPEG, `side` pixels wide; None when it cannot be decoded."""
    try:
        pixels = load_rgb(image, side)
    except ImageError:
        return None
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def read_thumbnails(
    dataset: PackedDataset, ids: Sequence[int], most_bytes: int = READ_BYTES, side: int = SIDE
) -> dict[int, str]:
    """Thumbnails by instance_id. An image that cannot be decoded is left out. One row group is in memory at a time.

    Args:
        dataset: the packed images.
        ids: instances in order of priority.
        most_bytes: most bytes to read; what does not fit is left out.
        side: width in pixels.
    """
    side = min(side, dataset.manifest.max_side or side)
    small = ((i, thumbnail(image, side)) for i, image in read_images(dataset, ids, most_bytes))
    return {instance_id: text for instance_id, text in small if text is not None}


def read_images(
    dataset: PackedDataset, ids: Sequence[int], most_bytes: int = READ_BYTES
) -> Iterator[tuple[int, bytes]]:
    """instance_id and packed image of as many of `ids` as `most_bytes` allow; the first have priority."""
    left = most_bytes
    for group in sorted(_groups(dataset, ids), key=lambda group: group.rank):
        if group.size > left:
            break
        left -= group.size
        yield from _images(dataset.folder / group.part, group.index, set(ids))


def _groups(dataset: PackedDataset, ids: Sequence[int]) -> Iterator[_Group]:
    ordered, rank = np.unique(np.asarray(ids, np.int64), return_index=True)
    for part in dataset.manifest.parts:
        if not _within(ordered, part.first_id, part.last_id).any():
            continue
        with (dataset.folder / part.name).parquet() as file:
            for index in range(file.num_row_groups):
                if not _within(ordered, *_id_range(file, index)).any():
                    continue
                group_ids = file.read_row_group(index, [schema.INSTANCE_ID])[schema.INSTANCE_ID].to_numpy()
                ranks = rank[np.isin(ordered, group_ids)]
                if len(ranks):
                    size = sum(column.total_compressed_size for column in _columns(file, index, schema.IMAGE))
                    yield _Group(part.name, index, size, int(ranks.min()))


def _within(ids: np.ndarray, first: int, last: int) -> np.ndarray:
    return (ids >= first) & (ids <= last)


def _id_range(file: pq.ParquetFile, index: int) -> tuple[int, int]:
    """Smallest and largest id of a row group by its statistics, which saves reading most groups."""
    statistics = next(_columns(file, index, schema.INSTANCE_ID)).statistics
    known = statistics is not None and statistics.has_min_max
    return (statistics.min, statistics.max) if known else (0, schema.MAX_INSTANCE_ID)


def _columns(file: pq.ParquetFile, index: int, name: str) -> Iterator[Any]:
    """Metadata of the columns of this name in a row group."""
    group = file.metadata.row_group(index)
    columns = (group.column(i) for i in range(group.num_columns))
    return (column for column in columns if column.path_in_schema == name)


@retry_transient
def _group_rows(place: Location, index: int) -> pa.Table:
    with place.parquet() as file:
        return file.read_row_group(index, [schema.INSTANCE_ID, schema.IMAGE])


def _images(place: Location, index: int, ids: set[int]) -> Iterator[tuple[int, bytes]]:
    rows = _group_rows(place, index)
    for row, instance_id in enumerate(rows[schema.INSTANCE_ID].to_pylist()):
        if instance_id in ids:
            yield instance_id, rows[schema.IMAGE][row].as_py()
