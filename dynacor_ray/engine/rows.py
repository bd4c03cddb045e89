"""The rows a classifier is trained on, as a lazy Ray Data set: key, label, feature; originals and corrupted copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
from pyarrow.fs import FileSystem
from ray.data import ExecutionOptions, FileShuffleConfig
from ray.train import DataConfig

from dynacor_ray import schema
from dynacor_ray.engine.embed import FeatureStore
from dynacor_ray.engine.job import RowFacts
from dynacor_ray.errors import DataError, explain
from dynacor_ray.manifest import DatasetManifest
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupt, is_selected
from dynacor_ray.storage import Location

PADDING_KEY = -1
READ_CPUS = 0.25
"""Small enough for a read task to find room beside the training workers, also on a machine with one CPU."""


@dataclass(frozen=True)
class TrainingRows:
    """How to read the training rows (`build(shuffled)`), and what is known of them."""

    build: Callable[[bool], ray.data.Dataset]
    facts: RowFacts


def rows_of_features(dataset: Location, manifest: DatasetManifest, corruption: CorruptionConfig) -> TrainingRows:
    """Rows of a data set that holds feature vectors; §4.2 is applied on the fly, each time the rows are read."""
    assert manifest.feature_dim is not None
    assert manifest.stats is not None
    paths = [(dataset / part.name).path for part in manifest.parts]
    copies = count_copies(dataset, manifest, corruption)
    columns = [schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.FEATURE]
    num_classes, filesystem = manifest.num_classes, dataset.filesystem

    def add_copies(block: pa.Table) -> pa.Table:
        return corrupt(block.select(columns), corruption, num_classes)

    def build(shuffled: bool) -> ray.data.Dataset:
        rows = read_rows(paths, filesystem, columns, shuffled)
        return rows.map_batches(add_copies, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS)

    return _checked(build, manifest, copies, manifest.feature_dim, *manifest.stats.scaling())


def rows_of_embeddings(dataset: Location, store: FeatureStore, manifest: DatasetManifest) -> TrainingRows:
    """Rows of an embedded image set: originals, and copies as they were embedded (augmented image, corrupted label)."""
    paths = [(folder / name).path for folder in (store.originals, store.copies) for name in store.files]
    filesystem, corruption = store.originals.filesystem, store.corruption
    copies = count_copies(dataset, manifest, corruption)

    def of_this_gamma(block: pa.Table) -> pa.Table:
        ids, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
        return block.filter(pa.array(~is_copy | is_selected(ids, corruption)))

    def build(shuffled: bool) -> ray.data.Dataset:
        rows = read_rows(paths, filesystem, [schema.KEY, LABEL, schema.FEATURE], shuffled)
        if copies == store.num_embedded_copies:
            return rows
        return rows.map_batches(of_this_gamma, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS)

    return _checked(build, manifest, copies, store.dim, *store.stats.scaling())


def count_copies(dataset: Location, manifest: DatasetManifest, corruption: CorruptionConfig) -> int:
    """How many rows of a packed data set get a corrupted copy."""
    return sum(int(is_selected(read_ids(dataset / part.name), corruption).sum()) for part in manifest.parts)


def _checked(
    build: Callable[[bool], ray.data.Dataset],
    manifest: DatasetManifest,
    copies: int,
    dim: int,
    mean: np.ndarray,
    scale: float,
) -> TrainingRows:
    if copies == 0:
        got = f"no row selected out of {manifest.num_rows:,}"
        raise DataError(explain("at least one corrupted copy", got, "raise --gamma or use more data"))
    return TrainingRows(build, RowFacts(manifest.num_rows, copies, manifest.num_classes, dim, mean, scale))


def read_rows(paths: list[str], filesystem: FileSystem, columns: list[str], shuffled: bool) -> ray.data.Dataset:
    """Parquet files as a lazy data set; `shuffled`: the files come in another order in every epoch."""
    # Not partitioned: a directory named like `label=7` somewhere above the files is not a column.
    # Only the order of files is random here; every row is read once in any case.
    order = FileShuffleConfig(seed=0, reseed_after_execution=True) if shuffled else None
    return ray.data.read_parquet(
        paths, filesystem=filesystem, columns=columns, shuffle=order, num_cpus=READ_CPUS, partitioning=None
    )


def read_ids(place: Location) -> np.ndarray:
    """instance_id int64 (n,) of one packed file."""
    ids: np.ndarray = place.read_table([schema.INSTANCE_ID])[schema.INSTANCE_ID].to_numpy()
    return ids


class PaddedDataConfig(DataConfig):
    """Adds `-total % world_size` rows with key -1 so that Ray's equal split loses no row and all ranks step equally."""

    def __init__(self, total: int, dim: int) -> None:
        options = ExecutionOptions(preserve_order=True)
        super().__init__(execution_options=options)
        self._total, self._dim = total, dim

    def configure(self, datasets, world_size, worker_handles, worker_node_ids, **kwargs):  # type: ignore[no-untyped-def]
        """Pad every data set, then split as Ray does."""
        missing = -self._total % world_size
        if missing:
            padding = ray.data.from_arrow(padding_rows(missing, self._dim))
            datasets = {name: rows.union(padding) for name, rows in datasets.items()}
        return super().configure(datasets, world_size, worker_handles, worker_node_ids, **kwargs)


def padding_rows(count: int, dim: int) -> pa.Table:
    """Rows that take part in a step with weight 0 and leave no signal."""
    return pa.table(
        {
            schema.KEY: pa.array(np.full(count, PADDING_KEY, np.int64)),
            LABEL: pa.array(np.zeros(count, np.int32)),
            schema.FEATURE: schema.fixed_size_list(np.zeros((count, dim), np.float32)),
        }
    )
