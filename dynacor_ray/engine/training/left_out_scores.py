"""Scores of every class that never saw the row's own label, from the training pass: what two ridge regressions say.

Both are summed up in the first epoch and asked in the second (`decision.leave_one_out_ridge`). The wide one also has
random ReLU features. It is summed over a sample of large data, where the other rows need no leaving out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import TARGET_NORM
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.decision.leave_one_out_ridge import Ridge, RidgeSums
from dynacor_ray.decision.random_features import RandomFeatures
from dynacor_ray.engine.data.row_facts import RowFacts

RANDOM_FEATURES = 1024
"""Columns of the wide regression besides the features: from 1,500 on they gain little and cost the square."""
WIDE_ROWS = 20_000
"""Most rows that the wide regression is fitted to: with more, its sums would cost more than the training."""


class LeftOutScores:
    """The regressions of one training, on one rank; `wide` says whether the second one is wanted."""

    def __init__(self, rows: RowFacts, seed: int, device: torch.device, wide: bool) -> None:
        self._rows, self._seed, self._device = rows, seed, device
        self._random = self._random_features() if wide else None
        self._sums: list[RidgeSums] = []
        self._ridges: list[Ridge | None] = []

    def _random_features(self) -> RandomFeatures:
        mean = torch.from_numpy(self._rows.mean).to(self._device)
        unit = self._rows.scale * len(mean) ** 0.5 / TARGET_NORM  # one over the spread of a column
        return RandomFeatures(mean, unit, RANDOM_FEATURES, self._seed)

    @property
    def is_open(self) -> bool:
        """Whether features are still looked at: to be summed up, or to be asked."""
        return bool(self._sums or self._ridges)

    def begin(self) -> None:
        """Start to sum."""
        mean = torch.from_numpy(self._rows.mean).to(self._device)
        self._sums = [RidgeSums(self._rows.num_classes, mean, self._rows.scale)]
        if self._random is not None:
            middle = torch.zeros(self._random.dim, device=self._device)
            self._sums.append(RidgeSums(self._rows.num_classes, middle, 1.0))

    def add(self, keys: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor) -> None:
        """Sum rows up. keys: int64 (n,) on the CPU; fitted: bool (n,), whether a row may be fitted."""
        if not self._sums:
            return
        self._sums[0].add(features[fitted], labels[fitted])
        if self._random is not None:
            chosen = fitted & self._is_sampled(keys)
            self._sums[1].add(self._random.widen(features[chosen]), labels[chosen])

    def solve(self, world: int) -> None:
        """Merge the sums of all ranks and solve."""
        for sums in self._sums:
            for total in sums.totals if world > 1 else ():
                dist.all_reduce(total)
        self._ridges, self._sums = [sums.solve() for sums in self._sums], []

    def close(self) -> None:
        """Forget the regressions: every row was asked."""
        self._ridges = []

    def ask(
        self, keys: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Scores by name of `schema.CLASS_SCORES`, float (n, C) each; without a regression there are none."""
        found = {}
        for name, ridge in zip((schema.RIDGE_SCORES, schema.WIDE_RIDGE_SCORES), self._ridges, strict=False):
            if ridge is None:
                continue
            if name == schema.RIDGE_SCORES or self._random is None:
                found[name] = ridge.predict(features, labels, fitted)
            else:
                found[name] = ridge.predict(self._random.widen(features), labels, fitted & self._is_sampled(keys))
        return found

    def _is_sampled(self, keys: torch.Tensor) -> torch.Tensor:
        """Whether the wide regression is fitted to a row, bool (n,) on the device: a matter of its id."""
        share = WIDE_ROWS / max(self._rows.num_originals, 1)
        if share >= 1:
            return torch.ones(len(keys), dtype=torch.bool, device=self._device)
        chosen = keyed_uniform(self._seed, Purpose.FIT_SAMPLE, (keys >> 1).numpy()) < share
        return torch.from_numpy(chosen).to(self._device)

    def state(self) -> list[dict[str, Any] | None]:
        """The solved regressions as tensors and plain values."""
        return [dataclasses.asdict(ridge) if ridge is not None else None for ridge in self._ridges]

    def restore(self, saved: list[dict[str, Any] | None]) -> None:
        """Inverse of `state`."""
        self._ridges = [Ridge(**ridge).to(self._device) if ridge is not None else None for ridge in saved]
