"""A vector per instance that a loss keeps from epoch to epoch, as ELR does: each rank holds those of its own rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.training.signal_files import TARGET


class InstanceTargets:
    """Targets by key, float32 (C,) each; 0 before the first epoch.

    They are recorded with every epoch, so a training that is resumed, or whose rows come to other ranks, reads them
    back exactly.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._num_classes, self._device = num_classes, device
        self._keys, self._values = np.empty(0, np.int64), torch.empty((0, num_classes), device=device)
        self._new: list[tuple[np.ndarray, torch.Tensor]] = []
        self._is_first = True

    def begin(self, recorded: Iterator[Location] | None) -> None:
        """Start an epoch.

        recorded: files of the epoch before, of all ranks; None in the first. They are read only where this rank has not
        made the targets itself, or where `forget` was called.
        """
        self._is_first = recorded is None
        if recorded is None:
            self._new = []
            return
        if not self._new:
            self._new = [self._read(place) for place in recorded]
        keys = np.concatenate([keys for keys, _ in self._new])
        order = np.argsort(keys)
        self._keys = keys[order]
        self._values = torch.cat([values for _, values in self._new])[torch.from_numpy(order).to(self._device)]
        self._new = []

    def forget(self) -> None:
        """Read the next targets from the files: other rows come to this rank then."""
        self._new = []

    def of(self, keys: torch.Tensor) -> torch.Tensor:
        """Those of some rows, float32 (B, C); 0 for padding. keys: int64 (B,), on the CPU.

        Raises CoverageError for a row without one.
        """
        found = torch.zeros((len(keys), self._num_classes), device=self._device)
        if self._is_first:
            return found
        key = keys.numpy()
        real = np.flatnonzero(key >= 0)
        at = np.minimum(np.searchsorted(self._keys, key[real]), len(self._keys) - 1)
        if not np.array_equal(self._keys[at], key[real]):
            missing = int(key[real][self._keys[at] != key[real]][0]) >> 1
            got = f"none of instance_id {missing}"
            raise CoverageError(expected_got("a target of every row from the epoch before", got, "report this defect"))
        found[torch.from_numpy(real).to(self._device)] = self._values[torch.from_numpy(at).to(self._device)]
        return found

    def keep(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The targets for the next epoch of some rows. keys: int64 (n,), negative for padding; values: (n, C)."""
        real = keys >= 0
        self._new.append((keys[real].numpy(), values[real.to(values.device)].clone()))

    def _read(self, place: Location) -> tuple[np.ndarray, torch.Tensor]:
        table = place.read_table([schema.KEY, TARGET])
        return table[schema.KEY].to_numpy(), torch.from_numpy(schema.matrix(table[TARGET]).copy()).to(self._device)
