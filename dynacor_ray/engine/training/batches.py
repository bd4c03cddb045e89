"""A rank's share of the training rows as batches: from memory when it fits, else streamed anew each epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch

from dynacor_ray.core import rng, schema
from dynacor_ray.core.errors import CoverageError, expected_got
from dynacor_ray.engine.training.job import Job
from dynacor_ray.method.corruption import LABEL
from dynacor_ray.method.dynamics import row_weights

STREAM_BATCHES = 64
"""When rows are streamed anew each epoch, at least this many batches are read at once and shuffled together ..."""
STREAM_BYTES = 256 << 20
"""... unless they are images, and that many would be more than this."""


class Batch(NamedTuple):
    """Rows of one step: key int64 on the CPU; on the device label int64, feature (B, D) and weight float32.

    Features are float32; of images uint8, which the module makes (B, S, S, 3).
    """

    key: torch.Tensor
    label: torch.Tensor
    feature: torch.Tensor
    weight: torch.Tensor


class Shard(Protocol):
    """A rank's share of the rows, as Ray Data hands it out. All shares are equal, so all ranks step equally."""

    def iter_batches(self, batch_size: int | None, batch_format: str, prefetch_batches: int = 1) -> Iterator[pa.Table]:
        """Tables of `batch_size` rows, the last with what is left; None: whole blocks."""


def open_rows(shard: Shard, job: Job, rank: int, device: torch.device) -> CachedRows | StreamedRows:
    """The rows of a rank as batches."""
    return StreamedRows(shard, job, rank, device) if job.streamed else CachedRows(shard, job, rank, device)


def _permutation(job: Job, rank: int, epoch: int, chunk: int, size: int) -> np.ndarray:
    seed = rng.derive_seed(job.config.seed, 2, epoch, rank, chunk)
    return np.random.Generator(np.random.PCG64(seed)).permutation(size)


def _ends(job: Job, rows: int, size: int) -> list[int]:
    """Where `rows` rows are cut into batches of at most `size`: the last has what is left.

    For a network, whose batch norm would make much of one or two rows, all are as large as they can alike be.
    """
    steps = -(-rows // size)
    return [at * size if job.config.network is None else at * rows // steps for at in range(1, steps)]


def _weights(job: Job, keys: np.ndarray, chosen: np.ndarray | None = None) -> torch.Tensor:
    """Weight per row (Eq. 2 or uniform; uniform without copies), divided among its twins; 0 for padding.

    chosen: float32 (n,), what rows count by their column `weight`; None without one.
    """
    is_corrupted = torch.from_numpy((keys & 1).astype(bool))
    weighting = job.config.corrupted_weight if job.rows.num_copies else "uniform"
    weights = row_weights(is_corrupted, job.rows.num_copies / job.rows.num_originals, weighting)
    among_twins = job.rows.row_weights(keys)
    if among_twins is not None:
        weights = weights * torch.from_numpy(among_twins)
    if chosen is not None:
        weights = weights * torch.from_numpy(chosen)
    return torch.where(torch.from_numpy(keys >= 0), weights, 0.0)


class CachedRows:
    """Rows in memory (on the GPU if there is room), in the order of their keys, permuted afresh each epoch."""

    def __init__(self, shard: Shard, job: Job, rank: int, device: torch.device) -> None:
        self._job, self._rank, self._device = job, rank, device
        keys, labels, features, chosen = _read_all(shard, job, rank)
        # By key, so that what is learned does not depend on the order in which blocks arrive.
        self._order = np.argsort(keys, kind="stable")
        self._keys, self._labels = torch.from_numpy(keys), torch.from_numpy(labels).to(device)
        self._weights = _weights(job, keys, chosen).to(device)
        self._features = torch.from_numpy(features)
        if device.type == "cuda" and features.nbytes < 0.4 * torch.cuda.mem_get_info(device)[0]:
            self._features = self._features.to(device)

    def batches(self, epoch: int, size: int) -> Iterator[Batch]:
        """Yield batches of `size` rows, the last with what is left."""
        shuffled = self._order[_permutation(self._job, self._rank, epoch, 0, len(self._order))]
        order = torch.from_numpy(shuffled)
        for index in order.tensor_split(_ends(self._job, len(order), size)):
            there, near = index.to(self._device), index.to(self._features.device)
            feature = self._features.index_select(0, near).to(self._device, non_blocking=True)
            yield Batch(self._keys[index], self._labels[there], feature, self._weights[there])


def _read_all(shard: Shard, job: Job, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    rows = job.rows_per_rank
    keys, labels = np.empty(rows, np.int64), np.empty(rows, np.int64)
    features = np.empty((rows, job.rows.dim), job.rows.value_type)
    chosen = np.empty(rows, np.float32) if job.rows.weighted else None
    at = 0
    # Whole blocks, and their parts one by one: nothing is copied but into place.
    for block in shard.iter_batches(batch_size=None, batch_format="pyarrow"):
        for part in block.to_batches():
            stop = at + part.num_rows
            if stop <= rows:
                keys[at:stop] = part[schema.KEY].to_numpy()
                labels[at:stop] = part[LABEL].to_numpy()
                features[at:stop] = schema.matrix(part[schema.FEATURE])
                if chosen is not None:
                    chosen[at:stop] = part[schema.WEIGHT].to_numpy()
            at = stop
    if at != rows:
        raise CoverageError(expected_got(f"{rows:,} rows on rank {rank}", f"{at:,}", "report this as a defect"))
    pa.default_memory_pool().release_unused()  # what the blocks took, for as long as the training
    return keys, labels, features, chosen


def prefetch(batches: Iterator[Batch], count: int = 2) -> Iterator[Batch]:
    """The same batches; the next `count` are made in a thread of their own while one is used."""
    with ThreadPoolExecutor(1) as maker:
        coming = deque(maker.submit(next, batches, None) for _ in range(count))
        while (batch := coming.popleft().result()) is not None:
            coming.append(maker.submit(next, batches, None))
            yield batch


class StreamedRows:
    """Rows read anew in every epoch: files in random order, shuffled in chunks of several batches."""

    def __init__(self, shard: Shard, job: Job, rank: int, device: torch.device) -> None:
        self._shard, self._job, self._rank, self._device = shard, job, rank, device

    def batches(self, epoch: int, size: int) -> Iterator[Batch]:
        """Yield batches of `size` rows; the last chunk's with what is left, equally on all ranks."""
        # As many rows as half the memory holds, for the sake of shuffling; a whole number of batches.
        batch_bytes = self._job.rows.row_bytes * size
        share = self._job.plan.cache_bytes // 2 // batch_bytes
        chunk = size * max(1, min(STREAM_BATCHES, STREAM_BYTES // batch_bytes), share)
        for number, block in enumerate(self._chunks(chunk, size)):
            yield from self._chunk(block, _permutation(self._job, self._rank, epoch, number, block.num_rows), size)

    def _chunks(self, chunk: int, size: int) -> Iterator[pa.Table]:
        """Tables of `chunk` rows, the last with what is left: for a network, less than a batch joins the one before."""
        whole, rest = divmod(self._job.rows_per_rank, chunk)
        joined = whole - 1 if self._job.config.network is not None and 0 < rest < size else None
        kept: list[pa.Table] = []
        blocks = self._shard.iter_batches(batch_size=chunk, batch_format="pyarrow", prefetch_batches=1)
        for number, block in enumerate(blocks):
            kept.append(block)
            if number != joined:
                yield pa.concat_tables(kept)
                kept = []

    def _chunk(self, block: pa.Table, order: np.ndarray, size: int) -> Iterator[Batch]:
        key = block[schema.KEY].to_numpy()
        label = block[LABEL].to_numpy().astype(np.int64)
        chosen = block[schema.WEIGHT].to_numpy().copy() if self._job.rows.weighted else None
        feature, weight = schema.matrix(block[schema.FEATURE]), _weights(self._job, key, chosen)
        for index in np.split(order, _ends(self._job, len(order), size)):
            yield Batch(
                torch.from_numpy(key[index]),
                torch.from_numpy(label[index]).to(self._device),
                torch.from_numpy(feature[index]).to(self._device),
                weight[torch.from_numpy(index)].to(self._device),
            )
