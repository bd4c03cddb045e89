"""From signal files to dynamics (Eq. 1): object-store blocks by range of instance_id, a Ray data set, a parquet file.

Every block proves its own coverage: each expected key occurs exactly once in each epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import Dataset as Dataset

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError, expected_got
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, retry_transient, storage_errors
from dynacor_ray.decision.prediction_summary import summarize_predictions
from dynacor_ray.engine.data.labels import GivenLabels, LabelTable
from dynacor_ray.engine.runtime.session import remote_errors
from dynacor_ray.method.corruption import CorruptionConfig, is_selected

if TYPE_CHECKING:
    from dynacor_ray.engine.training.signal_files import SignalManifest

BLOCK_BYTES = 96 << 20
"""Aimed size of one block of dynamics while it is assembled."""
BYTES_PER_SIGNAL = 6
"""Margin and predicted class."""
HAS_COPY = "has_copy"


@dataclass(frozen=True)
class _Assembler:
    """Makes the block of one range of ids; runs in a Ray task, and again there if the block is lost."""

    dataset: Location
    signals: Location
    manifest: SignalManifest
    corruption: CorruptionConfig

    def __call__(self, low: int, high: int, parts: tuple[DataFile, ...], labels: GivenLabels) -> pa.Table:
        rows = self._instances(low, high, parts)
        ids = rows[schema.INSTANCE_ID].to_numpy()
        has_copy = is_selected(ids, self.corruption)
        keys = np.concatenate([schema.encode_key(ids, False), schema.encode_key(ids[has_copy], True)])
        source = np.concatenate([np.arange(len(ids)), np.flatnonzero(has_copy)])
        order = np.argsort(keys)
        keys, source = keys[order], source[order]
        epochs = sorted(self.manifest, key=int)
        margins = np.empty((len(keys), len(epochs)), np.float16)
        predicted = np.empty((len(keys), len(epochs)), np.int32)
        left_out = np.zeros(len(keys), np.float32)
        for column, epoch in enumerate(epochs):
            signals = self._epoch(epoch, keys)
            margins[:, column], predicted[:, column] = signals[schema.MARGIN], signals[schema.PREDICTED]
            left_out = signals.get(schema.LEAVE_ONE_OUT, left_out)
        label, share = summarize_predictions(predicted)
        columns = [pa.array(keys), schema.fixed_size_list(margins), *map(pa.array, (label, share, left_out))]
        table = pa.table(columns, schema=schema.dynamics_schema(len(epochs)))
        known = rows.take(pa.array(source))
        given = labels.of(known[schema.INSTANCE_ID].to_numpy())
        table = table.append_column(schema.GIVEN_LABEL, pa.array(given, pa.int32()))
        table = table.append_column(schema.URI, known[schema.URI])
        return table.append_column(HAS_COPY, pa.array(has_copy[source]))

    def _instances(self, low: int, high: int, parts: tuple[DataFile, ...]) -> pa.Table:
        columns = [schema.INSTANCE_ID, schema.URI]
        inside = (pc.field(schema.INSTANCE_ID) >= low) & (pc.field(schema.INSTANCE_ID) < high)
        return pa.concat_tables([_read(self.dataset / part.name, columns, inside) for part in parts])

    def _epoch(self, epoch: str, keys: np.ndarray) -> dict[str, np.ndarray]:
        """The signals of `keys`, in their order. Raises CoverageError unless each is there exactly once."""
        low, high = (int(keys[0]), int(keys[-1])) if len(keys) else (0, -1)
        inside = (pc.field(schema.KEY) >= low) & (pc.field(schema.KEY) <= high)
        columns = schema.signal_schema(leave_one_out=int(epoch) == schema.LEAVE_ONE_OUT_EPOCH).names
        table = pa.concat_tables([_read(self.signals / name, columns, inside) for name in self.manifest[epoch]])
        found = table[schema.KEY].to_numpy()
        order = np.argsort(found)
        found = found[order]
        if not np.array_equal(found, keys):
            raise CoverageError(coverage_message(epoch, keys, found))
        return {name: table[name].to_numpy()[order] for name in columns}


@retry_transient
def _read(place: Location, columns: list[str], inside: pc.Expression) -> pa.Table:
    # Not partitioned: a directory named like `key=7` somewhere above the file is not a column.
    with storage_errors("read", place):
        return pq.read_table(
            place.path, columns=columns, filesystem=place.filesystem, filters=inside, partitioning=None
        )


def coverage_message(epoch: str, expected: np.ndarray, found: np.ndarray) -> str:
    """Names the keys that are missing, doubled or unknown. expected, found: sorted int64."""
    values, counts = np.unique(found, return_counts=True)
    lists = {
        "missing": np.setdiff1d(expected, values),
        "doubled": values[counts > 1],
        "unknown": np.setdiff1d(values, expected),
    }
    got = "; ".join(
        f"{len(keys):,} {name} (instance_id {_shown(keys >> 1)})" for name, keys in lists.items() if len(keys)
    )
    return expected_got(f"exactly one signal per row in epoch {epoch}", got, "report this as a defect")


def _shown(ids: np.ndarray, most: int = 5) -> str:
    return ", ".join(map(str, ids[:most])) + (", ..." if len(ids) > most else "")


def assemble(
    dataset: Location,
    manifest: DatasetManifest,
    signals: Location,
    files: SignalManifest,
    corruption: CorruptionConfig,
    labels: LabelTable,
    progress: Progress,
) -> Dataset:
    """Dynamics of all rows as blocks in the object store, sorted by key.

    Columns: those of `schema.dynamics_schema`, and given_label, uri and has_copy of the row's instance. The blocks are
    results of tasks that the driver submitted: lost ones are made again.
    """
    assembler = _Assembler(dataset, signals, files, corruption)

    # DEFAULT: inside a trial of Ray Tune a task would else be held to the trial's own small share of the cluster.
    @ray.remote(num_cpus=1, scheduling_strategy="DEFAULT")
    def make(low: int, high: int, parts: tuple[DataFile, ...], labels: GivenLabels) -> pa.Table:
        return assembler(low, high, parts, labels)

    known = ray.put(labels.read())
    refs = [make.remote(*piece, known) for piece in id_ranges(dataset, manifest, len(files))]
    with progress.stage("assemble", manifest.num_rows, "rows") as bar, remote_errors():
        for done in range(1, len(refs) + 1):  # blocks of about as many rows each
            ray.wait(refs, num_returns=done, fetch_local=False)
            bar.update(manifest.num_rows * done // len(refs))
        return ray.data.from_arrow_refs(refs)


def id_ranges(
    dataset: Location, manifest: DatasetManifest, num_epochs: int
) -> Iterator[tuple[int, int, tuple[DataFile, ...]]]:
    """Ranges [low, high) of instance_id with about BLOCK_BYTES of dynamics each, and the packed files they touch."""
    most = max(1, BLOCK_BYTES // (num_epochs * BYTES_PER_SIGNAL))
    edges = _edges(dataset, manifest, most)
    for low, high in itertools.pairwise(edges):
        touched = tuple(part for part in manifest.parts if part.first_id < high and part.last_id >= low)
        if touched:
            yield low, high, touched


def _edges(dataset: Location, manifest: DatasetManifest, most: int) -> list[int]:
    """Increasing ids that cut the data into ranges of about `most` rows, however the ids are spread."""
    if manifest.num_rows <= most:
        return [min(p.first_id for p in manifest.parts), max(p.last_id for p in manifest.parts) + 1]
    tables = [(dataset / part.name).read_table([schema.INSTANCE_ID]) for part in manifest.parts]
    ids = np.sort(pa.concat_tables(tables)[schema.INSTANCE_ID].to_numpy())
    return [*ids[::most].tolist(), int(ids[-1]) + 1]


def write_dynamics(dynamics: Dataset, place: Location, num_epochs: int) -> None:
    """Write `dynamics.parquet`, one block at a time, whole or not at all."""
    wanted = schema.dynamics_schema(num_epochs)

    def write(part: Location) -> None:
        with pq.ParquetWriter(part.path, wanted, filesystem=part.filesystem) as writer:
            for block in dynamics.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                writer.write_table(block.select(wanted.names).cast(wanted))

    place.write_atomically(write)


def read_table(place: Location) -> Dataset:
    """A parquet file as a lazy data set."""
    return ray.data.read_parquet(place.path, filesystem=place.filesystem, partitioning=None)
