"""The training rows as Ray Train splits them among its workers: no row is lost, and all ranks step equally."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import ray
from ray.data import ExecutionOptions
from ray.train import DataConfig

from dynacor_ray.core import schema
from dynacor_ray.method.corruption import LABEL

PADDING_KEY = -1


class PaddedDataConfig(DataConfig):
    """Adds `missing_rows` with key -1 so that Ray's equal split loses no row and all ranks step equally."""

    def __init__(self, total: int, dim: int, value_type: str = "float32", weighted: bool = False) -> None:
        options = ExecutionOptions(preserve_order=True)
        super().__init__(execution_options=options)
        self._total, self._row = total, (dim, value_type, weighted)

    def configure(self, datasets, world_size, worker_handles, worker_node_ids, **kwargs):  # type: ignore[no-untyped-def]
        """Pad every data set, then split as Ray does."""
        missing = missing_rows(self._total, world_size)
        if missing:
            padding = ray.data.from_arrow(padding_rows(missing, *self._row))
            datasets = {name: rows.union(padding) for name, rows in datasets.items()}
        return super().configure(datasets, world_size, worker_handles, worker_node_ids, **kwargs)


def missing_rows(total: int, world_size: int) -> int:
    """What `total` lacks to the next multiple of `world_size`."""
    return -total % world_size


def padding_rows(count: int, dim: int, value_type: str = "float32", weighted: bool = False) -> pa.Table:
    """Rows that take part in a step with weight 0 and leave no signal."""
    column = schema.feature_column if value_type == "float32" else schema.fixed_size_list
    weight = {schema.WEIGHT: pa.array(np.zeros(count, np.float32))} if weighted else {}
    return pa.table(
        {
            schema.KEY: pa.array(np.full(count, PADDING_KEY, np.int64)),
            LABEL: pa.array(np.zeros(count, np.int32)),
            schema.FEATURE: column(np.zeros((count, dim), value_type)),
        }
        | weight
    )
