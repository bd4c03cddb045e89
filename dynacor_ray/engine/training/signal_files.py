"""Signals on disk: one file per epoch, attempt and rank, and a manifest that says which of them count.

A reported epoch can still be rolled back by a later failure, and a repeated epoch writes under new names; so a file
counts only when the manifest of the last checkpoint lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location
from dynacor_ray.decision.noise_rate import BINS
from dynacor_ray.method.dynamics import to_float16_keeping_sign

SignalManifest: TypeAlias = dict[str, list[str]]
"""Epoch (as a string, since it is kept as JSON) -> file names below `signals/`, one per rank."""

SIGNALS = "signals"
CHECKPOINT = "checkpoint.pt"
"""What the next attempt goes on from: state dicts, and which signals count. Gone when the training is complete."""
TARGET = "target"
"""Column with a vector per row that a loss keeps from epoch to epoch."""
CLEAN = "clean_probability"
"""Column with the probability that a row's label is right, by which DivideMix divided the rows."""
PROGRESS = "progress.json"
"""Epochs done, and seconds of the last attempt: in training, and of these in waiting for rows."""
FAILED = "failed.json"
"""Why the last attempt failed, where another one would fail in the same way."""
CONFIDENCE = "confidence.parquet"
"""How sure the predictions of each epoch were: epoch, is_corrupted, disagrees (with the label), bin, count."""
JOINTS = "joints.parquet"
"""The confident joint of each epoch: epoch, given_label, predicted_label (-1: any other), count."""
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [schema.PREDICTED],
    "column_encoding": {schema.KEY: "DELTA_BINARY_PACKED"},
    "write_statistics": [schema.KEY],
}
"""Keys are unique and sorted, margins all different: a dictionary of either costs more than all the rest of writing."""
GROUP_ROWS = 65_536
"""Rows of a row group: few, so that a range of keys is read without the rest."""


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

    def table(start: int) -> pa.Table:
        rows = order[start : start + GROUP_ROWS]
        return as_table(keys[rows], {name: values[rows] for name, values in recorded.items()})

    def write(part: Location) -> None:
        coming = table(0)
        with pq.ParquetWriter(part.path, coming.schema, filesystem=part.filesystem, **_ENCODING) as writer:
            # One group at a time: all rows in their order would be all that was recorded once more.
            for start in range(0, len(order), GROUP_ROWS):
                writer.write_table(coming if start == 0 else table(start), GROUP_ROWS)

    place.write_atomically(write)
    return len(order)


def signal_table(keys: np.ndarray, recorded: dict[str, np.ndarray]) -> pa.Table:
    """Margins and predicted classes as `schema.signal_schema`. Raises TrainingError on NaN."""
    margins = to_float16_keeping_sign(recorded[schema.MARGIN])
    columns = [keys, margins, recorded[schema.PREDICTED].astype(np.int32)]
    if schema.LEAVE_ONE_OUT in recorded:
        columns.append(recorded[schema.LEAVE_ONE_OUT].astype(np.float32))
    wanted = schema.signal_schema(leave_one_out=schema.LEAVE_ONE_OUT in recorded)
    table = pa.table([pa.array(column) for column in columns], schema=wanted)
    for name in schema.CLASS_SCORES:
        if name in recorded:
            table = table.append_column(name, schema.fixed_size_list(recorded[name].astype(np.float16)))
    if schema.LIKELY_CLASSES in recorded:
        classes = recorded[schema.LIKELY_CLASSES].astype(np.int32)
        table = table.append_column(schema.LIKELY_CLASSES, schema.fixed_size_list(classes))
    return table


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
    rows = [np.insert(np.asarray(cells), 0, epoch, axis=1) for epoch, cells in joints.items()]
    columns = np.concatenate([np.empty((0, 4), np.int64), *rows]).T
    names = ("epoch", schema.GIVEN_LABEL, schema.PREDICTED_LABEL, "count")
    (signals / JOINTS).write_table(pa.table(dict(zip(names, columns, strict=True))), compression="zstd")


def write_confidence(signals: Location, counts: Mapping[int, Any]) -> None:
    """Write the counts by certainty of all epochs. counts: epoch -> `JointCounter.confidence`, int64 (2, 2, BINS)."""
    epochs = sorted(counts)
    stacked = np.stack([np.zeros((2, 2, BINS), np.int64), *(np.asarray(counts[epoch]) for epoch in epochs)])
    epoch, corrupted, disagrees, place = np.nonzero(stacked)
    columns = {
        "epoch": np.array([-1, *epochs])[epoch],
        "is_corrupted": corrupted.astype(bool),
        "disagrees": disagrees.astype(bool),
        "bin": place,
        "count": stacked[epoch, corrupted, disagrees, place],
    }
    (signals / CONFIDENCE).write_table(pa.table(columns), compression="zstd")
