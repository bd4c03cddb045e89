"""Run one function over items as a Ray Data pass, or in threads here, with results coming back as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dynacor_ray.engine.runtime.session import on_cluster, remote_errors
from dynacor_ray.engine.runtime.tasks import map_threads

if TYPE_CHECKING:
    import ray

ITEM, RESULT = "item", "result"


def one_column(values: list[Any]) -> dict[str, np.ndarray]:
    """A block that carries small Python values back to the driver."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return {RESULT: column}


def results(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Execute a data set and yield the small Python values of its column `RESULT` as they arrive."""
    with remote_errors():
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            yield from block[RESULT]


def items_dataset(items: Sequence[Any]) -> ray.data.Dataset:
    """One block per item on a cluster, so that one task takes one item and sees no other.

    Blocks in memory, since a read task would ask for a whole CPU of its own and wait for ever beside a pool of actors.
    The items are pickled by this process for its own tasks; nothing of it comes from a file.
    """
    import ray
    from ray import cloudpickle

    return ray.data.from_arrow([pa.table({ITEM: pa.array([cloudpickle.dumps(i)], pa.binary())}) for i in items])


def items_of(block: pa.Table) -> list[Any]:
    """The items in a block of `items_dataset`."""
    from ray import cloudpickle

    return [cloudpickle.loads(item) for item in block[ITEM].to_pylist()]


def parallel_map(function: Callable[[Any], Any], items: Sequence[Any], num_cpus: float = 1.0) -> Iterator[Any]:
    """Yield `function(item)` for every item, in any order; items and results must be small.

    num_cpus: of the Ray task that each is on a cluster; in one process each runs in one of as many threads as CPUs.
    """
    if not items:
        return
    if not on_cluster():
        yield from map_threads(function, items)
        return

    def work(block: pa.Table) -> dict[str, np.ndarray]:
        return one_column([function(item) for item in items_of(block)])

    yield from results(items_dataset(items).map_batches(work, batch_format="pyarrow", batch_size=1, num_cpus=num_cpus))
