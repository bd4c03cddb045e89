"""Features of all originals in blocks that tasks share, and what baselines compute from them (§5.1, Table 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates
from dynacor_ray.core.manifest import LinedUpFeatures
from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.detectors.fm_srm import NEIGHBORS, PrototypeSums, prototype_margin
from dynacor_ray.detectors.nearest_neighbors import NearestNeighbors, normalized
from dynacor_ray.engine.data.line_up import in_line
from dynacor_ray.engine.runtime.tasks import Shared, run_in_order, run_tasks, share

Sums = TypeVar("Sums")
BLOCK_ROWS = 4096
"""Rows per block: a task on two blocks holds their similarities, 64 MiB."""


@dataclass(frozen=True)
class FeatureBlocks:
    """ids: int64 (n,) of each block; blocks: float32 (n, D) of each. Together every original, once."""

    ids: tuple[np.ndarray, ...]
    blocks: tuple[Shared[np.ndarray], ...]

    @property
    def order(self) -> np.ndarray:
        """What sorts the rows of all blocks by id, int64 (N,)."""
        return np.argsort(np.concatenate(self.ids), kind="stable")


def load_blocks(files: Sequence[Location], lined_up: LinedUpFeatures | None = None) -> FeatureBlocks:
    """Read files with `feature` and `instance_id`, or `key` of originals, into blocks; features in line."""
    groups, known = [(group,) for group in _groups(files)], share(lined_up)
    ids = run_in_order(_read_ids, groups)
    blocks = run_in_order(_read_features, [(group, known) for (group,) in groups])
    return FeatureBlocks(tuple(numbers.get() for numbers in ids), tuple(blocks))


@retry_transient
def _read_ids(group: Sequence[Location]) -> np.ndarray:
    found = []
    for place in group:
        with place.parquet() as file:
            by_key = schema.KEY in file.schema_arrow.names
            number = file.read([schema.KEY if by_key else schema.INSTANCE_ID])[0].to_numpy()
        found.append(number >> 1 if by_key else number)
    return np.concatenate(found)


@retry_transient
def _read_features(group: Sequence[Location], lined_up: LinedUpFeatures | None) -> np.ndarray:
    tables = [in_line(place.read_table([schema.FEATURE]), lined_up) for place in group]
    return np.concatenate([schema.matrix(table[schema.FEATURE]) for table in tables])


@retry_transient
def _groups(files: Sequence[Location]) -> list[list[Location]]:
    """Consecutive files of about BLOCK_ROWS rows together."""
    groups: list[list[Location]] = []
    rows = BLOCK_ROWS
    for place in files:
        with place.parquet() as file:
            more = file.metadata.num_rows
        if rows + more > BLOCK_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(place)
        rows += more
    return groups


def map_features(
    blocks: FeatureBlocks, work: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray], labels: GivenLabels
) -> np.ndarray:
    """`work(ids, features, labels)` of every block in a task; its values (n, ...) as one array in order of the ids.

    labels: int32 (n,) of the block's rows; those of all rows are sent once, not with each task.
    """

    def run(ids: np.ndarray, features: np.ndarray, known: GivenLabels) -> np.ndarray:
        return work(ids, features, known.of(ids))

    values = run_in_order(run, _calls(blocks, share(labels)))
    return np.concatenate([value.get() for value in values])[blocks.order]


def reduce_features(
    blocks: FeatureBlocks,
    work: Callable[[np.ndarray, np.ndarray], Sums],
    merge: Callable[[Sums, Sums], Sums],
    labels: GivenLabels,
) -> Sums:
    """`work(features, labels)` of every block in a task, merged in order: the same every time, and nothing piles up."""

    def run(ids: np.ndarray, features: np.ndarray, known: GivenLabels) -> Sums:
        return work(features, known.of(ids))

    first, *others = run_in_order(run, _calls(blocks, share(labels)))
    return functools.reduce(lambda total, part: merge(total, part.get()), others, first.get())


def _calls(blocks: FeatureBlocks, *more: Any) -> list[tuple[Any, ...]]:
    """Arguments of a task on each block: its ids, its features, and what all are told."""
    return [(ids, block, *more) for ids, block in zip(blocks.ids, blocks.blocks, strict=True)]


def gather_neighbors(
    blocks: FeatureBlocks, progress: Progress, duplicates: Duplicates | None = None
) -> dict[str, np.ndarray]:
    """The nearest other instances by cosine of their features: ids int64 (N, K) and similarity float32 (N, K).

    Equal rows are no neighbors of each other.

    K is what `detectors.fm_srm` asks for, the most of all. A task holds one block of queries and sees all
    references block by block, so memory does not grow with N; NO_INSTANCE stands where there are fewer others.
    """
    groups = [ids if duplicates is None else duplicates.first_of(ids) for ids in blocks.ids]

    def find(
        ids: np.ndarray,
        features: np.ndarray,
        own_groups: np.ndarray,
        references: tuple[FeatureBlocks, list[np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray]:
        queries = _cut(ids, features, own_groups)
        found = [NearestNeighbors(normalized(rows), own, NEIGHBORS, group) for own, rows, group in queries]
        others, other_groups = references
        for other_ids, other, of_other in zip(others.ids, others.blocks, other_groups, strict=True):
            for reference_ids, rows, group in _cut(other_ids, other.get(), of_other):
                reference = normalized(rows)
                for query in found:
                    query.update(reference, reference_ids, group)
        return torch.cat([q.ids for q in found]).numpy(), torch.cat([q.similarity for q in found]).numpy()

    known = share((blocks, groups))
    calls = [(ids, block, group, known) for ids, block, group in zip(blocks.ids, blocks.blocks, groups, strict=True)]
    made = {}
    with progress.stage("neighbors", sum(map(len, blocks.ids)), "rows") as bar:
        for number, result in run_tasks(find, calls):
            made[number] = result
            bar.advance(len(blocks.ids[number]))
    results, order = [made[number].get() for number in range(len(made))], blocks.order
    return {
        "ids": np.concatenate([ids for ids, _ in results])[order],
        "similarity": np.concatenate([similarity for _, similarity in results])[order],
    }


def _cut(*arrays: np.ndarray) -> Iterator[list[torch.Tensor]]:
    """Rows that belong together in pieces of BLOCK_ROWS, as tensors: packed features may come in larger blocks."""
    for start in range(0, len(arrays[0]), BLOCK_ROWS):
        # Copies: what lies in the object store is read-only, which torch does not know.
        yield [torch.from_numpy(array[start : start + BLOCK_ROWS].copy()) for array in arrays]


def gather_prototypes(blocks: FeatureBlocks, labels: GivenLabels, num_classes: int) -> dict[str, np.ndarray]:
    """`prototype_margin` float32 (N,), in the order of the ids."""

    def add(features: np.ndarray, given: np.ndarray) -> PrototypeSums:
        sums = PrototypeSums(num_classes, features.shape[1])
        for rows, own in _cut(features, given):
            sums.add(rows, own)
        return sums

    def merge(total: PrototypeSums, part: PrototypeSums) -> PrototypeSums:
        total.merge(part)
        return total

    prototypes = reduce_features(blocks, add, merge, labels).prototypes()

    def margins(ids: np.ndarray, features: np.ndarray, given: np.ndarray) -> np.ndarray:
        pieces = [prototype_margin(rows, own, prototypes) for rows, own in _cut(features, given)]
        return torch.cat(pieces).numpy()

    return {"prototype_margin": map_features(blocks, margins, labels)}
