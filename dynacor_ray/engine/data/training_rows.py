"""The rows a classifier is trained on, as a lazy Ray Data set: key, label, feature; originals and corrupted copies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
from ray.data import ExecutionOptions
from ray.train import DataConfig

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import TwinLabels
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import EmbeddingChunk, FeatureStore, plan_chunks
from dynacor_ray.engine.data.image_rows import ImageReader, labels_of
from dynacor_ray.engine.data.line_up import in_line
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.runtime.parquet_datasource import read_chunks, read_parts
from dynacor_ray.engine.runtime.session import resources, set_up_data
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupt, is_selected

PADDING_KEY = -1
READ_CPUS = 0.25
"""Small enough for a read task to find room beside the training workers, also on a machine with one CPU."""


@dataclass(frozen=True)
class TrainingRows:
    """How to read the training rows (`build(shuffled)`), and what is known of them."""

    build: Callable[[bool], ray.data.Dataset]
    facts: RowFacts


def rows_of_features(dataset: PackedDataset, corruption: CorruptionConfig | None, plain: bool = False) -> TrainingRows:
    """Rows of a data set that holds feature vectors; §4.2 is applied each time the rows are read.

    Args:
        dataset: The packed features.
        corruption: Which rows get a copy; None for the originals alone.
        plain: Whether features are used as they are, also where they are not in line, and duplicates as if they were
            none.

    Raises:
        DataError: No row gets a copy.
    """
    assert dataset.manifest.feature_dim is not None
    lined_up = None if plain else dataset.manifest.lined_up
    stats = lined_up.stats if lined_up else dataset.manifest.stats
    assert stats is not None
    num_classes = dataset.num_classes

    def build(shuffled: bool) -> ray.data.Dataset:
        known = ray.put(dataset.labels())

        def add_copies(block: pa.Table) -> pa.Table:
            block, ids = in_line(block, lined_up), block[schema.INSTANCE_ID].to_numpy()
            given = pa.array(ray.get(known).of(ids), pa.int32())
            if corruption is not None:
                rows = block.select([schema.INSTANCE_ID, schema.FEATURE]).append_column(schema.GIVEN_LABEL, given)
                return corrupt(rows, corruption, num_classes).select([schema.KEY, LABEL, schema.FEATURE])
            keys = pa.array(schema.encode_key(ids, False))
            return pa.table({schema.KEY: keys, LABEL: given, schema.FEATURE: block[schema.FEATURE]})

        rows = read_rows(dataset.files, [schema.INSTANCE_ID, schema.FEATURE], shuffled)
        return rows.map_batches(add_copies, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS)

    dim, twins = dataset.manifest.feature_dim, None if plain else twin_labels(dataset, corruption)
    return _described(build, dataset, corruption, dim, *stats.scaling(), twins)


def rows_of_embeddings(
    store: FeatureStore, dataset: PackedDataset, corruption: CorruptionConfig | None, plain: bool = False
) -> TrainingRows:
    """Rows of an embedded image set.

    Args:
        store: The embeddings.
        dataset: The packed images, with the labels to learn.
        corruption: Which of the embedded copies are used (§4.2); None for the originals alone.
        plain: As in `rows_of_features`.

    Raises:
        DataError: No row gets a copy.
    """
    folders = (store.originals, store.copies) if corruption is not None else (store.originals,)
    files = [folder / name for folder in folders for name in store.files]
    num_classes, lined_up = dataset.num_classes, None if plain else store.lined_up
    stats = lined_up.stats if lined_up else store.stats

    def build(shuffled: bool) -> ray.data.Dataset:
        known = ray.put(dataset.labels())

        def label(block: pa.Table) -> pa.Table:
            ids, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
            if corruption is not None:
                block = block.filter(pa.array(~is_copy | is_selected(ids, corruption)))
            block = in_line(block, lined_up)
            given = labels_of(block[schema.KEY].to_numpy(), ray.get(known), num_classes, corruption)
            return pa.table({schema.KEY: block[schema.KEY], LABEL: given, schema.FEATURE: block[schema.FEATURE]})

        rows = read_rows(files, [schema.KEY, schema.FEATURE], shuffled)
        return rows.map_batches(label, batch_format="pyarrow", batch_size=None, num_cpus=READ_CPUS)

    twins = None if plain else twin_labels(dataset, corruption)
    return _described(build, dataset, corruption, store.dim, *stats.scaling(), twins)


def rows_of_images(
    dataset: PackedDataset, corruption: CorruptionConfig | None, augmentation: str, side: int, plain: bool = False
) -> TrainingRows:
    """Rows of an image set as pixels, decoded each time the rows are read: uint8 (n, 3 * side**2).

    Args:
        dataset: The packed images.
        corruption: Which rows get a copy (§4.2); None for the originals alone.
        augmentation: Of the copies, as in `embed.augmented`.
        side: Of the squares that images are made, in pixels.
        plain: Whether duplicates are trained on as if they were none.

    Raises:
        DataError: No row gets a copy.
    """
    units = plan_chunks(dataset.manifest, side)
    reader = ImageReader(dataset.folder, dataset.num_classes, corruption, augmentation, side)
    cpus = min(1.0, resources().cpus / 4)  # decoding keeps a core busy, but must find room beside a worker

    def build(shuffled: bool) -> ray.data.Dataset:
        known = ray.put(dataset.labels())

        def decode(unit: EmbeddingChunk) -> Iterator[pa.Table]:
            yield reader(unit, ray.get(known))

        set_up_data()
        # Units are small and come from all over the data: shuffled, rows sorted by class are mixed as well.
        return read_chunks([functools.partial(decode, unit) for unit in units], shuffled, cpus)

    nothing, twins = np.empty(0, np.float32), None if plain else twin_labels(dataset, corruption)
    return _described(build, dataset, corruption, 3 * side * side, nothing, 1.0, twins, "uint8")


def twin_labels(dataset: PackedDataset, corruption: CorruptionConfig | None) -> TwinLabels | None:
    """The labels of equal rows, of which those without a copy may be fitted; None without any."""
    duplicates = dataset.duplicates()
    if duplicates is None:
        return None
    ids = duplicates.ids
    is_fitted = ~is_selected(ids, corruption) if corruption is not None else np.ones(len(ids), np.bool_)
    return TwinLabels.of(duplicates, dataset.labels().of(ids), is_fitted)


def _described(
    build: Callable[[bool], ray.data.Dataset],
    dataset: PackedDataset,
    corruption: CorruptionConfig | None,
    dim: int,
    mean: np.ndarray,
    scale: float,
    twins: TwinLabels | None,
    value_type: str = "float32",
) -> TrainingRows:
    known, rows = dataset.labels(), dataset.manifest.num_rows
    copies = int(is_selected(known.ids, corruption).sum()) if corruption is not None else 0
    if corruption is not None and copies == 0:
        got = f"no row selected out of {rows:,}"
        raise DataError(expected_got("at least one corrupted copy", got, "raise --gamma or use more data"))
    classes = dataset.num_classes
    facts = RowFacts(rows, copies, classes, dim, mean, scale, known.counts(classes), corruption, twins, value_type)
    return TrainingRows(build, facts)


def read_rows(files: list[Location], columns: list[str], shuffled: bool) -> ray.data.Dataset:
    """Parquet files as a lazy data set; `shuffled`: the files come in another order in every epoch."""
    set_up_data()
    return read_parts(files, columns, shuffled, READ_CPUS)


class PaddedDataConfig(DataConfig):
    """Adds `missing_rows` with key -1 so that Ray's equal split loses no row and all ranks step equally."""

    def __init__(self, total: int, dim: int, value_type: str = "float32") -> None:
        options = ExecutionOptions(preserve_order=True)
        super().__init__(execution_options=options)
        self._total, self._dim, self._value_type = total, dim, value_type

    def configure(self, datasets, world_size, worker_handles, worker_node_ids, **kwargs):  # type: ignore[no-untyped-def]
        """Pad every data set, then split as Ray does."""
        missing = missing_rows(self._total, world_size)
        if missing:
            padding = ray.data.from_arrow(padding_rows(missing, self._dim, self._value_type))
            datasets = {name: rows.union(padding) for name, rows in datasets.items()}
        return super().configure(datasets, world_size, worker_handles, worker_node_ids, **kwargs)


def missing_rows(total: int, world_size: int) -> int:
    """What `total` lacks to the next multiple of `world_size`."""
    return -total % world_size


def padding_rows(count: int, dim: int, value_type: str = "float32") -> pa.Table:
    """Rows that take part in a step with weight 0 and leave no signal."""
    return pa.table(
        {
            schema.KEY: pa.array(np.full(count, PADDING_KEY, np.int64)),
            LABEL: pa.array(np.zeros(count, np.int32)),
            schema.FEATURE: schema.fixed_size_list(np.zeros((count, dim), value_type)),
        }
    )
