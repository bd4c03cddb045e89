"""Run one function over items as a Ray Data pass, or in threads here, with results coming back as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dynacor_ray.engine.runtime.blocks import tables_of
from dynacor_ray.engine.runtime.session import on_cluster
from dynacor_ray.engine.runtime.tasks import map_threads

if TYPE_CHECKING:
    import ray

ITEM, RESULT = "item", "result"


def one_column(values: Sequence[Any], name: str = RESULT) -> pa.Table:
    """A block that carries small Python values between the driver and tasks.

    Pickled by these processes for each other; nothing of it comes from a file. Not as Python objects: Ray Data turns a
    None beside texts into a NaN.
    """
    from ray import cloudpickle

    return pa.table({name: pa.array([cloudpickle.dumps(value) for value in values], pa.binary())})


def values_of(block: pa.Table, name: str) -> list[Any]:
    """The values in a block of `one_column`."""
    from ray import cloudpickle

    return [cloudpickle.loads(value) for value in block[name].to_pylist()]


def results(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Execute a data set and yield the small Python values of its column `RESULT` as they arrive."""
    for block in tables_of(dataset):
        yield from values_of(block, RESULT)


def items_dataset(items: Sequence[Any]) -> ray.data.Dataset:
    """One block per item on a cluster, so that one task takes one item and sees no other.

    Blocks in memory, since a read task would ask for a whole CPU of its own and wait for ever beside a pool of actors.
    """
    import ray

    return ray.data.from_arrow([one_column([item], ITEM) for item in items])


def items_of(block: pa.Table) -> list[Any]:
    """The items in a block of `items_dataset`."""
    return values_of(block, ITEM)


def parallel_map(function: Callable[[Any], Any], items: Sequence[Any], num_cpus: float = 1.0) -> Iterator[Any]:
    """Yield `function(item)` for every item, in any order; items and results must be small.

    num_cpus: of the Ray task that each is on a cluster; in one process each runs in one of as many threads as CPUs.
    """
    if not items:
        return
    if not on_cluster():
        yield from map_threads(function, items)
        return

    def work(block: pa.Table) -> pa.Table:
        return one_column([function(item) for item in items_of(block)])

    yield from results(items_dataset(items).map_batches(work, batch_format="pyarrow", batch_size=1, num_cpus=num_cpus))
