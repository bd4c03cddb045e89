"""The rows a classifier is trained on, read piece by piece: key, label, feature; originals and corrupted copies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels, PackedDataset
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import FeatureStore, plan_chunks
from dynacor_ray.engine.data.image_rows import ImageReader, labels_of
from dynacor_ray.engine.data.line_up import in_line
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.runtime.chunks import LocalRows, Read
from dynacor_ray.engine.runtime.session import resources, set_up_data
from dynacor_ray.engine.runtime.tasks import Shared, share
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupt, is_selected

if TYPE_CHECKING:
    import ray

READ_CPUS = 0.25
"""Small enough for a read task to find room beside the training workers, also on a machine with one CPU."""


@dataclass(frozen=True)
class TrainingRows:
    """How to read the training rows, and what is known of them.

    Attributes:
        pieces: What is read as a whole, such as files.
        read: A piece and the given labels -> its rows.
        dataset: The packed data, with the labels to learn.
        facts: What the training must know beforehand.
        cpus: Of a Ray task that reads one piece.
    """

    pieces: tuple[Any, ...]
    read: Callable[[Any, GivenLabels], pa.Table]
    dataset: PackedDataset
    facts: RowFacts
    cpus: float = READ_CPUS

    def build(self, shuffled: bool) -> ray.data.Dataset:
        """As a lazy Ray data set; shuffled: the pieces come in another order in every epoch."""
        from dynacor_ray.engine.runtime.chunk_datasource import read_chunks

        set_up_data()
        return read_chunks(self._reads(), shuffled, self.cpus)

    def local(self, shuffled: bool) -> LocalRows:
        """As `build`, in this process."""
        return LocalRows(self._reads(), shuffled)

    def _reads(self) -> list[Read]:
        known = share(self.dataset.labels())
        return [functools.partial(_read, self.read, piece, known) for piece in self.pieces]


def _read(read: Callable[[Any, GivenLabels], pa.Table], piece: Any, known: Shared[GivenLabels]) -> Iterator[pa.Table]:
    yield read(piece, known.get())


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

    def read(file: Location, labels: GivenLabels) -> pa.Table:
        block = in_line(file.read_table([schema.INSTANCE_ID, schema.FEATURE]), lined_up)
        ids = block[schema.INSTANCE_ID].to_numpy()
        known = labels.of(ids)
        given = pa.array(known, pa.int32())
        if corruption is not None:
            rows = block.append_column(schema.GIVEN_LABEL, given)
            if (known == LEFT_OUT).any():  # there is no other label than none
                rows = rows.filter(pa.array(known != LEFT_OUT))
            return corrupt(rows, corruption, num_classes).select([schema.KEY, LABEL, schema.FEATURE])
        keys = pa.array(schema.encode_key(ids, False))
        return pa.table({schema.KEY: keys, LABEL: given, schema.FEATURE: block[schema.FEATURE]})

    twins = None if plain else twin_labels(dataset, corruption)
    facts = _facts(dataset, corruption, dataset.manifest.feature_dim, *stats.scaling(), twins)
    return TrainingRows(tuple(dataset.files), read, dataset, facts)


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
    folders = [store.originals]
    if corruption is not None:
        assert store.copies is not None, "embedded without them"
        folders.append(store.copies)
    files = tuple(folder / name for folder in folders for name in store.files)
    num_classes, lined_up = dataset.num_classes, None if plain else store.lined_up
    stats = lined_up.stats if lined_up else store.stats

    def read(file: Location, labels: GivenLabels) -> pa.Table:
        block = file.read_table([schema.KEY, schema.FEATURE])
        if corruption is not None:
            ids, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
            block = block.filter(pa.array(~is_copy | is_selected(ids, corruption)))
        block = in_line(block, lined_up)
        given = labels_of(block[schema.KEY].to_numpy(), labels, num_classes, corruption)
        return pa.table({schema.KEY: block[schema.KEY], LABEL: given, schema.FEATURE: block[schema.FEATURE]})

    twins = None if plain else twin_labels(dataset, corruption)
    return TrainingRows(files, read, dataset, _facts(dataset, corruption, store.dim, *stats.scaling(), twins))


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
    # Units are small and come from all over the data: shuffled, rows sorted by class are mixed as well.
    units = tuple(plan_chunks(dataset.manifest, side))
    reader = ImageReader(dataset.folder, dataset.num_classes, corruption, augmentation, side)
    cpus = min(1.0, resources().cpus / 4)  # decoding keeps a core busy, but must find room beside a worker
    nothing, twins = np.empty(0, np.float32), None if plain else twin_labels(dataset, corruption)
    facts = _facts(dataset, corruption, 3 * side * side, nothing, 1.0, twins, "uint8")
    return TrainingRows(units, reader, dataset, facts, cpus)


def chosen_rows(rows: TrainingRows, dataset: PackedDataset) -> TrainingRows:
    """Those rows that have a label, with their copies, and with weights where `dataset` has some.

    Args:
        rows: As one of the functions above makes them.
        dataset: The same data with the labels to learn; `LEFT_OUT` for rows that are not.

    Raises:
        DataError: No row is left, or none with a copy.
    """
    known, corruption = dataset.labels(), rows.facts.corruption
    kept, weighted = known.labels != LEFT_OUT, known.weights is not None
    if not kept.any():
        remedy = "check what is left out"
        raise DataError(expected_got("at least one row to train on", f"none of {len(kept):,}", remedy))

    def read(piece: Any, labels: GivenLabels) -> pa.Table:
        table = rows.read(piece, labels)
        table = table.filter(pa.array(table[LABEL].to_numpy() != LEFT_OUT))
        if not weighted:
            return table
        weights = labels.weights_of(table[schema.KEY].to_numpy() >> 1)
        return table.append_column(schema.WEIGHT, pa.array(weights, pa.float32()))

    facts, twins = rows.facts, rows.facts.twins
    if twins is not None:  # those that are left out do not share the weight
        stay = kept[sorted_positions(known.ids, twins.ids)]
        others = Duplicates(twins.ids[stay], twins.first[stay])
        twins = TwinLabels.of(others, known.of(others.ids), _is_fitted(others.ids, corruption))
    counts = np.bincount(known.labels[kept], minlength=facts.num_classes)
    facts = replace(facts, num_originals=int(kept.sum()), num_copies=_count_copies(known.ids[kept], corruption))
    facts = replace(facts, class_counts=counts, twins=twins, weighted=weighted)
    return replace(rows, read=read, dataset=dataset, facts=facts)


def twin_labels(dataset: PackedDataset, corruption: CorruptionConfig | None) -> TwinLabels | None:
    """The labels of equal rows, of which those without a copy may be fitted; None without any."""
    duplicates = dataset.duplicates()
    if duplicates is None:
        return None
    ids = duplicates.ids
    return TwinLabels.of(duplicates, dataset.labels().of(ids), _is_fitted(ids, corruption))


def _is_fitted(ids: np.ndarray, corruption: CorruptionConfig | None) -> np.ndarray:
    return ~is_selected(ids, corruption) if corruption is not None else np.ones(len(ids), np.bool_)


def _count_copies(ids: np.ndarray, corruption: CorruptionConfig | None) -> int:
    """How many of the instances get a copy. Raises DataError for none."""
    if corruption is None:
        return 0
    copies = int(is_selected(ids, corruption).sum())
    if copies == 0:
        got = f"no row selected out of {len(ids):,}"
        raise DataError(expected_got("at least one corrupted copy", got, "raise --gamma or use more data"))
    return copies


def _facts(
    dataset: PackedDataset,
    corruption: CorruptionConfig | None,
    dim: int,
    mean: np.ndarray,
    scale: float,
    twins: TwinLabels | None,
    value_type: str = "float32",
) -> RowFacts:
    known, rows, classes = dataset.labels(), dataset.manifest.num_rows, dataset.num_classes
    copies = _count_copies(known.ids, corruption)
    return RowFacts(rows, copies, classes, dim, mean, scale, known.counts(classes), corruption, twins, value_type)
