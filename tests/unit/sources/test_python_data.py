"""What Python users hold, opened as a source and read whole."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.class_names import names_in_order
from dynacor_ray.sources.in_memory import encoded
from dynacor_ray.sources.python_data import open_python
from tests.opened_sources import png, whole

X = np.arange(15, dtype=np.float64).reshape(5, 3)
IMAGES = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
Y = [0, 1, 0, 1, 1]
TEXT = ["0", "1", "0", "1", "1"]


def opened(data: Any, labels: Any = None, split: str | None = None, **options: Any) -> Source:
    return open_python(data, labels, SourceOptions(**options), split)


def pixels(table: pa.Table) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data))) for data in table["image"].to_pylist()]


@pytest.mark.parametrize(
    "labels", [Y, tuple(Y), np.array(Y), torch.tensor(Y), pd.Series(Y), pa.array(Y), np.array(TEXT)]
)
def test_labels_of_every_kind_are_the_same_text(labels: Any) -> None:
    assert whole(opened(X, labels))["label"].to_pylist() == TEXT


@pytest.mark.parametrize("data", [X, torch.tensor(X), X.tolist(), list(X), list(torch.tensor(X)), pd.DataFrame(X)])
def test_features_of_every_kind_are_the_same_numbers(data: Any) -> None:
    source = opened(data, Y)
    table = whole(source)
    assert source.kind == "feature"
    assert table["feature"].to_pylist() == X.tolist()
    assert table["uri"].to_pylist() == ["0", "1", "2", "3", "4"]


def test_arrays_are_not_copied() -> None:
    tensor = torch.tensor(X)
    for data, held in ((X, X), (tensor, tensor.numpy())):
        shards: Any = opened(data, Y).shards(2)
        assert all(np.shares_memory(shard.items, held) for shard in shards)


@pytest.mark.parametrize(
    "data",
    [
        IMAGES,
        IMAGES[..., None],
        torch.tensor(IMAGES)[:, None],
        torch.tensor(IMAGES)[:, None] / 255,
        list(IMAGES),
        [Image.fromarray(image) for image in IMAGES],
    ],
)
def test_images_of_every_kind_are_the_same_pixels(data: Any) -> None:
    source = opened(data, Y)
    assert source.kind == "image"
    assert np.array_equal(np.stack(pixels(whole(source))), IMAGES)


def test_color_images_keep_their_channels() -> None:
    color = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    for data in (color, color.transpose(0, 3, 1, 2)):
        assert np.array_equal(np.stack(pixels(whole(opened(data, [0, 1])))), color)


def test_paths_and_patterns_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shade in range(5):
        (tmp_path / f"{shade}.png").write_bytes(png(shade))
    monkeypatch.chdir(tmp_path)
    for data in ([f"{shade}.png" for shade in range(5)], [tmp_path / f"{shade}.png" for shade in range(5)], "*.png"):
        table = whole(opened(data, Y))
        assert [image[0, 0] for image in pixels(table)] == [0, 1, 2, 3, 4]
        assert table["uri"].to_pylist() == [str(tmp_path / f"{shade}.png") for shade in range(5)]
    broken = whole(opened(["0.png", None, "gone.png"], [0, 1, 0]))
    assert broken["error"].to_pylist() == [None, "missing image", "missing file"]


def test_a_frame_keeps_its_index() -> None:
    frame = pd.DataFrame({"feature": list(X), "label": TEXT}, index=pd.Index(list("edcba"), name="key"))
    beside = opened(frame[["feature"]], frame["label"])
    inside, named = opened(frame), opened(frame.rename(columns={"label": "breed"}), "breed")
    for source in (beside, inside, named):
        assert whole(source)["label"].to_pylist() == TEXT
        assert whole(source)["feature"].to_pylist() == X.tolist()
        assert source.row_index is not None
        assert source.row_index.to_pandas().index.equals(frame.index)
    assert opened(frame.reset_index(drop=True)).fingerprint() != inside.fingerprint()


def test_an_index_names_rows_of_features_and_is_no_path() -> None:
    frame = pd.DataFrame(X, columns=["f0", "f1", "f2"]).assign(f3=1.0, label=Y)
    for index, uris in (
        (list("abcde"), list("abcde")),
        (pd.MultiIndex.from_arrays([Y, range(5)]), ["(0, 0)", "(1, 1)", "(0, 2)", "(1, 3)", "(1, 4)"]),
        ([3, 3, 1, 1, 0], ["3", "3", "1", "1", "0"]),
    ):
        source = opened(frame.set_axis(index))
        assert source.kind == "feature"
        assert whole(source)["uri"].to_pylist() == uris


def test_sparse_columns_masked_values_and_named_fields_are_numbers() -> None:
    frame = pd.DataFrame(X, columns=["f0", "f1", "f2"]).assign(f3=pd.arrays.SparseArray([0.0, 0, 2, 0, 0]), label=Y)
    fields = np.rec.fromarrays([*X.T, [0.0, 0, 2, 0, 0], Y], names="f0,f1,f2,f3,label")
    for data in (frame, fields):
        assert whole(opened(data))["feature"][2].as_py() == [6.0, 7.0, 8.0, 2.0]
    hidden = whole(opened(np.ma.masked_greater(X, 13), Y))["feature"].to_pylist()
    assert np.isnan(hidden[4][2])
    assert hidden[3] == [9.0, 10.0, 11.0]


def test_anything_with_an_arrow_stream_is_a_table() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return pa.table({"feature": X.tolist(), "label": Y}).__arrow_c_stream__(requested_schema)

    held = pa.table({"feature": X.tolist(), "label": Y})
    for data in (Stream(), held.to_reader(2), held.to_batches()[0]):
        table = whole(opened(data))
        assert (table["feature"].to_pylist(), table["label"].to_pylist()) == (X.tolist(), TEXT)


def test_columns_of_numbers_are_features_in_a_table() -> None:
    import datasets

    wide = pd.DataFrame(np.tile(X, 2), columns=[f"f{number}" for number in range(6)]).assign(label=TEXT)
    for data in (wide, pa.Table.from_pandas(wide), datasets.Dataset.from_pandas(wide), wide.to_dict("records")):
        source = opened(data)
        assert whole(source)["feature"].to_pylist() == np.tile(X, 2).tolist()
        assert whole(source)["label"].to_pylist() == TEXT
        assert source.notes == ("6 columns, f0 to f5, are the features.",)
    chosen = opened(pd.DataFrame(X, columns=["age", "size", "b"]).assign(label=TEXT), feature_columns=("age", "b"))
    assert whole(chosen)["feature"].to_pylist() == X[:, [0, 2]].tolist()


def test_vectors_in_vectors_are_flat() -> None:
    import datasets

    features = datasets.Features({"feature": datasets.Array2D((2, 3), "float32"), "label": datasets.Value("string")})
    data = datasets.Dataset.from_dict({"feature": np.arange(12.0).reshape(2, 2, 3), "label": ["a", "b"]}, features)
    for held in (data, pa.table({"feature": np.arange(12.0).reshape(2, 2, 3).tolist(), "label": ["a", "b"]})):
        assert whole(opened(held))["feature"].to_pylist() == np.arange(12.0).reshape(2, 6).tolist()


def test_vectors_that_are_missing_or_short_are_known_as_such() -> None:
    table = whole(opened([X[0], None, X[2][:2]], [0, 1, 0]))
    assert table["feature"].to_pylist() == [X[0].tolist(), None, X[2][:2].tolist()]


def test_ids_that_are_text_name_the_rows() -> None:
    frame = pd.DataFrame({"feature": list(X), "label": TEXT})
    for name in ("id", "instance_id", "image_id"):
        source = opened(frame.assign(**{name: list("edcba")}))
        assert not source.has_instance_ids
        assert whole(source)["uri"].to_pylist() == list("edcba")
    assert whole(opened(frame.set_index(pd.Index(list("edcba")))))["uri"].to_pylist() == list("edcba")
    assert whole(opened(frame))["uri"].to_pylist() == ["0", "1", "2", "3", "4"]


def test_hugging_face_data_sets_keep_classes_and_order() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(image) for image in IMAGES]
    data = datasets.Dataset.from_dict({"image": images, "label": Y}, features=features).select([4, 2, 0])
    source = opened(datasets.DatasetDict({"train": data, "test": data.select([0])}), split="train")
    table = whole(source)
    assert (source.class_names, source.label_codes) == (("cat", "dog"), {"0": 0, "1": 1, "cat": 0, "dog": 1})
    assert table["label"].to_pylist() == ["1", "0", "0"]
    assert np.array_equal(np.stack(pixels(table)), IMAGES[[4, 2, 0]])


class MapData:
    """As torchvision's data sets are."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 5

    def __getitem__(self, row: int) -> tuple[Any, int]:
        if row >= 5:
            raise IndexError(row)
        return Image.fromarray(IMAGES[row]), Y[row]


def test_map_data_sets_give_images_labels_and_classes() -> None:
    source = opened(MapData())
    assert source.class_names == ("cat", "dog")
    assert whole(source)["label"].to_pylist() == TEXT
    assert np.array_equal(np.stack(pixels(whole(source))), IMAGES)
    vectors = opened(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)))
    assert whole(vectors)["feature"].to_pylist() == X.tolist()
    assert whole(vectors)["label"].to_pylist() == TEXT


def test_missing_labels_are_null() -> None:
    for labels in ([0.0, np.nan, 1.0], np.array([0.0, np.nan, 1.0]), [0, None, 1], [0, -1, 1]):
        assert whole(opened(X[:3], labels))["label"].to_pylist() == ["0", None, "1"]


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (X, Y[:4], "Expected 5 labels, one per row, but got 4; pass both in the same order."),
        (X, None, "Expected labels of the rows, but got None; pass detect(data, labels)."),
        (X, np.ones((5, 2)), "or one-hot, but got (5, 2) with other rows than one 1 and zeros; pass one class"),
        (X.reshape(5, 3, 1), Y, "but got float64 of 5x3x1; pass features as data.reshape(len(data), -1)"),
        (np.full((5, 3, 4, 4), -1.5), Y, "float64 values outside of 0..1 are no pixels"),
        (pd.concat([pd.DataFrame({"feature": list(X)})] * 2, axis=1), Y, "in the table, but got several feature;"),
        ({"features": X, "labels": Y}, None, "pass two of them, as in detect(data['features'], data['labels'])."),
        ({"data": X, "target": Y, "DESCR": "x"}, None, "as in detect(data['data'], data['target'])."),
        (X, ["a", 1, "b", 2, "c"], "Expected labels that are all text or all integers"),
        (pd.DataFrame(X), pd.Series(Y, index=list("abcde")), "Expected labels with the index of the data"),
        (pd.DataFrame(X, index=[1, "b", 2, "c", 3]), Y, "an index of one type, but got"),
        (SimpleNamespace(collect=0), None, "but got types.SimpleNamespace; pass data.collect()."),
        (SimpleNamespace(to_table=0), None, "but got types.SimpleNamespace; pass data.to_table()."),
        (object(), Y, "but got builtins.object; convert it."),
    ],
)
def test_unusable_data_get_one_clear_message(data: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(data, labels)
    assert message in str(caught.value)


def test_a_split_must_be_named() -> None:
    with pytest.raises(ConfigError, match="split= to be one of train, test, but got none"):
        opened({"train": MapData(), "test": MapData()})
    with pytest.raises(ConfigError, match="a DatasetDict for split="):
        opened(X, Y, split="train")


def test_other_content_is_another_fingerprint() -> None:
    known = [
        opened(data, labels).fingerprint()
        for data, labels in ((X, Y), (X + 1, Y), (X, Y[::-1]), (IMAGES, Y), (IMAGES + 1, Y), (list(IMAGES), Y))
    ]
    assert len(set(known)) == len(known)
    assert opened(X.copy(), np.array(Y)).fingerprint() == known[0]


def test_names_by_other_numbers_are_refused() -> None:
    for names in ({1: "cat", 2: "dog"}, {"cat": "feline"}):
        with pytest.raises(
            ConfigError, match=r"class_names with the numbers 0 to \d, but got \{.*; pass a list of the"
        ):
            names_in_order(names)


def test_odd_items_have_a_reason() -> None:
    assert encoded(np.zeros((2, 2, 7), np.uint8)) == (None, "not an image: shape (2, 2, 7)")
    data, error = encoded(Image.new("CMYK", (2, 2)))
    assert error is None
    assert data is not None
    assert Image.open(io.BytesIO(data)).mode == "RGB"


@pytest.mark.parametrize("form", [lambda frame: frame, lambda frame: frame.to_dict("records")])
def test_columns_of_objects_are_read_as_what_they_hold(form: Any, tmp_path: Path) -> None:
    pictures = [Image.fromarray(image) for image in IMAGES]
    for row, picture in enumerate(pictures):
        picture.save(tmp_path / f"{row}.png")
    paths = [tmp_path / f"{row}.png" for row in range(5)]
    for name, values in (("image", pictures), ("image", list(IMAGES)), ("path", paths)):
        frame = pd.DataFrame({name: pd.Series(values, dtype=object), "label": TEXT})
        table = whole(opened(form(frame)))
        assert np.array_equal(np.stack(pixels(table)), IMAGES), name
        assert table["label"].to_pylist() == TEXT
    vectors = form(pd.DataFrame({"feature": list(torch.tensor(X)), "label": TEXT}))
    assert whole(opened(vectors))["feature"].to_pylist() == X.tolist()
