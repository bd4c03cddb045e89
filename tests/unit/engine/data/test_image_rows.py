"""Images as rows to train on: originals as they are, copies augmented with another label."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.image_decoding import center_crop_resize, load_rgb
from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.embed import EmbeddingChunk
from dynacor_ray.engine.data.image_rows import ImageReader
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupted_label, is_selected
from tests.image_jobs import CLASSES, SIDE


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **how)
    return data.getvalue()


def strange_images() -> list[bytes]:
    """One of each kind that people have: color, gray, CMYK, 16 bits, alpha, turned by EXIF, tiny, long."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    color = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        encoded(color),
        encoded(color.convert("L")),
        encoded(color.convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)),
        encoded(color.convert("RGBA")),
        encoded(color, "JPEG", exif=turned),
        encoded(color.resize((3, 2))),
        encoded(color.resize((200, 10))),
    ] * 4


def test_the_reader_gives_originals_and_augmented_copies(tmp_path: Path) -> None:
    images, corruption = strange_images(), CorruptionConfig(gamma=0.4, seed=5)
    ids, given = np.arange(len(images)) + 100, (np.arange(len(images)) % CLASSES).astype(np.int32)
    pq.write_table(pa.table({schema.INSTANCE_ID: ids, schema.IMAGE: images}), tmp_path / "part", row_group_size=5)
    reader = ImageReader(locate(str(tmp_path)), CLASSES, corruption, "crop", SIDE)
    labels = GivenLabels(ids, given)
    table = pa.concat_tables(
        [reader(EmbeddingChunk(0, "part", 0, 13), labels), reader(EmbeddingChunk(1, "part", 13, 19), labels)]
    )
    number, is_copy = schema.decode_key(table[schema.KEY].to_numpy())
    pixels = schema.matrix(table[schema.FEATURE]).reshape(-1, SIDE, SIDE, 3)
    copied = ids[is_selected(ids, corruption)]
    assert sorted(number[~is_copy]) == ids.tolist()
    assert sorted(number[is_copy]) == copied.tolist() != []
    for at, (instance, copy) in enumerate(zip(number, is_copy, strict=True)):
        image = load_rgb(images[instance - 100], SIDE)
        assert np.array_equal(pixels[at], center_crop_resize(image) if copy else image)
    label = table[LABEL].to_numpy()
    assert np.array_equal(label[~is_copy], given[number[~is_copy] - 100])
    wrong = corrupted_label(given[number[is_copy] - 100], number[is_copy], CLASSES, 5)
    assert np.array_equal(label[is_copy], wrong)


def test_the_reader_without_copies(tmp_path: Path) -> None:
    images = strange_images()
    ids = np.arange(len(images))
    pq.write_table(pa.table({schema.INSTANCE_ID: ids, schema.IMAGE: images}), tmp_path / "part")
    reader = ImageReader(locate(str(tmp_path)), CLASSES, None, "crop", SIDE)
    table = reader(EmbeddingChunk(0, "part", 0, len(ids)), GivenLabels(ids, np.zeros(len(ids), np.int32)))
    assert table[schema.KEY].to_pylist() == (ids << 1).tolist()
