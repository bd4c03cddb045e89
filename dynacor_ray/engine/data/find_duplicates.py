"""Rows with the same image or feature, found by a hash of each row while the data are packed.

Hashes are written with the packed files, in buckets by their value, so that equal ones are in the same bucket; a bucket
is looked through at a time, and no process holds the hashes of all rows of large data.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import find_duplicates
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.core.table_files import read_files
from dynacor_ray.engine.runtime.parallel_map import parallel_map

BUCKET_ROWS = 4_000_000
"""Rows of a bucket: 96 MB of ids and hashes."""
HASHES, DUPLICATES = "hashes", "duplicates"
_WORDS = ("high", "low")


def bucket_count(num_rows: int) -> int:
    """Buckets for the hashes of so many rows."""
    return max(1, -(-num_rows // BUCKET_ROWS))


def row_hashes(rows: Iterable[bytes | pa.Buffer] | np.ndarray) -> np.ndarray:
    """128-bit hash of each row's bytes, uint64 (n, 2). rows: encoded images, or features float32 (n, D)."""
    whole = np.ascontiguousarray(rows).view(np.uint8) if isinstance(rows, np.ndarray) else rows
    digests = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in whole)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def write_hashes(place: Location, ids: np.ndarray, hashes: np.ndarray, buckets: int) -> None:
    """Write the hashes of a packed file: one row group per bucket."""
    bucket = hashes[:, 0] % np.uint64(buckets)

    def write(part: Location) -> None:
        columns = {schema.INSTANCE_ID: pa.array(ids), **dict(zip(_WORDS, map(pa.array, hashes.T), strict=True))}
        table = pa.table(columns)
        with pq.ParquetWriter(part.path, table.schema, filesystem=part.filesystem, compression="none") as writer:
            for number in range(buckets):
                rows = table.filter(pa.array(bucket == number))
                writer.write_table(rows, row_group_size=max(len(rows), 1))

    place.write_atomically(write)


def write_duplicates(place: Location, parts: Sequence[str], num_rows: int) -> str | None:
    """Find the rows with a twin and write their file beside the data.

    Args:
        place: The folder of this attempt, with the hashes of each part.
        parts: Names of the packed files.
        num_rows: That the buckets were made for.

    Returns:
        The file's name below the data set's folder, None without duplicates.
    """
    files = [place / HASHES / posixpath.basename(name) for name in parts]
    find = partial(_find, files, place / DUPLICATES)
    buckets = list(range(bucket_count(num_rows)))
    found = map(find, buckets) if len(buckets) == 1 else parallel_map(find, buckets)
    names = sorted(name for name in found if name is not None)
    (place / HASHES).delete()
    if not names:
        return None
    rows = read_files([place / DUPLICATES / name for name in names])
    (place / f"{DUPLICATES}.parquet").write_table(rows, compression="zstd")
    (place / DUPLICATES).delete()
    return f"{posixpath.basename(place.path)}/{DUPLICATES}.parquet"


@retry_transient
def _bucket(place: Location, bucket: int) -> pa.Table:
    with place.parquet() as file:
        return file.read_row_group(bucket)


def _find(files: Sequence[Location], folder: Location, bucket: int) -> str | None:
    """Write the duplicates of one bucket; the name of their file, None without any."""
    table = pa.concat_tables([_bucket(place, bucket) for place in files])
    hashes = np.stack([table[word].to_numpy() for word in _WORDS], axis=1)
    found = find_duplicates(table[schema.INSTANCE_ID].to_numpy(), hashes)
    if not len(found.ids):
        return None
    name = f"bucket-{bucket:06d}.parquet"
    columns = [pa.array(found.ids), pa.array(found.first)]
    (folder / name).write_table(pa.Table.from_arrays(columns, schema=schema.duplicates_schema()))
    return name
