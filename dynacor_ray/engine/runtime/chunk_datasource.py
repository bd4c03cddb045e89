"""Rows that are read piece by piece, such as parquet files of ours, as a lazy Ray Data set.

The names of files are known, so nothing is listed and no footer is read ahead: `ray.data.read_parquet` starts up to 32
actors for that each time a data set is executed; six had started before the one file of 1,001 rows was read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset as Dataset
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from dynacor_ray.core.storage import Location
from dynacor_ray.engine.runtime.chunks import Read, chunk_order


class ChunkDatasource(Datasource):
    """One read task per piece, each small enough to be read whole.

    shuffled: the pieces come in another order each time the data set is executed, the same orders in every process.
    """

    def __init__(self, reads: Sequence[Read], shuffled: bool) -> None:
        self._reads, self._shuffled = list(reads), shuffled
        self._executions = 0

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known, and not needed: the number of blocks is given."""
        return None

    def get_read_tasks(self, parallelism, per_task_row_limit=None, data_context=None):  # type: ignore[no-untyped-def]
        """A task per piece, whatever the parallelism."""
        order = np.arange(len(self._reads))
        if self._shuffled:
            order = chunk_order(len(self._reads), self._executions)
            self._executions += 1
        about = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        reads = [functools.partial(_releasing, self._reads[index]) for index in order]
        return [ReadTask(read, about, per_task_row_limit=per_task_row_limit) for read in reads]


def _releasing(read: Read) -> Iterator[pa.Table]:
    """The same; then memory is given back, of which Arrow would keep several times a piece in a process that idles."""
    yield from read()
    pa.default_memory_pool().release_unused()


def read_chunks(reads: Sequence[Read], shuffled: bool, num_cpus: float) -> ray.data.Dataset:
    """What each of `reads` yields, in a task of its own, as a lazy data set. num_cpus: of such a task."""
    return ray.data.read_datasource(ChunkDatasource(reads, shuffled), num_cpus=num_cpus, override_num_blocks=len(reads))


def read_parquet(files: Sequence[Location]) -> Dataset:
    """Parquet files on one file system as a lazy data set."""
    return ray.data.read_parquet([place.path for place in files], filesystem=files[0].filesystem, partitioning=None)
