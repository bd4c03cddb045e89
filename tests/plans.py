"""A cluster that there is not: its machines, how a training is spread over them, and the rows that a worker gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dynacor_ray.engine.runtime.machine import Resources
from dynacor_ray.engine.training.job import TrainPlan


def plan_of(workers: int = 1, **options: Any) -> TrainPlan:
    """One thread and all rows in memory, unless told otherwise."""
    plain: dict[str, Any] = {
        "min_workers": workers,
        "use_gpu": False,
        "cpus_per_worker": 1.0,
        "threads": 1,
        "cache_bytes": 1 << 40,
        "checkpoint_seconds": 1.0,
        "max_failures": 0,
    }
    return TrainPlan(workers=workers, **plain | options)


def machine(**have: Any) -> Resources:
    """One machine with eight CPUs, unless told otherwise."""
    known = {"cpus": 8.0, "gpus": 0.0, "memory_bytes": 64e9, "nodes": 1, "object_store_bytes": 1e9}
    return Resources(**known | have)


class Share:
    """A rank's rows, handed out as Ray Data does: batches of the size asked for, the last with what is left."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def iter_batches(self, batch_size: int | None, batch_format: str, prefetch_batches: int = 1) -> Iterator[pa.Table]:
        assert batch_format == "pyarrow"
        size = batch_size or max(1, self.rows.num_rows // 2)  # without one: block by block
        for start in range(0, self.rows.num_rows, size):
            yield self.rows.slice(start, size)
