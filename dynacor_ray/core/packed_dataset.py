"""Packed data: where their files are, what is known of them, and given labels, which may replace those packed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.duplicates import MOST_COPIES, Duplicates
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import read_files

LEFT_OUT = -1
"""In place of the label of a row that is not trained on."""


@dataclass(frozen=True)
class GivenLabels:
    """ids: int64 (N,), increasing; labels: int32 (N,); weights: float32 (N,), what a row counts in a training.

    weights None: all count alike.
    """

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None

    def of(self, ids: np.ndarray) -> np.ndarray:
        """The labels of some instances. int64 (n,) -> int32 (n,). Raises DataError for an unknown id."""
        labels: np.ndarray = self.labels[self._places(ids)]
        return labels

    def weights_of(self, ids: np.ndarray) -> np.ndarray:
        """What some instances count. int64 (n,) -> float32 (n,). Raises DataError for an unknown id."""
        at = self._places(ids)
        return np.ones(len(ids), np.float32) if self.weights is None else self.weights[at]

    def _places(self, ids: np.ndarray) -> np.ndarray:
        at = sorted_positions(self.ids, ids)
        if (at < 0).any():
            got = f"none for instance_id {int(ids[at < 0][0])}"
            raise DataError(expected_got("a given label for every instance", got, "pack the data again"))
        return at

    def counts(self, num_classes: int) -> np.ndarray:
        """Instances per class, int64 (C,)."""
        return np.bincount(self.labels, minlength=num_classes)


@dataclass(frozen=True)
class PackedDataset:
    """A folder of packed data and its manifest; small, so it can be sent to wherever its rows are read.

    relabeled: a file of labels that replace those packed: other labels on the same images need no new embedding.
    """

    folder: Location
    manifest: DatasetManifest
    relabeled: Location | None = None

    @classmethod
    def read(cls, folder: Location) -> PackedDataset | None:
        """The data set in a folder, or None when it is not complete. Raises StorageError when it is none of ours."""
        manifest = DatasetManifest.read(folder)
        return cls(folder, manifest) if manifest is not None else None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.manifest.num_classes

    @property
    def files(self) -> list[Location]:
        """The files with the rows: instance_id, uri, given_label, and image or feature."""
        return [self.folder / part.name for part in self.manifest.parts]

    @property
    def truth(self) -> Location | None:
        """The file of true labels, where they are known."""
        return self.folder / self.manifest.truth if self.manifest.truth else None

    def duplicates(self) -> Duplicates | None:
        """The rows that have a twin: 16 bytes each; None where there are none, or where features are too coarse.

        Of a table with a few answers many rows are equal that are no copies of one thing.
        """
        if self.manifest.duplicates is None:
            return None
        table = (self.folder / self.manifest.duplicates).read_table().sort_by(schema.INSTANCE_ID)
        found = Duplicates(table[schema.INSTANCE_ID].to_numpy(), table[schema.DUPLICATE_OF].to_numpy())
        return found if found.distinct(self.manifest.num_rows) > self.manifest.num_rows / MOST_COPIES else None

    def labels(self) -> GivenLabels:
        """All given labels, in the order of the ids: 12 bytes per instance."""
        names = [schema.INSTANCE_ID, schema.GIVEN_LABEL]
        if self.relabeled is not None:
            table = self.relabeled.read_table()
        else:
            table = read_files(self.files, names)
        order = np.argsort(table[schema.INSTANCE_ID].to_numpy(), kind="stable")
        names += [schema.WEIGHT] if schema.WEIGHT in table.column_names else []
        return GivenLabels(*(table[name].to_numpy()[order] for name in names))

    def with_labels(self, labels: GivenLabels, place: Location) -> PackedDataset:
        """The same rows with other labels, which are written to `place`."""
        columns = {schema.INSTANCE_ID: pa.array(labels.ids), schema.GIVEN_LABEL: pa.array(labels.labels, pa.int32())}
        if labels.weights is not None:
            columns[schema.WEIGHT] = pa.array(labels.weights, pa.float32())
        place.write_table(pa.table(columns), compression="zstd")
        return dataclasses.replace(self, relabeled=place)
