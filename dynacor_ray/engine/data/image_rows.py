"""From packed images to training rows of pixels: key, label, feature; originals and corrupted copies (§4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.embed import EmbeddingChunk, augmented, read_range
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupted_label, is_selected


@dataclass(frozen=True)
class ImageReader:
    """Decodes the images of a unit to uint8 squares of `side`; a copy's is `augmented`, once and for all.

    corruption: None for the originals alone. augmentation: of the copies, as in `engine.embed.augmented`.
    """

    dataset: Location
    num_classes: int
    corruption: CorruptionConfig | None
    augmentation: str
    side: int

    def __call__(self, unit: EmbeddingChunk, labels: GivenLabels) -> pa.Table:
        """`key`, `label`, and `feature` uint8 of length 3 * side**2: originals, then copies, each decoded once."""
        rows = read_range(self.dataset / unit.part, unit.first, unit.rows, [schema.INSTANCE_ID, schema.IMAGE])
        ids = rows[schema.INSTANCE_ID].to_numpy()
        # Which rows get a copy, and its label, is settled on their ids alone, before an image is decoded.
        has_copy = np.zeros(len(ids), bool) if self.corruption is None else is_selected(ids, self.corruption)
        given = labels.of(ids)
        if self.corruption is not None:
            wrong = corrupted_label(given[has_copy], ids[has_copy], self.num_classes, self.corruption.seed)
            given = np.concatenate([given, wrong])
        keys = np.concatenate([schema.encode_key(ids, False), schema.encode_key(ids[has_copy], True)])
        images = np.empty((len(keys), 3 * self.side * self.side), np.uint8)
        at = len(ids)
        for number, data in enumerate(rows[schema.IMAGE]):
            image = load_rgb(data.as_py(), self.side)
            images[number] = image.reshape(-1)
            if has_copy[number]:
                images[at] = augmented(image, self.augmentation).reshape(-1)
                at += 1
        columns = {schema.KEY: pa.array(keys), LABEL: pa.array(given, pa.int32())}
        return pa.table(columns | {schema.FEATURE: schema.fixed_size_list(images)})
