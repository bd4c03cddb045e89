"""Signals on disk: one file per epoch, attempt and rank, and a manifest that says which of them count.

A reported epoch can still be rolled back by a later failure, and a repeated epoch writes under new names; so a file
counts only when the manifest of the last checkpoint lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from dynacor_ray import schema
from dynacor_ray.method.confident_joint import NoiseRate, estimate_noise_rate
from dynacor_ray.method.dynamics import to_float16_keeping_sign
from dynacor_ray.storage import Location

_EMPTY = np.empty(0, np.int64)

SignalManifest: TypeAlias = dict[str, list[str]]
"""Epoch (as a string, since it is kept as JSON) -> file names below `signals/`, one per rank."""

SIGNALS = "signals"
PROGRESS = "progress.json"
JOINTS = "joints.parquet"
"""The confident joint of each epoch: epoch, given_label, predicted_label (-1: any other), count."""


def file_name(epoch: int, attempt: str, rank: int) -> str:
    """Name below `signals/` of what one rank recorded in one epoch (counted from 0)."""
    return f"epoch={epoch:05d}/{attempt}-r{rank:04d}.parquet"


def write_signals(
    place: Location,
    keys: np.ndarray,
    recorded: dict[str, np.ndarray],
    as_table: Callable[[np.ndarray, dict[str, np.ndarray]], pa.Table],
) -> int:
    """Write the signals of one rank and epoch, sorted by key and without padding rows; returns how many.

    keys: int64 (n,), negative for padding; recorded: (n,) or (n, m) each. Raises TrainingError as `as_table` does.
    """
    order = np.argsort(keys)
    order = order[np.searchsorted(keys[order], 0) :]
    table = as_table(keys[order], {name: values[order] for name, values in recorded.items()})
    place.write_table(table, compression="zstd")
    return len(order)


def signal_table(keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
    """Margins and predicted classes as `schema.signal_schema`. Raises TrainingError on NaN."""
    margins = to_float16_keeping_sign(recorded[schema.MARGIN])
    columns = [keys, margins, recorded[schema.PREDICTED].astype(np.int32)]
    return pa.table([pa.array(column) for column in columns], schema=schema.signal_schema())


def remove_unlisted(signals: Location, manifest: SignalManifest) -> None:
    """Delete what attempts that died left behind; nothing reads it."""
    listed = {name for names in manifest.values() for name in names}
    for folder in signals.names():
        if folder.startswith("epoch="):
            for name in (signals / folder).names():
                if f"{folder}/{name}" not in listed:
                    (signals / folder / name).delete()


def complete(manifest: SignalManifest, num_epochs: int) -> bool:
    """Whether every epoch is listed."""
    return all(str(epoch) in manifest for epoch in range(num_epochs))


def write_joints(signals: Location, joints: Mapping[int, Any]) -> None:
    """Write the class statistics of all epochs. joints: epoch -> `JointCounter.cells`, int64 (n, 3)."""
    epochs = np.concatenate([np.full(len(cells), epoch, np.int64) for epoch, cells in joints.items()] or [_EMPTY])
    cells = np.concatenate([np.asarray(cells) for cells in joints.values()] or [np.empty((0, 3), np.int64)])
    columns = {
        "epoch": epochs,
        schema.GIVEN_LABEL: cells[:, 0],
        schema.PREDICTED_LABEL: cells[:, 1],
        "count": cells[:, 2],
    }
    (signals / JOINTS).write_table(pa.table(columns), compression="zstd")


def read_noise_rate(signals: Location, epochs: int) -> NoiseRate | None:
    """The noise rate that a training's class statistics say; None when it was too short for any."""
    table = (signals / JOINTS).read_table()
    epoch, count = table["epoch"].to_numpy(), table["count"].to_numpy()
    is_diagonal = table[schema.GIVEN_LABEL].to_numpy() == table[schema.PREDICTED_LABEL].to_numpy()
    return estimate_noise_rate(epoch, is_diagonal, count, epochs)
