"""Parquet files of ours as a lazy Ray Data set.

Their names are known, so nothing is listed and no footer is read ahead: `ray.data.read_parquet` starts up to 32 actors
for that each time a data set is executed, which took longer than the reading of a million rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from dynacor_ray.storage import Location


class PartFiles(Datasource):
    """One read task per file, each small enough to be read whole.

    shuffled: the files come in another order each time the data set is executed, the same orders in every run.
    """

    def __init__(self, files: Sequence[Location], columns: Sequence[str], shuffled: bool) -> None:
        self._files, self._columns, self._shuffled = list(files), list(columns), shuffled
        self._executions = 0

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known, and not needed: the number of blocks is given."""
        return None

    def get_read_tasks(self, parallelism, per_task_row_limit=None, data_context=None):  # type: ignore[no-untyped-def]
        """A task per file, whatever the parallelism."""
        order = np.arange(len(self._files))
        if self._shuffled:
            order = np.random.Generator(np.random.PCG64(self._executions)).permutation(order)
            self._executions += 1
        return [self._task(self._files[index], per_task_row_limit) for index in order]

    def _task(self, file: Location, limit: int | None) -> ReadTask:
        about = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=(file.path,))
        return ReadTask(functools.partial(_read, file, self._columns), about, per_task_row_limit=limit)


def _read(file: Location, columns: list[str]) -> Iterator[pa.Table]:
    yield file.read_table(columns)


def read_parts(files: Sequence[Location], columns: Sequence[str], shuffled: bool, num_cpus: float) -> ray.data.Dataset:
    """Columns of parquet files as a lazy data set. num_cpus: of a task that reads one of them."""
    source = PartFiles(files, columns, shuffled)
    return ray.data.read_datasource(source, num_cpus=num_cpus, override_num_blocks=len(files))
