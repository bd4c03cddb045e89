"""Given labels by instance, apart from the payload: other labels on the same images need no new embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.storage import Location


@dataclass(frozen=True)
class GivenLabels:
    """ids: int64 (N,), increasing; labels: int32 (N,)."""

    ids: np.ndarray
    labels: np.ndarray

    def of(self, ids: np.ndarray) -> np.ndarray:
        """The labels of some instances. int64 (n,) -> int32 (n,). Raises DataError for an unknown id."""
        at = np.minimum(np.searchsorted(self.ids, ids), max(len(self.ids) - 1, 0))
        known = self.ids[at] == ids if len(self.ids) else np.zeros(len(ids), bool)
        if not known.all():
            got = f"none for instance_id {int(ids[~known][0])}"
            raise DataError(expected_got("a given label for every instance", got, "pack the data again"))
        return self.labels[at]

    def counts(self, num_classes: int) -> np.ndarray:
        """Instances per class, int64 (C,)."""
        return np.bincount(self.labels, minlength=num_classes)


@dataclass(frozen=True)
class LabelTable:
    """Where given labels are: files with instance_id and given_label. Small, so it can be sent where they are read."""

    places: tuple[Location, ...]

    @classmethod
    def of_dataset(cls, dataset: Location, manifest: DatasetManifest) -> LabelTable:
        """The labels of packed data."""
        return cls(tuple(dataset / part.name for part in manifest.parts))

    @classmethod
    def write(cls, place: Location, labels: GivenLabels) -> LabelTable:
        """Labels that replace those of the packed data, as an experiment's noise does."""
        columns = {schema.INSTANCE_ID: pa.array(labels.ids), schema.GIVEN_LABEL: pa.array(labels.labels, pa.int32())}
        place.write_table(pa.table(columns), compression="zstd")
        return cls((place,))

    def read(self) -> GivenLabels:
        """All labels, in the order of the ids: 12 bytes per instance."""
        names = [schema.INSTANCE_ID, schema.GIVEN_LABEL]
        table = pa.concat_tables([place.read_table(names) for place in self.places])
        ids, labels = table[schema.INSTANCE_ID].to_numpy(), table[schema.GIVEN_LABEL].to_numpy()
        order = np.argsort(ids, kind="stable")
        return GivenLabels(ids[order], labels[order])
