"""Small copies of images for the report, decoded and encoded anew: no byte of a source file gets through."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import ImageError, load_rgb
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import Location

SIDE = 112
"""Longest side of a thumbnail in pixels."""
_QUALITY = 80
READ_BYTES = 2 << 30
"""Most that is read of the packed images: rows that are shown may lie far apart, and images are read in groups."""


@dataclass(frozen=True)
class _Group:
    """A row group of a packed file that holds rows in demand. rank: place of the first of them in the demand."""

    part: str
    index: int
    size: int
    rank: int


def thumbnail(image: bytes, side: int = SIDE) -> str | None:
    """A `data:` URI of the image's center square, `side` pixels wide, as JPEG; None when it cannot be decoded."""
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
    """Thumbnails by instance_id, for as many of `ids` as can be had by reading `most_bytes`; the first go first.

    An image that cannot be decoded is left out. One group of rows is held at a time.
    """
    side = min(side, dataset.manifest.max_side or side)
    small = ((i, thumbnail(image, side)) for i, image in read_images(dataset, ids, most_bytes))
    return {instance_id: text for instance_id, text in small if text is not None}


def read_images(
    dataset: PackedDataset, ids: Sequence[int], most_bytes: int = READ_BYTES
) -> Iterator[tuple[int, bytes]]:
    """instance_id and packed image, as it is, of as many of `ids` as can be had by reading `most_bytes`."""
    left = most_bytes
    for group in sorted(_groups(dataset, ids), key=lambda group: group.rank):
        if group.size > left:
            break
        left -= group.size
        yield from _images(dataset.folder / group.part, group.index, set(ids))


def _groups(dataset: PackedDataset, ids: Sequence[int]) -> Iterator[_Group]:
    wanted, rank = np.unique(np.asarray(ids, np.int64), return_index=True)
    for part in dataset.manifest.parts:
        if not _within(wanted, part.first_id, part.last_id).any():
            continue
        with (dataset.folder / part.name).parquet() as file:
            for index in range(file.num_row_groups):
                if not _within(wanted, *_id_range(file, index)).any():
                    continue
                here = file.read_row_group(index, [schema.INSTANCE_ID])[schema.INSTANCE_ID].to_numpy()
                places = rank[np.isin(wanted, here)]
                if len(places):
                    yield _Group(part.name, index, _image_bytes(file, index), int(places.min()))


def _within(ids: np.ndarray, first: int, last: int) -> np.ndarray:
    return (ids >= first) & (ids <= last)


def _id_range(file: pq.ParquetFile, index: int) -> tuple[int, int]:
    """Smallest and largest id of a row group by its statistics, which spare reading most groups."""
    group = file.metadata.row_group(index)
    columns = (group.column(i) for i in range(group.num_columns))
    known = next(column.statistics for column in columns if column.path_in_schema == schema.INSTANCE_ID)
    return (known.min, known.max) if known is not None and known.has_min_max else (0, schema.MAX_INSTANCE_ID)


def _image_bytes(file: pq.ParquetFile, index: int) -> int:
    group = file.metadata.row_group(index)
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(column.total_compressed_size for column in columns if column.path_in_schema == schema.IMAGE)


def _images(place: Location, index: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    with place.parquet() as file:
        rows: pa.Table = file.read_row_group(index, [schema.INSTANCE_ID, schema.IMAGE])
    ids = rows[schema.INSTANCE_ID].to_pylist()
    for place_in_group, instance_id in enumerate(ids):
        if instance_id in wanted:
            yield instance_id, rows[schema.IMAGE][place_in_group].as_py()
