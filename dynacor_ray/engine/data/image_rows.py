"""From packed images to training rows of pixels: key, label, feature; originals and corrupted copies (§4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.packed_dataset import LEFT_OUT, GivenLabels
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import EmbeddingChunk, decode_chunk
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupted_label


@dataclass(frozen=True)
class ImageReader:
    """Decodes the images of a unit to uint8 squares of `side`; a copy's is `augmented`, once and for all.

    corruption: None for the originals alone. augmentation: of the copies, as in `engine.data.embed.augmented`.
    """

    dataset: Location
    num_classes: int
    corruption: CorruptionConfig | None
    augmentation: str
    side: int

    def __call__(self, unit: EmbeddingChunk, labels: GivenLabels) -> pa.Table:
        """`key`, `label`, and `feature` uint8 of length 3 * side**2: originals, then copies, each decoded once."""
        keys, images = decode_chunk(self.dataset, unit, self.corruption, self.side, self.augmentation)
        columns = {schema.KEY: pa.array(keys), LABEL: labels_of(keys, labels, self.num_classes, self.corruption)}
        return pa.table(columns | {schema.FEATURE: schema.fixed_size_list(images.reshape(len(keys), -1))})


def labels_of(keys: np.ndarray, labels: GivenLabels, num_classes: int, corruption: CorruptionConfig | None) -> pa.Array:
    """What is learned of rows: the given label, of a copy another one (§4.2), LEFT_OUT of those that are.

    int64 (n,) -> int32 (n,).
    """
    ids, is_copy = schema.decode_key(keys)
    given = labels.of(ids)
    if corruption is not None:
        drawn = is_copy & (given != LEFT_OUT)
        given[drawn] = corrupted_label(given[drawn], ids[drawn], num_classes, corruption.seed)
    return pa.array(given, pa.int32())
