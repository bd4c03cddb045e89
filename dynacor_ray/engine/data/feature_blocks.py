"""Features of all originals as blocks in the object store, and what baselines compute from them (§5.1, Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import ray
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
from dynacor_ray.engine.runtime.session import remote_errors

BLOCK_ROWS = 4096
"""Rows per block: a task on two blocks holds their similarities, 64 MiB."""


@dataclass(frozen=True)
class FeatureBlocks:
    """ids: int64 (n,) of each block; blocks: references to float32 (n, D). Together every original, once."""

    ids: tuple[np.ndarray, ...]
    blocks: tuple[ray.ObjectRef, ...]

    @property
    def order(self) -> np.ndarray:
        """What sorts the rows of all blocks by id, int64 (N,)."""
        return np.argsort(np.concatenate(self.ids), kind="stable")


def load_blocks(files: Sequence[Location], lined_up: LinedUpFeatures | None = None) -> FeatureBlocks:
    """Read files with `feature` and `instance_id`, or `key` of originals, into blocks; features in line."""

    @ray.remote(num_cpus=1, num_returns=2)
    @retry_transient
    def load(group: Sequence[Location]) -> tuple[np.ndarray, np.ndarray]:
        ids, features = [], []
        for place in group:
            with place.parquet() as file:
                by_key = schema.KEY in file.schema_arrow.names
                table = file.read([schema.KEY if by_key else schema.INSTANCE_ID, schema.FEATURE])
            number = table[0].to_numpy()
            ids.append(number >> 1 if by_key else number)
            features.append(schema.matrix(in_line(table, lined_up)[schema.FEATURE]))
        return np.concatenate(ids), np.concatenate(features)

    with remote_errors():
        loaded = [load.remote(group) for group in _groups(files)]
        ids, blocks = [], []
        for numbers, features in loaded:
            ids.append(ray.get(numbers))
            blocks.append(features)
    return FeatureBlocks(tuple(ids), tuple(blocks))


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
    """`work(ids, features, labels)` of every block in a Ray task; its values (n, ...) as one array in order of the ids.

    labels: int32 (n,) of the block's rows; those of all rows are sent once, not with each task.
    """

    @ray.remote(num_cpus=1)
    def run(ids: np.ndarray, features: np.ndarray, known: GivenLabels) -> np.ndarray:
        torch.set_num_threads(1)
        return work(ids, features, known.of(ids))

    known = ray.put(labels)
    with remote_errors():
        values = ray.get([run.remote(ids, block, known) for ids, block in zip(blocks.ids, blocks.blocks, strict=True)])
    return np.concatenate(values)[blocks.order]


def gather_neighbors(
    blocks: FeatureBlocks, progress: Progress, duplicates: Duplicates | None = None
) -> dict[str, np.ndarray]:
    """The nearest other instances by cosine of their features: ids int64 (N, K) and similarity float32 (N, K).

    Equal rows are no neighbors of each other.

    K is what `detectors.fm_srm` asks for, the most of all. A task holds one block of queries and sees all
    references block by block, so memory does not grow with N; NO_INSTANCE stands where there are fewer others.
    """
    groups = [ids if duplicates is None else duplicates.first_of(ids) for ids in blocks.ids]
    others, references = ray.put((blocks.ids, groups)), ray.put([[block] for block in blocks.blocks])

    @ray.remote(num_cpus=1)
    def find(
        number: int,
        features: np.ndarray,
        others: tuple[Sequence[np.ndarray], Sequence[np.ndarray]],
        references: list[list[ray.ObjectRef]],
    ) -> tuple[np.ndarray, np.ndarray]:
        torch.set_num_threads(1)
        queries = _cut(others[0][number], features, others[1][number])
        found = [NearestNeighbors(normalized(rows), own, NEIGHBORS, group) for own, rows, group in queries]
        for other_ids, other_groups, (other,) in zip(*others, references, strict=True):
            for reference_ids, rows, group in _cut(other_ids, ray.get(other), other_groups):
                reference = normalized(rows)
                for query in found:
                    query.update(reference, reference_ids, group)
        return torch.cat([q.ids for q in found]).numpy(), torch.cat([q.similarity for q in found]).numpy()

    with progress.stage("neighbors", sum(map(len, blocks.ids)), "rows") as bar, remote_errors():
        tasks = [find.remote(number, block, others, references) for number, block in enumerate(blocks.blocks)]
        place = dict(zip(tasks, blocks.ids, strict=True))
        waiting = tasks
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            bar.advance(len(place[done]))
        results = ray.get(tasks)
    order = blocks.order
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
    known = ray.put(labels)

    @ray.remote(num_cpus=1)
    def add(ids: np.ndarray, features: np.ndarray, known: GivenLabels) -> PrototypeSums:
        torch.set_num_threads(1)
        sums = PrototypeSums(num_classes, features.shape[1])
        for rows, given in _cut(features, known.of(ids)):
            sums.add(rows, given)
        return sums

    total = None
    with remote_errors():
        # One after the other, in order: their sums do not pile up here, and add up in the same way every time.
        for part in [add.remote(ids, block, known) for ids, block in zip(blocks.ids, blocks.blocks, strict=True)]:
            more = ray.get(part)
            if total is None:
                total = more
            else:
                total.merge(more)
    assert total is not None
    prototypes = total.prototypes()

    def margins(ids: np.ndarray, features: np.ndarray, given: np.ndarray) -> np.ndarray:
        pieces = [prototype_margin(rows, own, prototypes) for rows, own in _cut(features, given)]
        return torch.cat(pieces).numpy()

    return {"prototype_margin": map_features(blocks, margins, labels)}
