"""Odd forms of what Python holds: each is the same rows as the plain form, or one clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.python_data import open_python
from tests.opened_sources import png, whole, write

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = [0, 1, 0, 1]


def opened(data: Any, labels: Any = Y) -> Source:
    return open_python(data, labels, SourceOptions())


@pytest.mark.parametrize(
    "data",
    [
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        X.astype(">f4"),
        X.astype(np.float16),
        X.astype(object),
        torch.tensor(X, requires_grad=True),
        torch.tensor(X).bfloat16(),
        torch.tensor(X).to(torch.float8_e5m2),
        pd.DataFrame(X).astype("Float64"),
        pd.DataFrame(X).astype(object),
        pd.Series(list(X)),
    ],
    ids=str,
)
def test_the_form_of_numbers_does_not_count(data: Any) -> None:
    found = np.array(whole(opened(data))["feature"].to_pylist())
    assert np.allclose(found, X, rtol=0.13)  # 8 bits keep two digits of the mantissa


@pytest.mark.parametrize(
    "labels",
    [
        np.array(Y, ">i8"),
        np.array([b"0", b"1", b"0", b"1"]),
        (label for label in Y),
        np.array([[0], [1], [0], [1]]),
        pd.Categorical(["0", "1", "0", "1"], categories=["0", "1", "unused"]),
        pd.Series(Y, dtype="Int64"),
        pa.chunked_array([pa.DictionaryArray.from_arrays([0, 1, 0, 1], pa.array(["0", "1"], pa.string_view()))]),
        torch.tensor([0.0, 1.0, 0.0, 1.0]),
        list(torch.tensor(Y)),
    ],
)
def test_the_form_of_labels_does_not_count(labels: Any) -> None:
    assert whole(opened(X, labels))["label"].to_pylist() == ["0", "1", "0", "1"]


def test_bytes_of_any_kind_are_images() -> None:
    for data in ([bytearray(png(1)), png(2)], [memoryview(png(1)), png(2)]):
        assert whole(opened(data, [0, 1]))["image"].to_pylist() == [png(1), png(2)]


def test_pairs_are_a_data_set() -> None:
    features = opened(list(zip(X, Y, strict=True)), None)
    assert whole(features)["feature"].to_pylist() == X.tolist()
    assert whole(features)["label"].to_pylist() == ["0", "1", "0", "1"]
    images = opened([(Image.new("L", (2, 2), shade), "cd"[shade % 2]) for shade in range(4)], None)
    assert images.kind == "image"
    assert whole(images)["label"].to_pylist() == ["c", "d", "c", "d"]


class Images(torch.utils.data.Dataset[Any]):
    """Of torchvision's kind; the labels of its items are not to be read, since that would decode the images."""

    classes = ("cat", "dog")
    targets = Y

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> Any:
        return Image.new("L", (2, 2), row), None


class Records:
    """A data set whose items are dictionaries, as those of many training loops."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, row: int) -> Any:
        values = {"pixel_values": np.full((4, 4), row, np.uint8), "labels": torch.tensor(Y[row]), "path": "x"}
        return {key: values[key] for key in self.keys} if self.keys else values["pixel_values"]


def test_items_may_be_records_or_images_alone() -> None:
    for data, labels in ((Records("pixel_values", "labels"), None), (Records("pixel_values"), Y), (Records(), Y)):
        source = opened(data, labels)
        assert whole(source)["label"].to_pylist() == list(map(str, Y))
        assert load_rgb(whole(source)["image"][3].as_py())[0, 0].tolist() == [3, 3, 3]
    with pytest.raises(DataError, match=r"an image or feature \(image, .*\) in each item, but got the keys path"):
        opened(Records("path"), Y)
    with pytest.raises(DataError, match=r"a label \(given_label, .*\) in each item, but got the keys pixel_values"):
        opened(Records("pixel_values"), None)


def test_paths_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.png", png())
    for data in (["~/a.png"] * 2, "~/*.png"):
        source = opened(data, ["a", "b"][: 1 + isinstance(data, list)])
        assert whole(source)["error"].null_count == source.num_rows
    table = write(tmp_path / "t.csv", "path,label\n")
    with pytest.raises(DataError, match=r"images that fit .*, beside labels, but got t\.csv; leave the labels out"):
        opened(str(table), Y)


def test_parts_of_data_sets_have_their_classes_and_labels() -> None:
    part = Subset(Images(), [0, 3, 1])
    for data, labels in (
        (part, ["0", "1", "1"]),
        (ConcatDataset([part, Images()]), ["0", "1", "1", "0", "1", "0", "1"]),
    ):
        source = opened(data, None)
        assert source.class_names == ("cat", "dog")
        assert [label for shard in source.shards(2) for label in shard.read_labels().to_pylist()] == list(labels)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (torch.tensor(X).to_sparse(), Y, "Expected a dense tensor of real numbers, but got"),
        (torch.empty(4, 3, device="meta"), Y, "Expected a dense tensor of real numbers, but got"),
        (X, dict(enumerate(Y)), "Expected labels as a list or column, but got a dictionary"),
        (X, np.array(Y, "datetime64[D]"), "Expected labels that are text or integers, but got type date32[day]"),
        ([{"a": 1}, {"b": 2}], None, "Expected one column of images, feature vectors or image paths in the table"),
        ([object()] * 4, Y, "but got a list of object; pass paths, images, or vectors of numbers."),
        ((row for row in X), Y, "but got builtins.generator; pass a list of its items and one of their labels."),
        ([(1, 2, 3)], None, "Expected items of (image, label), but got tuple of 3"),
        ("/nowhere/*.png", Y, "Expected images that fit '/nowhere/*.png', but got none; check the path."),
    ],
)
def test_what_cannot_be_read_is_named(data: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(data, labels)
    assert message in str(caught.value)
