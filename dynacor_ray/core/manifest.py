"""The manifest of packed data: written last, so its presence marks the data complete."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import StorageError, expected_got
from dynacor_ray.core.robust_scaling import RobustScaling
from dynacor_ray.core.storage import Location

MANIFEST = "manifest.json"
TARGET_NORM = 10.0
"""Root-mean-square norm of a scaled feature vector: about that of raw CLIP embeddings, for which Table 5 is tuned."""
_AT_HAND = 1 << 15
"""Numbers that stay in a processor's cache."""
_ROUNDING = 1e-12
"""Of the mean square: what float64 sums leave of a variance of 0."""


@dataclass(frozen=True)
class FeatureStats:
    """Sums over feature vectors that merge by addition.

    Attributes:
        count: number of vectors.
        total: sum of the vectors, length D.
        squares: sum of their squared norms.
    """

    count: int
    total: tuple[float, ...]
    squares: float

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean vector, float64 (D,)."""
        return np.asarray(self.total) / max(self.count, 1)

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> FeatureStats:
        """Sums of one block. features: float (n, D)."""
        total = features.sum(axis=0, dtype=np.float64)
        return cls(len(features), tuple(total.tolist()), _sum_of_squares(np.ravel(features)))

    def __add__(self, other: FeatureStats) -> FeatureStats:
        total = np.add(self.total, other.total)
        return FeatureStats(self.count + other.count, tuple(total.tolist()), self.squares + other.squares)

    def scaling(self) -> tuple[NDArray[np.float32], float]:
        """What centers and scales the vectors.

        Returns:
            Mean vector, float32 (D,), and the factor that gives centered vectors the root-mean-square norm TARGET_NORM.
        """
        return self.mean.astype(np.float32), TARGET_NORM / float(np.sqrt(max(self.variance, 1e-12)))

    @property
    def variance(self) -> float:
        """Mean squared distance to the mean."""
        mean = self.mean
        return self.squares / max(self.count, 1) - float(mean @ mean)

    @property
    def is_constant(self) -> bool:
        """Whether all vectors are equal, as far as sums can tell."""
        return self.variance <= _ROUNDING * self.squares / max(self.count, 1)


def _sum_of_squares(values: NDArray[np.float32]) -> float:
    """`np.square(values, dtype=np.float64).sum()` to the last bit, by parts that a processor keeps at hand.

    NumPy adds pairwise (Higham 1993): it cuts at the same places.
    """
    if len(values) <= _AT_HAND:
        return float(np.square(values, dtype=np.float64).sum())
    half = len(values) // 2
    half -= half % 8
    return _sum_of_squares(values[:half]) + _sum_of_squares(values[half:])


@dataclass(frozen=True)
class LinedUpFeatures:
    """Features that need `RobustScaling`, and what is known of them after it.

    Attributes:
        scaling: what brings them into line.
        stats: sums over the vectors in line.
        far_rows: rows that are moved back.
        far_examples: instance_id of some of them, increasing.
    """

    scaling: RobustScaling
    stats: FeatureStats
    far_rows: int
    far_examples: tuple[int, ...]


@dataclass(frozen=True)
class DataFile:
    """One file of a packed table."""

    name: str
    rows: int
    first_id: int
    last_id: int


@dataclass(frozen=True)
class DatasetManifest:
    """Content of `dataset/manifest.json`.

    The files named here lie in a folder of their own per attempt to pack the data.
    """

    source: str
    uri: str
    kind: str
    fingerprint: str
    content_hash: str
    payload_hash: str
    """Hash of ids and images or features, without the labels."""
    num_rows: int
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    feature_dim: int | None
    parts: tuple[DataFile, ...]
    quarantine: str
    truth: str | None
    allows_thumbnails: bool
    max_side: int | None = None
    gray: bool = False
    quarantined: int = 0
    quarantine_reasons: dict[str, int] = field(default_factory=dict)
    quarantine_examples: tuple[dict[str, Any], ...] = ()
    stats: FeatureStats | None = None
    lined_up: LinedUpFeatures | None = None
    """None where features are alike, and are used as they are."""
    duplicates: str | None = None
    """The file of rows that have a twin, `schema.duplicates_schema`; None where there are none."""
    notes: tuple[str, ...] = ()
    """What was taken for what in the data, where nothing is lost."""
    warnings: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    def write(self, folder: Location) -> None:
        """Write the manifest, which declares the data set complete."""
        (folder / MANIFEST).write_json(asdict(self))

    @classmethod
    def read(cls, folder: Location) -> DatasetManifest | None:
        """The manifest, or None when the data set is not complete.

        Raises:
            StorageError: the file is not a manifest.
        """
        place = folder / MANIFEST
        if not place.exists():
            return None
        raw = place.read_json()
        if isinstance(raw, dict) and not {"payload_hash", "duplicates"} <= raw.keys():  # packed by an older version
            return None
        try:
            raw["parts"] = tuple(DataFile(**part) for part in raw["parts"])
            raw["stats"], raw["lined_up"] = read_stats(raw["stats"]), read_lined_up(raw["lined_up"])
            for name in ("class_names", "class_counts", "quarantine_examples", "notes", "warnings"):
                raw[name] = tuple(raw.get(name, ()))
            manifest = cls(**raw)
            files = [*(part.name for part in manifest.parts), manifest.quarantine]
            files += [name for name in (manifest.truth, manifest.duplicates) if name is not None]
            if any(name.startswith("/") or ".." in name.split("/") for name in files):
                raise ValueError("a file outside its folder")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            got = f"something else ({type(error).__name__}: {error})"
            remedy = f"remove {folder}"
            raise StorageError(expected_got(f"the manifest of packed data in {place}", got, remedy)) from error
        return manifest


def read_stats(raw: dict[str, Any] | None) -> FeatureStats | None:
    """FeatureStats from their JSON form."""
    return None if raw is None else FeatureStats(raw["count"], tuple(raw["total"]), raw["squares"])


def read_lined_up(raw: dict[str, Any] | None) -> LinedUpFeatures | None:
    """LinedUpFeatures from their JSON form."""
    if raw is None:
        return None
    held: dict[str, Any] = {
        n: tuple(value) if isinstance(value, list) else value for n, value in raw["scaling"].items()
    }
    stats = read_stats(raw["stats"])
    assert stats is not None
    return LinedUpFeatures(RobustScaling(**held), stats, raw["far_rows"], tuple(raw["far_examples"]))
