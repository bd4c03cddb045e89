"""From signal files to dynamics (Eq. 1): blocks by range of instance_id, and a parquet file.

Every block proves its own coverage: each expected key occurs exactly once in each epoch. A task makes several
blocks, one after the other from files that stay open: at most MOST_TASKS tasks open a file, however many blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.manifest import DataFile
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels, PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import read_files, write_rows
from dynacor_ray.decision.likely_classes import MOST_CLASSES
from dynacor_ray.decision.prediction_summary import summarize_predictions
from dynacor_ray.engine.runtime.blocks import Blocks, blocks_of
from dynacor_ray.engine.runtime.session import on_cluster
from dynacor_ray.engine.runtime.tasks import run_streams, share
from dynacor_ray.engine.training.open_files import ReadBetween, open_files
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.method.corruption import CorruptionConfig, is_selected

BLOCK_BYTES = 96 << 20
"""Aimed size of one block of dynamics while it is assembled."""
BYTES_PER_SIGNAL = 6
"""Margin and predicted class."""
MOST_TASKS = 16
"""Tasks that share the blocks of one data set on a cluster."""
HAS_COPY = "has_copy"
IdRange = tuple[int, int, tuple[DataFile, ...]]
"""From low to below high, and the packed files that the range touches."""


@dataclass(frozen=True)
class _Assembler:
    """Makes the blocks of some ranges of ids; runs in a task, and again if a block is lost."""

    dataset: Location
    signals: RecordedSignals
    corruption: CorruptionConfig | None
    has_class_scores: bool

    def __call__(self, ranges: Sequence[IdRange], labels: GivenLabels) -> Iterator[pa.Table]:
        with open_files() as read:
            for one in ranges:
                yield self._block(one, labels, read)

    def _block(self, ids_of: IdRange, labels: GivenLabels, read: ReadBetween) -> pa.Table:
        low, high, touched = ids_of
        columns = [schema.INSTANCE_ID, schema.URI]
        rows = pa.concat_tables([read(self.dataset / part.name, columns, low, high - 1) for part in touched])
        learned = labels.of(rows[schema.INSTANCE_ID].to_numpy()) != LEFT_OUT
        if not learned.all():
            rows = rows.filter(pa.array(learned))
        ids = rows[schema.INSTANCE_ID].to_numpy()
        has_copy = np.zeros(len(ids), bool) if self.corruption is None else is_selected(ids, self.corruption)
        keys = np.concatenate([schema.encode_key(ids, False), schema.encode_key(ids[has_copy], True)])
        source = np.concatenate([np.arange(len(ids)), np.flatnonzero(has_copy)])
        order = np.argsort(keys)
        keys, source = keys[order], source[order]
        epochs = self.signals.epochs
        margins = np.empty((len(keys), len(epochs)), np.float16)
        predicted = np.empty((len(keys), len(epochs)), np.int32)
        left_out = np.zeros(len(keys), np.float32)
        for column, epoch in enumerate(epochs):
            names = schema.signal_schema(leave_one_out=epoch == schema.LEAVE_ONE_OUT_EPOCH).names
            signals = self.signals.columns(epoch, keys, names, read=read)
            margins[:, column], predicted[:, column] = signals[schema.MARGIN], signals[schema.PREDICTED]
            left_out = signals.get(schema.LEAVE_ONE_OUT, left_out)
        label, share = summarize_predictions(predicted)
        made = [pa.array(keys), schema.fixed_size_list(margins), *map(pa.array, (label, share, left_out))]
        table = pa.table(made, schema=schema.dynamics_schema(len(epochs)))
        known = rows.take(pa.array(source))
        given = labels.of(known[schema.INSTANCE_ID].to_numpy())
        table = table.append_column(schema.GIVEN_LABEL, pa.array(given, pa.int32()))
        table = table.append_column(schema.URI, known[schema.URI])
        table = table.append_column(HAS_COPY, pa.array(has_copy[source]))
        if not self.has_class_scores:
            return table
        classes, scores = map(schema.fixed_size_list, self.signals.class_scores(keys, read))
        return table.append_column(schema.LIKELY_CLASSES, classes).append_column(schema.ALL_CLASS_SCORES, scores)


def assemble(
    dataset: PackedDataset, signals: RecordedSignals, corruption: CorruptionConfig | None, progress: Progress
) -> Blocks:
    """Dynamics of all rows that were trained on (Eq. 1), sorted by key.

    Args:
        dataset: The packed data, with the labels that were trained on.
        signals: What the training recorded.
        corruption: Which rows got a copy; None without copies.
        progress: Where the rows done are shown.

    Returns:
        The columns of `schema.dynamics_schema`, given_label, uri and has_copy of the row's instance, likely_classes
            and class_scores where they were recorded.

    Raises:
        CoverageError: A row does not have exactly one signal per epoch.
    """
    has_scores, rows = signals.has_class_scores, dataset.manifest.num_rows
    assembler, known = _Assembler(dataset.folder, signals, corruption, has_scores), share(dataset.labels())
    ranges = list(id_ranges(dataset, len(signals.files), has_scores))
    groups = _in_groups(ranges, MOST_TASKS if on_cluster() else 1)
    made = {}
    with progress.stage("assemble", rows, "rows") as bar:
        for place, block in run_streams(assembler, [(group, known) for group in groups], list(map(len, groups))):
            made[place] = block
            bar.update(rows * len(made) // len(ranges))  # blocks of about as many rows each
    return blocks_of([made[place] for place in sorted(made)])


def _in_groups(ranges: Sequence[IdRange], most: int) -> list[Sequence[IdRange]]:
    """Consecutive ranges together, at most so many groups and none empty."""
    count = min(most, len(ranges))
    return [ranges[len(ranges) * at // count : len(ranges) * (at + 1) // count] for at in range(count)]


def id_ranges(dataset: PackedDataset, num_epochs: int, has_scores: bool = False) -> Iterator[IdRange]:
    """Ranges [low, high) of instance_id with about BLOCK_BYTES of dynamics each, and the packed files they touch."""
    scores = (2 * len(schema.CLASS_SCORES) + 4) * min(dataset.num_classes, MOST_CLASSES) * has_scores
    most = max(1, BLOCK_BYTES // (num_epochs * BYTES_PER_SIGNAL + scores))
    for low, high in itertools.pairwise(_edges(dataset, most)):
        touched = tuple(part for part in dataset.manifest.parts if part.first_id < high and part.last_id >= low)
        if touched:
            yield low, high, touched


def _edges(dataset: PackedDataset, most: int) -> list[int]:
    """Increasing ids that cut the data into ranges of about `most` rows, however the ids are spread."""
    parts = dataset.manifest.parts
    if dataset.manifest.num_rows <= most:
        return [min(part.first_id for part in parts), max(part.last_id for part in parts) + 1]
    ids = np.sort(read_files(dataset.files, [schema.INSTANCE_ID])[schema.INSTANCE_ID].to_numpy())
    return [*ids[::most].tolist(), int(ids[-1]) + 1]


def write_dynamics(dynamics: Blocks, place: Location, num_epochs: int) -> None:
    """Write `dynamics.parquet`, one block at a time, whole or not at all."""
    write_rows(place, schema.dynamics_schema(num_epochs), dynamics)
