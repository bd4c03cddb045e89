"""NumPy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.image_decoding import load_rgb
from tests.opened_sources import opened, whole, write

X = np.arange(20, dtype=np.float64).reshape(5, 4) / 8
Y = np.array([0, 1, 0, -1, 1])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [("features", "labels"), ("arr_0", "arr_1"), ("X", "y")])
def test_npz(tmp_path: Path, save: Any, names: tuple[str, str]) -> None:
    save(tmp_path / "d.npz", **dict(zip(names, (X, Y), strict=True)))
    source = opened(tmp_path / "d.npz")
    table = whole(source, 2)
    np.testing.assert_array_equal(table["feature"].to_pylist(), X)
    assert table["label"].to_pylist() == ["0", "1", "0", None, "1"]
    assert table["uri"][4].as_py() == f"{names[0]}#4"
    assert source.notes == (f"{names[0]} of shape (5, 4) taken for features, {names[1]} for labels.",)


def test_the_order_of_bytes_does_not_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", features=X.astype(">f8"), labels=Y.astype(">i4"))
    table = whole(opened(tmp_path / "d.npz"))
    np.testing.assert_array_equal(table["feature"].to_pylist(), X)
    assert table["label"].to_pylist() == ["0", "1", "0", None, "1"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_that_stand_column_by_column(tmp_path: Path, save: Any) -> None:
    """As those of data frames do."""
    save(tmp_path / "d.npz", X=np.asfortranarray(X), y=Y)
    np.testing.assert_array_equal(whole(opened(tmp_path / "d.npz"), 2)["feature"].to_pylist(), X)
    deep = np.asfortranarray(np.arange(30.0).reshape(5, 2, 3))
    save(tmp_path / "d.npz", X=deep, y=Y)
    np.testing.assert_array_equal(whole(opened(tmp_path / "d.npz"), 2)["feature"].to_pylist(), deep.reshape(5, 6))


def test_one_hot_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", X=X, y=np.eye(3)[[0, 1, 2, 1, 0]])
    assert whole(opened(tmp_path / "d.npz"))["label"].to_pylist() == ["0", "1", "2", "1", "0"]
    np.savez(tmp_path / "d.npz", X=X, y=np.ones((5, 3)))
    with pytest.raises(DataError, match="or one-hot, but got"):
        opened(tmp_path / "d.npz")


def test_npy_files_beside_each_other(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", X.astype(np.float16))
    np.save(tmp_path / "labels.npy", np.array(["b", "a", "nan", "a", ""]))
    for data in (tmp_path / "emb.npy", tmp_path):
        assert whole(opened(data))["label"].to_pylist() == ["b", "a", None, "a", None]
    np.save(tmp_path / "emb2.npy", X)
    assert whole(opened(tmp_path / "emb2.npy"))["uri"][0].as_py() == "emb2#0"
    with pytest.raises(
        DataError, match=r"one array of features or images and one of as many labels in .* emb2 \(5, 4\)"
    ):
        opened(tmp_path)
    with pytest.raises(DataError, match=r"but got the arrays labels \(5,\) "):
        opened(tmp_path / "labels.npy")


def test_images_and_splits(tmp_path: Path) -> None:
    pixels = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=Y, x_test=pixels[:, ..., None], y_test=Y)
    with pytest.raises(DataError, match=r"x_test \(5, 4, 4, 1\) uint8, .*; --split takes x_NAME and y_NAME"):
        opened(tmp_path / "d.npz")
    source = opened(tmp_path / "d.npz", split="train")
    assert (source.kind, source.num_rows) == ("image", 5)
    np.testing.assert_array_equal(load_rgb(whole(source)["image"][1].as_py())[..., 0], pixels[1])
    test = whole(opened(tmp_path / "d.npz", split="test"))
    np.testing.assert_array_equal(load_rgb(test["image"][1].as_py())[..., 2], pixels[1])


def test_images_of_floats_and_with_channels_first(tmp_path: Path) -> None:
    pixels = np.arange(5 * 3 * 4 * 4, dtype=np.uint8).reshape(5, 3, 4, 4)
    for images in (pixels, pixels.transpose(0, 2, 3, 1) / np.float32(255)):
        np.savez(tmp_path / "d.npz", images=images, labels=Y)
        table = whole(opened(tmp_path / "d.npz"))
        np.testing.assert_array_equal(load_rgb(table["image"][1].as_py()), pixels[1].transpose(1, 2, 0))
    maps = pixels.astype(np.float32)
    np.savez(tmp_path / "d.npz", maps=maps, labels=Y)
    assert opened(tmp_path / "d.npz").kind == "feature", "no pixels, but values of a network"
    maps[0] = 0.5
    np.savez(tmp_path / "d.npz", maps=maps, labels=Y)
    assert whole(opened(tmp_path / "d.npz"))["error"][1].as_py().startswith("float32 values outside of 0..1 are")


def test_what_is_no_array_of_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}, {}], dtype=object), y=Y[:2])
    with pytest.raises(
        DataError, match=r"arrays y \(2,\) int64, and Python objects in x; write numbers .* x.astype\(str\)"
    ):
        opened(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"x.npy to be an array of NumPy, but got"):
        opened(write(tmp_path / "x.npy", b"no"))
    with pytest.raises(DataError, match=r"to be a .npz, but got"):
        opened(write(tmp_path / "x.npz", b"no"))
