"""Pictures in a report: new, small, of the right rows, only where they may be shown."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import locate
from dynacor_ray.report.build import make_report
from dynacor_ray.report.thumbnails import read_thumbnails, thumbnail
from tests.made_runs import make_run
from tests.pages import made


def pixels(uri: str) -> Image.Image:
    head, content = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_are_new_and_small() -> None:
    stream = io.BytesIO()
    source = Image.new("RGB", (400, 200), (200, 30, 30))
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    source.save(stream, "JPEG", exif=exif, comment=b"hidden")
    small = thumbnail(stream.getvalue())
    assert small is not None
    assert pixels(small).size == (112, 112)
    assert b"secret" not in base64.b64decode(small.split(",")[1])
    assert b"hidden" not in base64.b64decode(small.split(",")[1])
    assert thumbnail(b"GIF89a no image") is None


def test_thumbnails_are_those_of_the_rows(tmp_path: Path) -> None:
    _, data = made(tmp_path / "run", images=True)
    for row in data["rows"]:
        i = int(row["id"])
        picture = pixels(row["image"])
        assert picture.size == (24, 24), "not larger than the images"
        color = np.asarray(picture).reshape(-1, 3).mean(axis=0)
        assert np.allclose(color, (i * 37 % 256, i * 59 % 256, i * 83 % 256), atol=6)


def test_thumbnails_end_where_reading_takes_too_long(tmp_path: Path) -> None:
    """The first rows in demand have theirs; a broken image has none."""
    make_run(tmp_path / "run", images=True)
    dataset = PackedDataset.read(locate(str(tmp_path / "run" / "cache" / "dataset")))
    assert dataset is not None
    assert set(read_thumbnails(dataset, [290, 5, 291])) == {290, 5, 291}
    place = tmp_path / "run" / "cache" / "dataset" / "a1" / "part-000000.parquet"
    table = pq.read_table(place)
    images = table["image"].to_pylist()
    images[5] = b"broken"
    pq.write_table(table.set_column(3, "image", pa.array(images, pa.binary())), place, row_group_size=64)
    assert set(read_thumbnails(dataset, [290, 5, 291])) == {290, 291}
    size = pq.read_metadata(place).row_group(4).column(3).total_compressed_size
    assert set(read_thumbnails(dataset, [290, 6, 291], most_bytes=size)) == {290, 291}
    assert read_thumbnails(dataset, [290], most_bytes=10) == {}


@pytest.mark.parametrize(
    ("data", "thumbnails", "shown", "text"),
    [
        ({}, None, True, ""),
        ({}, False, False, "Pictures are left out. To see them"),
        ({"allows_thumbnails": False}, None, False, "the terms of this data forbid"),
        ({"allows_thumbnails": False}, True, True, ""),
        ({"content_hash": "other"}, None, False, "are gone or have changed"),
        ({"packed": "nowhere"}, True, False, "are gone or have changed"),
    ],
)
def test_when_pictures_are_shown(
    data: dict[str, Any], thumbnails: bool | None, shown: bool, text: str, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", images=True)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"data": summary["data"] | data}))
    html = Path(make_report(locate(str(folder)), thumbnails).path).read_text()
    assert ("data:image/jpeg" in html) == shown
    assert text in html
