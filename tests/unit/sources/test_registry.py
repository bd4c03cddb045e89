"""What is recognized as what, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from tests.opened_sources import FEATURES, opened, png, save, whole, write


def test_nothing_there(tmp_path: Path) -> None:
    for data in (f"{tmp_path}/absent", "", f"clothing1m:{tmp_path}/absent"):
        with pytest.raises(DataError, match=r"Expected data to look at, but got no such path '.*'; check the path"):
            opened(data)
    (tmp_path / "my_images").mkdir()
    with pytest.raises(DataError, match=rf"but got no such path '.*/my_image'; perhaps {tmp_path}/my_images is meant"):
        opened(tmp_path / "my_image")
    with pytest.raises(StorageError, match="installed driver"):
        opened("nosuchprotocol://x")


@pytest.mark.parametrize(("data", "meant"), [("dmeo", "demo"), ("/no/demmo", "demo"), ("cifra10:data", "cifar10:data")])
def test_a_word_that_is_nearly_one_of_ours(
    data: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"no such path '{data}'; perhaps {meant} is meant"):
        opened(data)


def test_what_a_driver_raises_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("Repository id must be 'namespace/name'")

    monkeypatch.setattr("dynacor_ray.core.storage.Location.exists", fail)
    with pytest.raises(DataError, match=r"an address that its driver can look up, .*, but got 'Repository id must be"):
        opened("memory://data")


def test_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a table \(.csv, .*\) .* but got a file of type '.xyz' .*; convert the data"):
        opened(write(tmp_path / "x.xyz", "xyz"))
    for name, remedy in (
        ("x.zip", r"^Expected data of a kind that is understood, but got .* '.zip' .*; unpack it, and pass what is in"),
        ("x.tfrecord", "load it in Python"),
        ("x.tar.gz", "type '.gz' .*; unpack it, and pass what is in it"),
        ("x.arff", "load it in Python"),
        ("x.xlsx", "save it as CSV"),
        ("x.pkl", r"load it in Python and pass the arrays: dynacor_ray.detect\(features, labels\)"),
    ):
        with pytest.raises(DataError, match=remedy):
            opened(write(tmp_path / name, "x"))
    for content, told in (
        (b"<!DOCTYPE html><html>", "but got a page of the web; download the file again"),
        (b"PK\x03\x04\x14", "but got a packed file, as .xlsx and .zip are; save it as CSV"),
        (b"1 3:0.5 7:1e-3\n0 4:1\n", r"a number per column in x.csv, but got pairs .*LIBSVM.*features.toarray"),
        (b"5,1,2,3,4\n6,1,2,3,4\n", "--label-column, such as column_1: there is no line with names"),
        (b'embedding,label\n"[0.1, 0.2]",a\n', "a number per column in CSV"),
    ):
        with pytest.raises(DataError, match=told):
            opened(write(tmp_path / "x.csv", content))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"'demo', a folder .* but got an empty folder"):
        opened(tmp_path / "empty")
    write(tmp_path / "tables" / "t.csv", "uri,label\n")
    with pytest.raises(
        DataError, match=r"but got the files t.csv; give the path of the table itself: --data .*/tables/t.csv\."
    ):
        opened(tmp_path / "tables")
    write(tmp_path / "tables" / "u.csv", "uri,label\n")
    with pytest.raises(DataError, match=r"or of several of the same columns: --data '.*/tables/\*\.csv'\."):
        opened(tmp_path / "tables")


def test_the_table_beside_images_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "train_images" / f"{name}.png", png())
    write(tmp_path / "train.csv", "image_id,label\na.png,0\nb.png,1\n")
    with pytest.raises(DataError, match=rf"or pass the table with the labels, --data {tmp_path}/train.csv\."):
        opened(tmp_path)
    assert whole(opened(tmp_path / "train.csv"))["error"].null_count == 2


def test_of_several_tables_the_one_with_labels_is_named(tmp_path: Path) -> None:
    for name in ("sample_submission.csv", "test.csv", "train.csv"):
        write(tmp_path / "kaggle" / name, "image_id,label\na.png,0\nb.png,1\n")
    write(tmp_path / "kaggle" / "train" / "a.png", png())
    write(tmp_path / "roboflow" / "valid" / "a.png", png())
    write(tmp_path / "roboflow" / "valid" / "_classes.csv", "filename,cat,dog\na.png,1,0\n")
    for data, named in (("kaggle", "a table with the labels, such as"), ("roboflow", "the table with the labels,")):
        table = {"kaggle": "train.csv", "roboflow": "valid/_classes.csv"}[data]
        with pytest.raises(DataError, match=rf"or pass {named} --data {tmp_path / data / table}\.$"):
            opened(tmp_path / data)


def test_a_column_of_splits_is_neither_label_nor_filter(tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", "path,split\na.png,train\nb.png,val\n")
    with pytest.raises(DataError, match=r"exactly one label column .* but got the columns path, split; name it with"):
        opened(data)
    data = write(tmp_path / "t.csv", "path,split,kind\na.png,train,x\nb.png,val,y\n")
    assert whole(opened(data))["label"].to_pylist() == ["x", "y"]
    with pytest.raises(ConfigError, match=r"folders or files of splits for --split, but got .*t.csv; leave"):
        opened(data, split="train")
    with pytest.raises(ConfigError, match=r"folders or files of splits for --split, but got .*\*\.csv; leave"):
        opened(tmp_path / "*.csv", split="train")


def test_arrays_and_tars_beside_class_folders_are_no_data(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "x.png", png())
    for name in ("x.npy", "x.tar", "x.csv"):
        write(tmp_path / name, "x")
    assert opened(tmp_path).name == "folder"


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"balanced_sample": 14}, "--balanced-sample"),
        ({"include_double_labeled": True, "label_column": "x"}, "--include-double-labeled, --label-column"),
        ({"classes": ("a", "b")}, "--classes"),
    ],
)
def test_options_that_do_not_apply(options: dict[str, Any], flags: str) -> None:
    with pytest.raises(
        ConfigError, match=f"options that apply to data of kind 'demo', but got {flags}; leave them out"
    ):
        opened("demo", **options)


def test_endings_count_in_either_case(tmp_path: Path) -> None:
    save(tmp_path / "rows" / "A.PARQUET", {"feature": FEATURES, "label": list("abab")})
    save(tmp_path / "deep" / "data" / "A.PARQUET", {"feature": FEATURES, "label": list("abab")})
    for name, values in (("X", FEATURES), ("Y", [0, 1, 0, 1])):
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.save(tmp_path / "arrays" / f"{name}.npy", np.array(values))
        (tmp_path / "arrays" / f"{name}.npy").rename(tmp_path / "arrays" / f"{name}.NPY")
    for data in ("rows", "rows/A.PARQUET", "deep", "arrays", "arrays/X.NPY"):
        assert opened(tmp_path / data).num_rows == 4, data
    with pytest.raises(DataError, match=r"type '\.pq' .*; call it \.parquet"):
        opened(write(tmp_path / "a.pq", "x"))
