"""The embedded demo: scikit-learn's 1,797 handwritten digits with 20% of the labels made wrong, and known truth."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core.hashing import digest
from dynacor_ray.ground_truth.synthetic_noise import symmetric
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import label_codes
from dynacor_ray.sources.image_files import png, raw_images

NOISE_RATE = 0.2
SCALE = 4
"""8x8 digits become 32x32 images, each pixel a square, so that averaging over squares restores the digit."""


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Images uint8 (1797, 32, 32) and true labels int32 (1797,)."""
    # The file itself: scikit-learn takes a second to load.
    found = importlib.util.find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    table = np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    small = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return small.repeat(SCALE, axis=1).repeat(SCALE, axis=2), table[:, -1].astype(np.int32)


def _given(seed: int) -> NDArray[np.int32]:
    """Labels with symmetric noise, keyed by instance; int32 (1797,)."""
    true_labels = _digits()[1]
    ids = np.arange(len(true_labels), dtype=np.int64)
    return np.asarray(symmetric(true_labels, ids, NOISE_RATE, 10, seed), dtype=np.int32)


@dataclass(frozen=True)
class DemoShard(Shard):
    """Some of the digits. seed: decides which labels are wrong."""

    seed: int

    def _slice(self) -> slice:
        return slice(self.first_row, self.first_row + self.num_rows)

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return pa.array(_given(self.seed)[self._slice()]).cast(pa.string())

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        images, true_labels = _digits()
        uris = [f"digits/{row:05d}" for row in range(self.first_row, self.first_row + self.num_rows)]
        contents = [png(image) for image in images[self._slice()]]
        truths = pa.array(true_labels[self._slice()]).cast(pa.string())
        return raw_images(self.first_row, uris, self.read_labels(), [None] * len(uris), contents, truths)


class DemoSource(Source):
    """1,797 gray images of 32x32 pixels in ten classes."""

    name = "demo"
    uri = "demo"
    kind = "image"
    class_names = tuple(str(digit) for digit in range(10))
    label_codes = label_codes([str(digit) for digit in range(10)])
    has_truth = True

    def __init__(self, options: SourceOptions) -> None:
        """Load the digits. Of the options only the seed counts, which decides which labels are wrong."""
        self._seed = options.seed
        self.num_rows = len(_digits()[1])

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return digest([self.name, self._seed, NOISE_RATE, SCALE])

    def _shard(self, first: int, count: int) -> Shard:
        return DemoShard(first, count, self._seed)
