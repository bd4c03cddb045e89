"""Run one function over picklable items as a Ray Data pass, with results coming back as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray import cloudpickle

from dynacor_ray.core.progress import Stage
from dynacor_ray.engine.runtime.session import remote_errors

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
    """One block per item, so that one task takes one item and sees no other.

    Blocks in memory, since a read task would ask for a whole CPU of its own and wait for ever beside a pool of actors.
    The items are pickled by this process for its own tasks; nothing of it comes from a file.
    """
    return ray.data.from_arrow([pa.table({ITEM: pa.array([cloudpickle.dumps(i)], pa.binary())}) for i in items])


def items_of(block: pa.Table) -> list[Any]:
    """The items in a block of `items_dataset`."""
    return [cloudpickle.loads(item) for item in block[ITEM].to_pylist()]


def parallel_map(function: Callable[[Any], Any], items: Sequence[Any], num_cpus: float = 1.0) -> Iterator[Any]:
    """Yield `function(item)` for every item, in any order, one Ray task each. Items and results must be small."""
    if not items:
        return

    def work(block: pa.Table) -> dict[str, np.ndarray]:
        return one_column([function(item) for item in items_of(block)])

    yield from results(items_dataset(items).map_batches(work, batch_format="pyarrow", batch_size=1, num_cpus=num_cpus))


def map_shared(
    function: Callable[[Any, Any], Any], shared: Any, items: Sequence[Any], bar: Stage
) -> Iterator[tuple[Any, Any]]:
    """Yield every item with `function(shared, item)` as it is done, one Ray task with one thread each.

    `shared` may be large: it goes to the object store once and not with each task. bar: advanced by 1 per item.
    """
    known = ray.put(shared)

    @ray.remote(num_cpus=1)
    def run(shared: Any, item: Any) -> Any:
        import torch

        torch.set_num_threads(1)
        return function(shared, item)

    tasks = {run.remote(known, item): item for item in items}
    while tasks:
        (done,), _ = ray.wait(list(tasks), num_returns=1)
        with remote_errors():
            result = ray.get(done)
        bar.advance(1)
        yield tasks.pop(done), result
