"""Boxes as rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.core.storage import locate
from dynacor_ray.sources import box_files
from dynacor_ray.sources import boxes as boxes_module
from dynacor_ray.sources.base import Source
from tests.opened_sources import opened, whole, write

PIXELS = np.arange(8 * 10, dtype=np.uint8).reshape(8, 10)


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    return stream.getvalue()


def crops(source: Source) -> list[Any]:
    images = whole(source, 9)["image"].to_pylist()
    return [None if image is None else load_rgb(image)[..., 0].tolist() for image in images]


def coco(**changes: Any) -> str:
    boxes = [(1, [2, 3, 4, 2]), (2, [0, 0, 100, 100]), (1, [9.5, 0, 4, 4]), (1, [0, 0, "x", 1])]
    content = {
        "images": [{"id": 7, "file_name": "x.png"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "cow"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": code, "bbox": box} for code, box in boxes[:3]],
    }
    return json.dumps(content | changes)


def test_coco(tmp_path: Path) -> None:
    write(tmp_path / "images" / "deep" / "x.png", picture())
    file = write(tmp_path / "annotations" / "instances_val.json", coco())
    for data in (tmp_path, file):
        source = opened(data)
        assert (source.name, source.class_names) == ("coco", ("cat", "dog"))
        table = whole(source, 9)
        assert table["label"].to_pylist() == ["cat", "dog", "cat"]
        assert table["uri"][0].as_py() == "images/deep/x.png#xywh=2,3,4,2"
        assert crops(source) == [PIXELS[3:5, 2:6].tolist(), PIXELS.tolist(), None]
        assert table["error"][2].as_py() == "box has fewer than 2 x 2 pixels in the image"
    write(tmp_path / "annotations" / "instances_train.json", coco())
    with pytest.raises(DataError, match=r"one file of annotations in .*, but got instances_train.json, instances_val"):
        opened(tmp_path)
    assert opened(tmp_path, split="val").num_rows == 3
    write(file, coco(categories=[]))
    assert opened(file).class_names == ("1", "2"), "classes without names go by their ids"
    lost = {"image_id": 7, "category_id": 1}
    for changes, message in (
        (
            {"categories": [{"id": 1, "name": "cat"}]},
            "only known values of category_id .*, but got 1 others, such as 2",
        ),
        ({"images": []}, "only known values of image_id in the annotations .*, but got 3 others, such as 7"),
        ({"annotations": [lost, lost | {"bbox": []}]}, "a bbox in every annotation of .*, but got 2 without one"),
        ({"images": [{"id": 7}]}, "COCO's images, annotations and categories in .*, but got KeyError 'file_name'"),
    ):
        write(file, coco(**changes))
        with pytest.raises(DataError, match=message):
            opened(file)


NAMES = {
    "data.yaml list": "names: ['cat', \"dog\"]\n",
    "data.yaml plain": "nc: 2\nnames: [cat, dog]\n",
    "data.yaml block": "names:\n  0: cat\n  1: dog\nnc: 2\n",
    "data.yaml dashes": "names:\n- cat\n- dog\n",
    "classes.txt": "cat\ndog\n",
}


def test_boxes_are_columns_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 million lines of ten bytes took 1.6 GB as Python's values."""
    monkeypatch.setattr(box_files, "_AT_ONCE", 2)
    held: list[int] = []
    from_pylist = pa.Table.from_pylist
    counted = SimpleNamespace(from_pylist=lambda rows, kinds: held.append(len(rows)) or from_pylist(rows, kinds))
    monkeypatch.setattr(box_files.pa, "Table", counted)
    write(tmp_path / "labels" / "x.txt", "0 .5 .5 1 1\n1 .5 .5 1 1\n" * 2 + "0 .5 .5 1 1\n")
    write(tmp_path / "images" / "x.png", picture())
    place = locate(str(tmp_path))
    _, rows, names, _ = box_files.read_yolo(place, None)
    assert (rows["label"].to_pylist(), names, held) == (["0", "1", "0", "1", "0"], ["0", "1"], [2, 2, 1])


def test_many_large_boxes_of_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part is kept as small as it may be seen, and what a picture's boxes cover in all is limited."""
    write(tmp_path / "x.png", picture())
    boxes = [{"image_id": 7, "category_id": 1 + row % 2, "bbox": [0, 0, 10, 8]} for row in range(5)]
    write(tmp_path / "instances.json", coco(annotations=boxes))
    monkeypatch.setattr(boxes_module, "_MOST_PIXELS", 20)
    monkeypatch.setattr(boxes_module, "_COVERED", 3)
    monkeypatch.setattr(boxes_module, "_LEAST_COVERED", 0)
    table = whole(opened(tmp_path), 9)
    assert table["error"].to_pylist() == [None] * 3 + ["boxes cover their image more than 3 times"] * 2
    kept = load_rgb(table["image"][0].as_py())[..., 0]
    assert kept.tolist() == np.asarray(Image.fromarray(PIXELS).reduce(2)).tolist()
    monkeypatch.setattr(boxes_module, "_LEAST_COVERED", 400)
    assert whole(opened(tmp_path), 9)["error"].to_pylist() == [None] * 5


@pytest.mark.parametrize("name", NAMES)
def test_yolo(tmp_path: Path, name: str) -> None:
    write(tmp_path / name.split()[0], NAMES[name])
    write(tmp_path / "images" / "train" / "x.png", picture())
    write(tmp_path / "labels" / "train" / "x.txt", "0 0.5 0.5 0.2 0.25\n\n1 0.5 0.5 1 1 0.9\n")
    write(tmp_path / "labels" / "val" / "y.txt", "1 0.5 0.5 1 1\n")
    source = opened(tmp_path)
    assert source.class_names == ("cat", "dog")
    table = whole(source, 9)
    assert table["label"].to_pylist() == ["cat", "dog", "dog"]
    assert table["uri"][0].as_py() == "images/train/x.png#xywh=percent:40,37.5,20,25"
    assert crops(source) == [PIXELS[3:5, 4:6].tolist(), PIXELS.tolist(), None]
    assert table["error"][2].as_py() == "missing file"
    assert opened(tmp_path, split="train").num_rows == 2
    write(tmp_path / "labels" / "val" / "y.txt", "cat 1 2 3\n")
    with pytest.raises(DataError, match=r"lines of class, x, y, width and height in .*y.txt, but got 'cat 1 2 3'"):
        opened(tmp_path)
