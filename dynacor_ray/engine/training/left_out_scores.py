"""Scores of likely classes that never saw the row's own label, from the training pass: what two regressions say.

Both are summed up in the first epoch and asked in the second (`decision.leave_one_out_ridge`). The wide one also has
random ReLU features. It is summed over a sample of large data, where the other rows need no leaving out. Equal rows
weigh as one, and are sampled and left out together. Features of more than MAX_FEATURES numbers are hashed first.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import TARGET_NORM
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.decision.feature_hashing import FeatureHashing
from dynacor_ray.decision.leave_one_out_ridge import MAX_FEATURES, Ridge, RidgeSums, own_labels
from dynacor_ray.decision.likely_classes import MOST_CLASSES, all_classes, likely_classes
from dynacor_ray.decision.random_features import RandomFeatures, feature_count
from dynacor_ray.engine.data.row_facts import RowFacts

WIDE_ROWS = 20_000
"""Most rows that the wide regression is fitted to: with more, its sums would cost more than the training."""
_VALUES = 1 << 23
"""Most rows times classes that are scored at once."""
_WIDE_AT_ONCE = 1024
"""Rows that are widened at once: what a processor keeps at hand. With 8,192 a quarter of the time was memory's."""


class LeftOutScores:
    """The regressions of one training, on one rank; `wide` says whether the second one is wanted."""

    def __init__(self, rows: RowFacts, seed: int, device: torch.device, wide: bool) -> None:
        self._rows, self._seed, self._device = rows, seed, device
        self._hashing = FeatureHashing(rows.dim, seed, device) if rows.dim > MAX_FEATURES else None
        self._mean = self._hashed(torch.from_numpy(rows.mean).to(device))
        self._random = self._random_features() if wide else None
        self._sums: list[RidgeSums] = []
        self._ridges: list[Ridge | None] = []

    def _hashed(self, features: torch.Tensor) -> torch.Tensor:
        return features if self._hashing is None else self._hashing.hashed(features)

    def _random_features(self) -> RandomFeatures:
        unit = self._rows.scale * len(self._mean) ** 0.5 / TARGET_NORM  # one over the spread of a column
        return RandomFeatures(self._mean, unit, feature_count(self._rows.num_originals), self._seed)

    @property
    def is_open(self) -> bool:
        """Whether features are still looked at: to be summed up, or to be asked."""
        return bool(self._sums or self._ridges)

    def begin(self) -> None:
        """Start to sum."""
        self._sums = [RidgeSums(self._rows.num_classes, self._mean, self._rows.scale)]
        if self._random is not None:
            middle = torch.zeros(self._random.dim, device=self._device)
            self._sums.append(RidgeSums(self._rows.num_classes, middle, 1.0))

    def add(self, keys: torch.Tensor, features: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor) -> None:
        """Sum rows up. keys: int64 (n,) on the CPU; fitted: bool (n,), whether a row may be fitted."""
        if not self._sums:
            return
        features = self._hashed(features)
        among_twins = self._rows.row_weights(keys.numpy())
        weights = None if among_twins is None else torch.from_numpy(among_twins).to(self._device)
        self._sums[0].add(features[fitted], labels[fitted], None if weights is None else weights[fitted])
        if self._random is not None:
            chosen = (fitted & self._is_sampled(keys)).nonzero().squeeze(dim=1)
            for part in chosen.split(_WIDE_AT_ONCE):
                more = None if weights is None else weights[part]
                self._sums[1].add(self._random.widen(features[part]), labels[part], more)

    def solve(self, world: int) -> None:
        """Merge the sums of all ranks and solve, side by side."""
        for sums in self._sums:
            for total in sums.totals if world > 1 else ():
                dist.all_reduce(total)
        with ThreadPoolExecutor() as threads:
            self._ridges, self._sums = list(threads.map(RidgeSums.solve, self._sums)), []

    def close(self, keep_likely: bool = False) -> None:
        """Forget the regressions, every row was asked; but for the first where it says which classes are likely."""
        self._ridges = self._ridges[:1] if keep_likely and self._is_crowded else []

    def likely(self, keys: torch.Tensor, features: torch.Tensor | None, labels: torch.Tensor) -> torch.Tensor:
        """The classes whose scores are kept (`likely_classes`), int64 (n, K).

        keys: int64 (n,) on the CPU; features: float (n, D), None where `is_open` is false; labels: int64 (n,).
        """
        if not self._is_crowded:
            return all_classes(labels, self._rows.num_classes)
        uniform = torch.from_numpy(keyed_uniform(self._seed, Purpose.LIKELY_CLASSES, (keys >> 1).numpy()))
        ridge = self._ridges[0] if self._ridges else None
        if ridge is None or features is None:
            scores = torch.zeros((len(keys), self._rows.num_classes), device=self._device)
        else:  # to leave the row out changes the score of its label alone, up to a factor
            scores = ridge.plain(self._hashed(features))
        return likely_classes(scores, labels, uniform.to(self._device))

    @property
    def _is_crowded(self) -> bool:
        return self._rows.num_classes > MOST_CLASSES

    def ask(
        self,
        keys: torch.Tensor,
        features: torch.Tensor,
        labels: torch.Tensor,
        fitted: torch.Tensor,
        classes: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Scores of some classes by name of `schema.CLASS_SCORES`, float (n, K) each; none without a regression.

        classes: int64 (n, K); the rest as of `add`.
        """
        at_once = max(1, _VALUES // self._rows.num_classes)
        if self._random is not None and self._device.type == "cpu":
            at_once = min(at_once, _WIDE_AT_ONCE)
        parts = zip(*(one.split(at_once) for one in (keys, features, labels, fitted, classes)), strict=True)
        answers = [self._ask(*part) for part in parts]
        return {name: torch.cat([one[name] for one in answers]) for name in answers[0]} if answers else {}

    def _ask(
        self,
        keys: torch.Tensor,
        features: torch.Tensor,
        labels: torch.Tensor,
        fitted: torch.Tensor,
        classes: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        features = self._hashed(features)
        left_out = self._left_out(keys, labels, fitted) if self._ridges else labels
        for name, ridge in zip((schema.RIDGE_SCORES, schema.WIDE_RIDGE_SCORES), self._ridges, strict=False):
            if ridge is None:
                continue
            if name == schema.RIDGE_SCORES or self._random is None:
                scores = ridge.predict_without(features, left_out)
            else:
                sampled = left_out * self._is_sampled(keys).unsqueeze(1)
                scores = ridge.predict_without(self._random.widen(features), sampled)
            found[name] = scores.gather(1, classes)
        return found

    def _left_out(self, keys: torch.Tensor, labels: torch.Tensor, fitted: torch.Tensor) -> torch.Tensor:
        """Weights by label of what is left out for each row: itself where it is fitted, its twins. float (n, C)."""
        classes, twins = self._rows.num_classes, self._rows.twins
        alone = own_labels(labels, fitted, classes)
        if twins is None:
            return alone
        ids = (keys >> 1).numpy()
        size = torch.from_numpy(twins.sizes(ids)).to(self._device).unsqueeze(1)
        together = torch.from_numpy(twins.counts(ids, classes, only_fitted=True)).to(self._device)
        return torch.where(size > 1, together / size, alone)

    def _is_sampled(self, keys: torch.Tensor) -> torch.Tensor:
        """Whether the wide regression is fitted to a row, bool (n,) on the device: a matter of its id."""
        share = WIDE_ROWS / max(self._rows.num_originals, 1)
        if share >= 1:
            return torch.ones(len(keys), dtype=torch.bool, device=self._device)
        ids = (keys >> 1).numpy()
        if self._rows.twins is not None:
            ids = self._rows.twins.first_of(ids)
        chosen = keyed_uniform(self._seed, Purpose.FIT_SAMPLE, ids) < share
        return torch.from_numpy(chosen).to(self._device)

    def state(self) -> list[dict[str, Any] | None]:
        """The solved regressions as tensors and plain values."""
        return [dataclasses.asdict(ridge) if ridge is not None else None for ridge in self._ridges]

    def restore(self, saved: list[dict[str, Any] | None]) -> None:
        """Inverse of `state`."""
        self._ridges = [Ridge(**ridge).to(self._device) if ridge is not None else None for ridge in saved]
