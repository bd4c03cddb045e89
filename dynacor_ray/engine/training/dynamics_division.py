"""DDyna-S (§5.5): DynaCor's detector, fitted to the dynamics so far (§4.4), divides the rows of DivideMix.

Rank 0 fits; every rank assigns all rows by blocks, since rows may come to other ranks. Cost at each division: the
signals so far are read twice, and the dynamics encoder is trained, on as many rows as in `detect` at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist

from dynacor_ray.core import schema
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.engine.training.job import Job
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import SIGNALS, SignalManifest
from dynacor_ray.method.clustering import ClusteringConfig, FittedClustering, fit

BLOCK_ROWS = 1_000_000
"""Rows whose dynamics are in memory at once, besides those of the fit."""


class DynamicsDivision:
    """What Eq. 3 says of every row, by key. In memory: 12 bytes per row."""

    def __init__(self, job: Job, device: torch.device) -> None:
        assert job.config.robust is not None
        assert job.config.robust.clustering is not None
        self._job, self._device = job, device
        self._clustering: ClusteringConfig = job.config.robust.clustering
        self._most = job.config.robust.clustering_sample
        self._keys, self._noisy = np.empty(0, np.int64), np.empty(0, np.float32)

    def begin(self, epoch: int, committed: SignalManifest) -> None:
        """Fit to the epochs before, and assign every row."""
        files = {str(one): committed[str(one)] for one in range(epoch)}
        signals = RecordedSignals(self._job.run / SIGNALS, files)
        last = [(signals.folder / name).read_table([schema.KEY]) for name in files[str(epoch - 1)]]
        self._keys = np.sort(pa.concat_tables(last)[schema.KEY].to_numpy())
        blocks = list(self._blocks(signals)) if len(self._keys) <= BLOCK_ROWS else None
        is_first = self._job.plan.workers == 1 or dist.get_rank() == 0
        told: list[FittedClustering | None] = [self._fit(blocks or self._blocks(signals)) if is_first else None]
        if self._job.plan.workers > 1:
            dist.broadcast_object_list(told, 0, device=self._device)
        assert told[0] is not None
        self._noisy = np.concatenate([told[0].assign(margins) for _, margins in blocks or self._blocks(signals)])

    def clean(self, keys: torch.Tensor) -> torch.Tensor:
        """`1 - q_noisy` (Eq. 3), float32 (B,) on the device; 1 for all before the first division, and for padding.

        keys: int64 (B,), on the CPU.
        """
        if not len(self._keys):
            return torch.ones(len(keys), device=self._device)
        key = keys.numpy()
        noisy = self._noisy[np.searchsorted(self._keys, np.maximum(key, self._keys[0]))]
        return torch.from_numpy(np.where(key >= 0, 1.0 - noisy, 1.0).astype(np.float32)).to(self._device)

    def _blocks(self, signals: RecordedSignals) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Keys int64 (n,) and margins float16 (n, E) of all rows, in the order of the keys."""
        for start in range(0, len(self._keys), BLOCK_ROWS):
            keys = self._keys[start : start + BLOCK_ROWS]
            margins = np.empty((len(keys), len(signals.files)), np.float16)
            for column, epoch in enumerate(signals.epochs):
                margins[:, column] = signals.columns(epoch, keys, [schema.MARGIN])[schema.MARGIN]
            yield keys, margins

    def _fit(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> FittedClustering:
        """§4.4 on a sample of the instances, with their copies."""
        share = self._most / self._job.rows.total
        kept = []
        for keys, margins in blocks:
            chosen = keyed_uniform(self._job.config.seed, Purpose.FIT_SAMPLE, keys >> 1) < share
            kept.append((keys[chosen], margins[chosen]))
        keys = np.concatenate([keys for keys, _ in kept])
        is_copy = (keys & 1).astype(bool)
        has_copy = np.isin(keys >> 1, keys[is_copy] >> 1) & ~is_copy
        return fit(np.concatenate([margins for _, margins in kept]), is_copy, has_copy, self._clustering)
