"""Parquet files of features and images, local and through fsspec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.validate import build_vocabulary, feature_dim_of, validate_rows
from tests.opened_sources import FEATURES, opened, png, save, whole


@pytest.mark.parametrize("group", [1, 2, 10])
def test_parquet_of_features(tmp_path: Path, group: int) -> None:
    columns = {
        "given_label": [3, 7, 3, -1],
        "feature": FEATURES,
        "true_label": [3, 3, 7, 7],
        "instance_id": [9, 8, 7, 6],
    }
    source = opened(save(tmp_path / "d.parquet", columns, row_group_size=group))
    assert (source.name, source.kind, source.num_rows) == ("parquet", "feature", 4)
    assert source.has_truth
    assert source.has_instance_ids
    assert source.class_names is None
    table = whole(source)
    assert table["label"].to_pylist() == ["3", "7", "3", None]
    assert table["true_label"].to_pylist() == ["3", "3", "7", "7"]
    assert table["instance_id"].to_pylist() == [9, 8, 7, 6]
    assert table["feature"].to_pylist() == FEATURES
    assert table["uri"].to_pylist() == [f"d.parquet#{i}" for i in range(4)]
    assert feature_dim_of(table) == 2
    vocabulary = build_vocabulary({"3": 20, "7": 10}, source)
    assert vocabulary.codes == {"3": 0, "7": 1}
    assert validate_rows(table, "feature", vocabulary, 2).rows["given_label"].to_pylist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["b", "", " a ", None]), ["b", None, "a", None]),
        (pa.array(["b", "a", "a", None]).dictionary_encode(), ["b", "a", "a", None]),
        (pa.array([1.0, np.nan, 3.0, None]), ["1", None, "3", None]),
        (pa.array([0.5, 1.0, np.inf, 2.0]), ["0.5", "1", "inf", "2"]),
        (pa.array([True, False, None, True]), ["True", "False", None, "True"]),
        (pa.array([1, 2, None, 3], pa.uint8()), ["1", "2", None, "3"]),
        (pa.array(["x", "y", "x", "y"], pa.large_string()), ["x", "y", "x", "y"]),
    ],
    ids=str,
)
def test_label_types(tmp_path: Path, labels: pa.Array[Any], expected: list[str | None]) -> None:
    path = save(tmp_path / "d.parquet", {"label": labels, "feature": FEATURES})
    assert whole(opened(path))["label"].to_pylist() == expected


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), 2)], ids=str
)
def test_feature_types(tmp_path: Path, kind: pa.DataType) -> None:
    values = [[np.float16(x) for x in row] for row in FEATURES]
    path = save(tmp_path / "d.parquet", {"label": list("abab"), "anything": pa.array(values, kind)})
    assert whole(opened(path))["feature"].to_pylist() == FEATURES


def test_tensor_extension_type(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(FEATURES, dtype=np.float32))
    path = save(tmp_path / "d.parquet", {"label": list("abab"), "feature": tensor})
    table = whole(opened(path))
    assert table["feature"].to_pylist() == FEATURES
    vocabulary = build_vocabulary({"a": 2, "b": 2}, opened(path))
    assert validate_rows(table, "feature", vocabulary, 2).rows.num_rows == 4


def test_images_as_bytes_and_as_hugging_face_struct(tmp_path: Path) -> None:
    images = [png(i) for i in range(4)]
    plain = save(tmp_path / "plain.parquet", {"label": [0, 1, 0, 1], "image": images, "path": list("wxyz")})
    assert whole(opened(plain))["image"].to_pylist() == images
    assert whole(opened(plain))["uri"].to_pylist() == list("wxyz")
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    structs = [{"bytes": image, "path": None} for image in images]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    source = opened(save(tmp_path / "hf.parquet", {"label": [0, 1, 0, -1], "image": structs}, metadata))
    assert source.class_names == ("cat", "dog")
    assert source.label_codes == {"0": 0, "1": 1, "cat": 0, "dog": 1}
    table = whole(source)
    assert table["image"].to_pylist() == images
    checked = validate_rows(table, "image", build_vocabulary({}, source), None)
    assert checked.quarantine["reason"].to_pylist() == ["label '-1' is not among the 2 classes"]


def test_class_names(tmp_path: Path) -> None:
    metadata = {"class_names": json.dumps(["cat", "dog"])}
    path = save(tmp_path / "d.parquet", {"label": [0, 1, 0, 1], "feature": FEATURES}, metadata)
    assert opened(path).class_names == ("cat", "dog")
    assert opened(path, classes=("a", "b")).class_names == ("a", "b")
    assert opened(path, classes=("5", "3")).label_codes == {"5": 0, "3": 1}
    with pytest.raises(ConfigError, match="distinct, non-empty class names in --classes, but got repeated 'a'"):
        opened(path, classes=("a", "a"))
    bad = save(tmp_path / "bad.parquet", {"label": [0, 1, 0, 1], "feature": FEATURES}, {"class_names": "cat"})
    with pytest.raises(DataError, match="JSON list of strings as class_names"):
        opened(bad)


def test_directory_of_files(tmp_path: Path) -> None:
    save(tmp_path / "b.parquet", {"label": ["x", "y"], "feature": FEATURES[2:]})
    save(tmp_path / "a.parquet", {"label": ["x", "y"], "feature": FEATURES[:2]})
    (tmp_path / "_metadata.parquet").write_text("no parquet")
    source = opened(tmp_path)
    assert whole(source)["feature"].to_pylist() == FEATURES
    assert whole(source)["uri"].to_pylist() == ["a.parquet#0", "a.parquet#1", "b.parquet#0", "b.parquet#1"]
    save(tmp_path / "c.parquet", {"label": ["x", "y"], "image": [png(), png()]})
    with pytest.raises(DataError, match=r"columns of a.parquet in every file, but got c.parquet without feature"):
        opened(tmp_path)
    save(tmp_path / "c.parquet", {"label": ["x"], "feature": FEATURES[:1]}, {"class_names": '["x", "z"]'})
    with pytest.raises(DataError, match=r"the classes of a.parquet in every file, but got others in c.parquet"):
        opened(tmp_path)


def test_fingerprint_follows_the_data(tmp_path: Path) -> None:
    path = save(tmp_path / "d.parquet", {"label": [0, 1, 0, 1], "y": [0, 1, 1, 1], "feature": FEATURES})
    before = opened(path, label_column="label").fingerprint()
    assert before == opened(path, label_column="label").fingerprint()
    assert before != opened(path, label_column="y").fingerprint()
    save(path, {"label": [0, 1, 0, 1, 1], "feature": [*FEATURES, [0.0, 0.0]]})
    assert before != opened(path).fingerprint()


def test_bad_columns(tmp_path: Path) -> None:
    none = save(tmp_path / "none.parquet", {"cls": [0, 1], "kind": ["a", "b"], "feature": FEATURES[:2]})
    with pytest.raises(
        DataError, match=r"exactly one label column .* but got the columns cls, kind, feature; .*--label-column"
    ):
        opened(none)
    assert whole(opened(none, label_column="cls"))["label"].to_pylist() == ["0", "1"]
    several = save(tmp_path / "several.parquet", {"label": [0, 1], "y": [0, 1], "feature": FEATURES[:2]})
    with pytest.raises(DataError, match=r"exactly one label column .* but got the columns label, y, feature"):
        opened(several)
    with pytest.raises(DataError, match=r"a column 'nope' in several.parquet, but got the columns label, y, feature"):
        opened(several, label_column="nope")
    with pytest.raises(DataError, match="labels that are strings or integers, but got column 'feature' of type list"):
        opened(several, label_column="feature")
    with pytest.raises(DataError, match="one column of images, feature vectors or image paths"):
        opened(save(tmp_path / "bare.parquet", {"label": [0, 1]}))
    two = save(tmp_path / "two.parquet", {"label": [0, 1], "f": FEATURES[:2], "g": FEATURES[:2]})
    with pytest.raises(DataError, match=r"one feature column in two.parquet, but got f, g; .*--feature-column"):
        opened(two)
    assert whole(opened(two, feature_column="g"))["feature"].to_pylist() == FEATURES[:2]
    with pytest.raises(DataError, match="image bytes in column 'f'"):
        opened(two, image_column="f")
    with pytest.raises(ConfigError, match="an image column or a feature column, but got both"):
        opened(two, image_column="f", feature_column="g")
    ids = save(tmp_path / "ids.parquet", {"label": [0, 1], "f": FEATURES[:2], "instance_id": [0.5, 1.5]})
    with pytest.raises(DataError, match="integers in column 'instance_id'"):
        opened(ids)


def test_ids_that_are_text_name_the_rows(tmp_path: Path) -> None:
    table = {"label": [0, 1], "f": FEATURES[:2], "instance_id": ["a", "b"]}
    assert whole(opened(save(tmp_path / "ids.parquet", table)))["uri"].to_pylist() == ["a", "b"]
    table["uri"] = ["c.png", "d.png"]
    source = opened(save(tmp_path / "both.parquet", table))
    assert (source.has_instance_ids, whole(source)["uri"].to_pylist()) == (False, ["c.png", "d.png"])


def test_empty_and_damaged_files(tmp_path: Path) -> None:
    empty = {"label": pa.array([], pa.int32()), "feature": pa.array([], pa.list_(pa.float32()))}
    with pytest.raises(DataError, match=r"labeled rows in .*, but got 0 rows"):
        opened(save(tmp_path / "empty.parquet", empty))
    with pytest.raises(DataError, match=r"labeled rows in .*, but got 0 rows"):
        opened(save(tmp_path / "paths.parquet", {"label": empty["label"], "uri": pa.array([], pa.string())}))
    (tmp_path / "text.parquet").write_text("this is no parquet file at all")
    with pytest.raises(DataError, match=r"text.parquet to be a readable parquet file"):
        opened(tmp_path / "text.parquet")


def test_ids_above_int64_are_caught(tmp_path: Path) -> None:
    ids = pa.array([1, 2**63 + 5], pa.uint64())
    path = save(tmp_path / "d.parquet", {"label": [0, 1], "f": FEATURES[:2], "instance_id": ids})
    with pytest.raises(DataError, match="instance_id in 0"):
        validate_rows(whole(opened(path)), "feature", build_vocabulary({"0": 2, "1": 2}, opened(path)), 2)


def test_parquet_on_fsspec(memory: str) -> None:
    locate(f"{memory}/a.parquet").write_table(pa.table({"label": list("abab"), "feature": FEATURES}))
    for uri in (memory, f"{memory}/a.parquet"):
        assert whole(opened(uri))["feature"].to_pylist() == FEATURES


def test_local_protocol(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", {"label": list("abab"), "feature": FEATURES})
    for prefix in ("file://", "local://"):
        assert whole(opened(f"{prefix}{tmp_path}/a.parquet"))["feature"].to_pylist() == FEATURES
