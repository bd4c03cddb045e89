"""Tables of rows in blocks: those of a Ray data set on a cluster, or in this process's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dynacor_ray.engine.runtime.session import on_cluster, remote_errors
from dynacor_ray.engine.runtime.tasks import Shared, map_threads, one_thread, share

if TYPE_CHECKING:
    import ray

Work = Callable[[pa.Table, Any], pa.Table]


class Blocks(ABC):
    """Arrow tables of equal schema; what is done to them is done when they are read, block by block."""

    @abstractmethod
    def __iter__(self) -> Iterator[pa.Table]:
        """The blocks, one at a time."""

    @abstractmethod
    def map(self, work: Work, shared: Any = None) -> Blocks:
        """`work(block, shared)` of every block, with one thread of torch; `shared` is sent once."""

    @abstractmethod
    def sort(self, columns: Sequence[str]) -> Blocks:
        """All rows in increasing order of the columns."""

    @abstractmethod
    def materialize(self) -> Blocks:
        """The same blocks, made once."""


def tables_of(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Execute a data set and yield its blocks that have rows as they arrive.

    Not by its `iter_batches`, which starts a thread: where nothing is prefetched, or the caller stops early, Ray 2.60
    never ends that.
    """
    import ray
    from ray.data.block import BlockAccessor

    with remote_errors():
        for bundle in dataset.iter_internal_ref_bundles():
            for ref in bundle.block_refs:
                table = BlockAccessor.for_block(ray.get(ref)).to_arrow()
                if table.num_rows:
                    yield table


class RayBlocks(Blocks):
    """Blocks of a Ray data set."""

    def __init__(self, dataset: ray.data.Dataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[pa.Table]:
        yield from tables_of(self._dataset)

    def map(self, work: Work, shared: Any = None) -> Blocks:
        """As `Blocks.map`, in tasks of Ray Data."""
        known = share(shared)

        def work_on(block: pa.Table) -> pa.Table:
            with one_thread():
                return work(block, known.get())

        return RayBlocks(self._dataset.map_batches(work_on, batch_format="pyarrow", batch_size=None))

    def sort(self, columns: Sequence[str]) -> Blocks:
        """As `Blocks.sort`, across the cluster."""
        return RayBlocks(self._dataset.sort(list(columns)))

    def materialize(self) -> Blocks:
        """As `Blocks.materialize`, in the object store."""
        with remote_errors():
            return RayBlocks(self._dataset.materialize())


class LocalBlocks(Blocks):
    """Blocks that this process makes each time they are read."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = tables

    def __iter__(self) -> Iterator[pa.Table]:
        yield from self._tables

    def map(self, work: Work, shared: Any = None) -> Blocks:
        """As `Blocks.map`."""
        return LocalBlocks(_Mapped(self._tables, work, shared))

    def sort(self, columns: Sequence[str]) -> Blocks:
        """As `Blocks.sort`; all rows are in memory at once."""
        rows = pa.concat_tables(self._tables).combine_chunks()
        return LocalBlocks([rows.sort_by([(name, "ascending") for name in columns])])

    def materialize(self) -> Blocks:
        """As `Blocks.materialize`."""
        return LocalBlocks(list(self._tables))


class _Mapped(Iterable[pa.Table]):
    """Can be read more than once."""

    def __init__(self, tables: Iterable[pa.Table], work: Work, shared: Any) -> None:
        self._tables, self._work, self._shared = tables, work, shared

    def __iter__(self) -> Iterator[pa.Table]:
        yield from map_threads(lambda table: self._work(table, self._shared), self._tables)


def blocks_of(tables: Sequence[Shared[pa.Table]]) -> Blocks:
    """Blocks from the results of tasks, which are made again where they get lost."""
    if not on_cluster():
        return LocalBlocks([table.get() for table in tables])
    import ray

    return RayBlocks(ray.data.from_arrow_refs([table.ref for table in tables]))
