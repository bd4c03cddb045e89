"""Files of boxes in the forms that exports of tools have."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError, StorageError
from tests.opened_sources import opened, png, whole, write


def boxes(path: Path, **options: str) -> list[tuple[str, str]]:
    table = whole(opened(path, **options), 9)
    return list(zip(table["label"].to_pylist(), table["uri"].to_pylist(), strict=True))


def test_folders_of_splits_as_roboflow_writes_them(tmp_path: Path) -> None:
    for split, code in (("train", 0), ("valid", 1)):
        write(tmp_path / split / "images" / "a.png", png())
        write(tmp_path / split / "labels" / "a.txt", f"{code} 0.5 0.5 1 1\n")
    write(tmp_path / "data.yaml", "train: ../train/images\nnames: ['cat', 'dog']\n")
    all_of = [
        ("cat", "train/images/a.png#xywh=percent:0,0,100,100"),
        ("dog", "valid/images/a.png#xywh=percent:0,0,100,100"),
    ]
    assert boxes(tmp_path) == boxes(tmp_path / "data.yaml") == all_of
    assert boxes(tmp_path, split="valid") == all_of[1:]


def test_the_box_of_a_polygon_is_the_one_around_it(tmp_path: Path) -> None:
    """Read as a box, its first two points would be a center and sides: another part of the picture."""
    write(tmp_path / "images" / "a.png", png())
    lines = write(tmp_path / "labels" / "a.txt", "0 0.1 0.2 0.9 0.2 0.5 0.8\n1 0.5 0.5 1 1 0.9\n")
    around = [("0", "images/a.png#xywh=percent:10,20,80,60"), ("1", "images/a.png#xywh=percent:0,0,100,100")]
    assert boxes(tmp_path) == around
    write(tmp_path / "data.yaml", "kpt_shape: [1, 2]\n")
    write(lines, "0 0.5 0.5 1 1 0.3 0.4\n")
    assert boxes(tmp_path) == [("0", "images/a.png#xywh=percent:0,0,100,100")], "key points follow the box"
    (tmp_path / "data.yaml").unlink()
    write(lines, "0 0.5 0.5 1 1 0.3 0.4 0.1\n")
    with pytest.raises(DataError, match="lines of class, x, y, width and height"):
        opened(tmp_path)


def test_pascal_voc(tmp_path: Path) -> None:
    box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
    for name, label in (("a", "cat"), ("b", "dog")):
        write(tmp_path / "JPEGImages" / f"{name}.png", png())
        item = f"<object><name>{label}</name>{box}</object>"
        write(
            tmp_path / "Annotations" / f"{name}.xml", f"<annotation><filename>{name}.png</filename>{item}</annotation>"
        )
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "b  1\n")
    all_of = [("cat", "JPEGImages/a.png#xywh=1,0,3,3"), ("dog", "JPEGImages/b.png#xywh=1,0,3,3")]
    assert boxes(tmp_path) == all_of
    assert boxes(tmp_path, split="val") == all_of[1:]
    assert whole(opened(tmp_path))["error"].null_count == 2
    for content in ("<annotation><object/></annotation>", "<annotation>", "<!DOCTYPE a><annotation/>"):
        write(tmp_path / "Annotations" / "a.xml", content)
        with pytest.raises(DataError, match=r"a filename, and name and bndbox of every object, in .*a\.xml"):
            opened(tmp_path)


def test_coco_in_folders_of_splits(tmp_path: Path) -> None:
    for split, names in (("train", ["cat", "dog"]), ("valid", ["dog", "owl"])):
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": code, "name": name} for code, name in enumerate(names)],
            "annotations": [{"image_id": 1, "category_id": code, "bbox": [0, 0, 4, 3]} for code in (0, 1)],
        }
        write(tmp_path / split / "a.png", png())
        write(tmp_path / split / "_annotations.coco.json", json.dumps(content))
    train = [(name, "train/a.png#xywh=0,0,4,3") for name in ("cat", "dog")]
    assert boxes(tmp_path) == [*train, *((name, "valid/a.png#xywh=0,0,4,3") for name in ("dog", "owl"))]
    assert boxes(tmp_path, split="train") == train
    assert opened(tmp_path).class_names == ("cat", "dog", "owl")
    assert opened(tmp_path).notes[1:] == ("The splits train, valid are read together; --split takes one.",)
    assert opened(tmp_path, split="train").notes[1:] == ()
    assert whole(opened(tmp_path))["error"].null_count == 4
    assert boxes(tmp_path / "valid") == [(name, "a.png#xywh=0,0,4,3") for name in ("dog", "owl")]


def test_pascal_voc_beside_the_images(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
    for split, label in (("train", "cat"), ("valid", "dog")):
        write(tmp_path / split / "a.png", png())
        item = f"<object><name>{label}</name>{box}</object>"
        write(tmp_path / split / "a.xml", f"<annotation><filename>a.png</filename>{item}</annotation>")
    all_of = [("cat", "train/a.png#xywh=0,0,4,3"), ("dog", "valid/a.png#xywh=0,0,4,3")]
    assert boxes(tmp_path) == all_of
    assert whole(opened(tmp_path))["error"].null_count == 2
    assert boxes(tmp_path, split="valid") == all_of[1:]
    assert boxes(tmp_path / "train") == [("cat", "a.png#xywh=0,0,4,3")]


def test_yolo_beside_the_images(tmp_path: Path) -> None:
    """As darknet and labelImg have it."""
    write(tmp_path / "set" / "obj.names", "cat\ndog\n")
    write(tmp_path / "set" / "train.txt", "obj_train_data/a.png\n")
    inner = tmp_path / "set" / "obj_train_data"
    write(inner / "a.png", png())
    write(inner / "a.txt", "1 0.5 0.5 1 1\n")
    write(inner / "note.txt", "seen by nobody")
    assert boxes(tmp_path / "set") == [("dog", "obj_train_data/a.png#xywh=percent:0,0,100,100")]
    assert boxes(inner) == [("dog", "a.png#xywh=percent:0,0,100,100")]
    write(inner / "b.png", png())
    write(inner / "b.txt", "")
    assert len(boxes(inner)) == 1, "an image without an object"
    write(inner / "a.txt", "a photo of a cat\n")
    with pytest.raises(DataError, match="give the path of the table itself"):
        opened(inner)


def test_pascal_voc_in_folders_called_otherwise(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>3</ymax></bndbox>"
    for stem, label in (("a", "cat"), ("b", "dog")):
        write(tmp_path / "images" / f"{stem}.png", png())
        item = f"<annotation><filename>{stem}.png</filename><object><name>{label}</name>{box}</object></annotation>"
        write(tmp_path / "annotations" / f"{stem}.xml", item)
    assert boxes(tmp_path) == [("cat", "images/a.png#xywh=0,0,4,3"), ("dog", "images/b.png#xywh=0,0,4,3")]
    assert whole(opened(tmp_path))["error"].null_count == 2


def test_a_text_beside_one_image_of_a_folder_of_classes_is_no_box(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/a.png", "overview.png", "logo.png", "map.png"):
        write(tmp_path / name, png())
    write(tmp_path / "overview.txt", "1 0.5 0.5 1 1\n")
    write(tmp_path / "logo.xml", "<annotation/>")
    assert opened(tmp_path).name == "folder"


@pytest.mark.parametrize(
    ("large", "others"),
    [
        ("labels/a.txt", ()),
        ("data.yaml", ("labels/a.txt",)),
        ("classes.txt", ("labels/a.txt",)),
        ("Annotations/a.xml", ()),
    ],
)
def test_files_of_boxes_are_small(tmp_path: Path, large: str, others: tuple[str, ...]) -> None:
    """A gigabyte that poses as a list would be held several times over."""
    write(tmp_path / "images" / "a.png", png())
    for name in others:
        write(tmp_path / name, "0 0.5 0.5 1 1\n")
    os.truncate(write(tmp_path / large, "0 0.5 0.5 1 1\n"), 1 << 30)
    with pytest.raises(StorageError, match=rf"{re.escape(large)} to be small, but got more than (1|64) MiB"):
        opened(tmp_path)
