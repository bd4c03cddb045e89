"""Image folders, Clothing1M and the demo, and what is recognized as what."""

from __future__ import annotations

import io
import os
import pickle
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.core.image_decoding import load_rgb
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.clothing1m import CLASS_NAMES, Entry, balanced_sample, key_error
from dynacor_ray.sources.registry import open_source
from dynacor_ray.sources.validate import build_vocabulary, validate_rows

OUTSIDE = "points outside the data root"


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4), shade).save(buffer, "PNG")
    return buffer.getvalue()


def opened(path: Any, **options: Any) -> Source:
    return open_source(str(path), SourceOptions(**options))


def whole(source: Source, max_rows: int = 3) -> pa.Table:
    """All rows, read shard by shard after a journey through pickle; labels agree with the labels-only read."""
    shards = pickle.loads(pickle.dumps(source.shards(max_rows)))
    parts = [shard.read() for shard in shards]
    for shard, part in zip(shards, parts, strict=True):
        assert part.num_rows == shard.num_rows <= max_rows
        assert shard.read_labels().to_pylist() == part["label"].to_pylist()
    table = pa.concat_tables(parts)
    assert table["row"].to_pylist() == list(range(source.num_rows))
    return table


def pairs(table: pa.Table, first: str, second: str) -> dict[Any, Any]:
    return dict(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# --- folder -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("cat/b.png", "cat/a.JPEG", "cat/deep/er/c.webp", "dog/d.tif"):
        write(root / name, png())
    write(root / "cat" / "text.jpg", "I am text")
    for name in ("readme.png", "cat/notes.txt", "cat/.hidden.png", ".git/x.png"):
        write(root / name, png())
    return root


def test_folder_rows(folder: Path) -> None:
    source = opened(folder)
    assert (source.name, source.kind, source.class_names, source.allows_thumbnails) == ("folder", "image", None, True)
    table = whole(source)
    assert table["uri"].to_pylist() == ["cat/a.JPEG", "cat/b.png", "cat/deep/er/c.webp", "cat/text.jpg", "dog/d.tif"]
    assert table["label"].to_pylist() == ["cat"] * 4 + ["dog"]
    checked = validate_rows(table, "image", build_vocabulary({"cat": 4, "dog": 1}, source), None)
    assert checked.quarantine.to_pylist() == [{"row": 3, "uri": "cat/text.jpg", "reason": "not an image"}]


def test_folder_links(folder: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", png(9))
    write(tmp_path / "more" / "x.png", png(9))
    os.symlink(secret, folder / "cat" / "out.png")
    os.symlink(folder / "dog" / "d.tif", folder / "cat" / "in.png")
    os.symlink("nowhere.png", folder / "cat" / "broken.png")
    os.symlink(tmp_path / "more", folder / "cow")
    os.symlink("..", folder / "dog" / "loop")
    table = whole(opened(folder))
    errors = {uri: error for uri, error in pairs(table, "uri", "error").items() if error}
    assert errors == {
        "cat/out.png": OUTSIDE,
        "cat/broken.png": "missing file",
        "cow": OUTSIDE,
        "dog/loop": "link to a folder; such links are not followed",
    }
    assert pairs(table, "uri", "image")["cat/in.png"] == png()
    assert set(table["label"].to_pylist()) == {"cat", "dog", None}, "a link in place of a class folder is no class"
    assert not any(image == png(9) for image in table["image"].to_pylist())


def test_folder_link_made_after_opening_is_not_followed(folder: Path, tmp_path: Path) -> None:
    source = opened(folder)
    (folder / "cat" / "b.png").unlink()
    os.symlink(write(tmp_path / "secret.png", png(9)), folder / "cat" / "b.png")
    assert pairs(whole(source), "uri", "error")["cat/b.png"] == OUTSIDE


def test_folder_pipe_does_not_block(folder: Path) -> None:
    os.mkfifo(folder / "cat" / "pipe.png")
    assert pairs(whole(opened(folder)), "uri", "error")["cat/pipe.png"] == "not a regular file"


def test_folder_name_that_is_no_text(folder: Path) -> None:
    (folder / "cat" / os.fsdecode(b"\xff.png")).write_bytes(png())
    assert pairs(whole(opened(folder)), "uri", "error")["cat/\ufffd.png"] == "file name is not UTF-8"


def test_folder_fingerprint(folder: Path) -> None:
    before = opened(folder).fingerprint()
    assert opened(folder).fingerprint() == before
    assert opened(folder, classes=("cat", "dog")).fingerprint() != before
    write(folder / "dog" / "d.tif", png() + b"more")
    assert opened(folder).fingerprint() != before


def test_folder_declared_classes(folder: Path) -> None:
    source = opened(folder, classes=("dog", "cat"))
    assert build_vocabulary({}, source).codes["cat"] == 1


def test_folder_without_classes(tmp_path: Path) -> None:
    write(tmp_path / "flat" / "a.png", png())
    with pytest.raises(DataError, match=r"but got the files a.png; move the images into one sub-folder per class"):
        opened(tmp_path / "flat")
    write(tmp_path / "bare" / "sub" / "a.txt", "x")
    with pytest.raises(DataError, match=r"images \(\.bmp, .*\) in one sub-folder per class .*, but got none"):
        opened(tmp_path / "bare")


def test_folder_on_fsspec() -> None:
    root = f"/{uuid.uuid4().hex}"
    for name in ("cat/a.png", "cat/x/b.png", "dog/c.png", "d.png", "dog/.h.png"):
        locate(f"memory:/{root}/{name}").write_bytes(png())
    table = whole(opened(f"memory:/{root}"))
    assert pairs(table, "uri", "label") == {"cat/a.png": "cat", "cat/x/b.png": "cat", "dog/c.png": "dog"}
    assert table["error"].null_count == 3
    fsspec.filesystem("memory").rm(root, recursive=True)


# --- Clothing1M ---------------------------------------------------------------------------------------------------


def clothing(root: Path, texts: str = "annotations/", level: str = "images/", per_class: int = 3) -> Path:
    """A small Clothing1M: `per_class` noisy images of each class, and two with both labels."""
    keys, lines = [], []
    for label in range(14):
        for number in range(per_class):
            key = f"images/{label % 10}/{number}/{label},{number}.jpg"
            keys.append(key)
            lines.append(f"{key} {label}")
    both = ["images/0/both 1.jpg", "images/0/both 2.jpg"]
    for key in keys + both:
        write(root / level / key.removeprefix("images/"), png())
    write(root / texts / "noisy_train_key_list.txt", "\n".join(keys) + "\n")
    write(root / texts / "noisy_label_kv.txt", "\r\n".join([*lines, f"{both[0]} 3", f"{both[1]} 4"]) + "\r\n")
    write(root / texts / "clean_label_kv.txt", f"{both[0]} 5\n{both[1]} 4\nimages/0/only_clean.jpg 1\n")
    write(root / texts / "clean_train_key_list.txt", f"{both[0]}\nimages/0/only_clean.jpg\n")
    write(root / texts / "clean_test_key_list.txt", f"{both[1]}\n")
    return root


@pytest.mark.parametrize("texts", ["", "annotations/"])
@pytest.mark.parametrize("level", ["", "images/"])
def test_clothing1m_layouts(tmp_path: Path, texts: str, level: str) -> None:
    root = clothing(tmp_path, texts, level)
    for data in (root, f"clothing1m:{root}"):
        source = opened(data)
        assert (source.name, source.num_rows, source.has_truth) == ("clothing1m", 42, False)
        assert source.class_names == CLASS_NAMES
        assert not source.allows_thumbnails
        table = whole(source, 10)
        assert table["error"].null_count == 42
        assert table["image"].null_count == 0
        assert table["uri"].to_pylist()[3] == "images/1/0/1,0.jpg"
        assert table["label"].to_pylist()[3] == "1"
        assert "true_label" not in table.column_names
    checked = validate_rows(table, "image", build_vocabulary({}, source), None)
    assert Counter(checked.rows["given_label"].to_pylist()) == dict.fromkeys(range(14), 3)


def test_clothing1m_class_names(tmp_path: Path) -> None:
    root = clothing(tmp_path)
    names = write(root / "annotations" / "category_names_eng.txt", "\n".join(f"C{i}" for i in range(14)))
    assert opened(root).class_names == tuple(f"C{i}" for i in range(14))
    names.write_text("Shirt\n")
    with pytest.raises(DataError, match=r"14 distinct class names in .*category_names_eng.txt, but got 1"):
        opened(root)


def test_clothing1m_keys_may_not_leave_the_root(tmp_path: Path) -> None:
    root = clothing(tmp_path / "root")
    secret = write(tmp_path / "secret.jpg", png(9))
    os.symlink(secret, root / "images" / "0" / "link.jpg")
    os.symlink(tmp_path, root / "images" / "up")
    bad = ["../secret.jpg", "images/../../secret.jpg", str(secret), "images\\0\\x.jpg", f"file://{secret}", "C:/x.jpg"]
    bad += ["images/0/link.jpg", "images/up/secret.jpg"]
    keys = root / "annotations" / "noisy_train_key_list.txt"
    keys.write_text("\n".join([*bad, "images/0/0/0,0.jpg", "images/0/absent.jpg", "images/0/0/0,0.jpg"]))
    labels = root / "annotations" / "noisy_label_kv.txt"
    labels.write_text(labels.read_text() + "".join(f"{key} 1\n" for key in bad) + "nolabel\n")
    table = whole(opened(root))
    assert table["error"].to_pylist() == [OUTSIDE] * 8 + [None, "missing file", "key is listed twice"]
    assert table["image"].to_pylist()[:8] == [None] * 8
    assert table["label"].to_pylist()[8:] == ["0", None, "0"]
    assert key_error("images/2/26/3761328114,905362226.jpg") is None


def test_clothing1m_double_labeled(tmp_path: Path) -> None:
    source = opened(clothing(tmp_path), include_double_labeled=True)
    assert source.num_rows == 44
    assert source.has_truth
    table = whole(source, 10)
    assert table["label"].to_pylist()[-2:] == ["3", "4"]
    assert table["true_label"].to_pylist() == [None] * 42 + ["5", "4"]
    checked = validate_rows(table, "image", build_vocabulary({}, source), None)
    assert checked.truth is not None
    assert checked.truth.to_pylist() == [
        {"instance_id": 42, "true_label": 5},
        {"instance_id": 43, "true_label": 4},
    ]
    sampled = opened(tmp_path, include_double_labeled=True, balanced_sample=14)
    assert sampled.num_rows == 16
    (tmp_path / "annotations" / "clean_label_kv.txt").unlink()
    with pytest.raises(DataError, match=r"clean_label_kv.txt in .*, but got no such file"):
        opened(tmp_path, include_double_labeled=True)
    write(tmp_path / "annotations" / "clean_label_kv.txt", "x 1\n")
    with pytest.raises(DataError, match=r"images with a noisy and a clean label in .*, but got none"):
        opened(tmp_path, include_double_labeled=True)


def test_clothing1m_balanced_sample(tmp_path: Path) -> None:
    root = clothing(tmp_path, per_class=5)
    small, large = whole(opened(root, balanced_sample=28)), whole(opened(root, balanced_sample=44))
    assert Counter(small["label"].to_pylist()) == {str(label): 2 for label in range(14)}
    assert Counter(large["label"].to_pylist()) == {str(label): 3 + (label < 2) for label in range(14)}
    assert set(small["uri"].to_pylist()) < set(large["uri"].to_pylist())
    assert set(small["uri"].to_pylist()) != set(whole(opened(root, balanced_sample=28, seed=1))["uri"].to_pylist())
    assert opened(root, seed=1).fingerprint() == opened(root).fingerprint()
    prints = {opened(root, balanced_sample=28, seed=seed).fingerprint() for seed in (0, 1)}
    assert len(prints | {opened(root).fingerprint()}) == 3
    with pytest.raises(DataError, match=r"at least 6 images of each class .* T-shirt has 5, .* at most 70"):
        opened(root, balanced_sample=84)
    with pytest.raises(ConfigError, match="balanced sample of at least 14, but got 13"):
        opened(root, balanced_sample=13)


def test_balanced_sample_ignores_order_and_unusable_entries() -> None:
    entries = [Entry(f"k{i}", str(i % 2), None) for i in range(40)]
    entries += [Entry("bad", "0", "points outside"), Entry("none", None, None), Entry("odd", "7", None)]
    forward = balanced_sample(entries, ("a", "b"), 10, 3)
    backward = balanced_sample(entries[::-1], ("a", "b"), 10, 3)
    assert forward == backward[::-1]
    assert Counter(entry.label for entry in forward) == {"0": 5, "1": 5}
    full = balanced_sample(entries, ("a", "b"), 40, 3)
    assert {entry.key for entry in full} == {f"k{i}" for i in range(40)}


def test_clothing1m_missing_texts(tmp_path: Path) -> None:
    write(tmp_path / "noisy_train_key_list.txt", "a.jpg\n")
    with pytest.raises(DataError, match=r"noisy_label_kv.txt beside noisy_train_key_list.txt"):
        opened(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"noisy_train_key_list.txt in .*, but got no such file"):
        opened(f"clothing1m:{tmp_path}/empty")


# --- demo ---------------------------------------------------------------------------------------------------------


def test_demo() -> None:
    source = opened("demo")
    assert source.num_rows == 1797
    assert source.has_truth
    assert source.class_names == tuple("0123456789")
    table = whole(source, 700)
    assert table["uri"].to_pylist()[12] == "digits/00012"
    given, truth = table["label"].to_numpy(), table["true_label"].to_numpy()
    assert 0.17 < np.mean(given != truth) < 0.23
    assert load_rgb(table["image"][0].as_py()).shape == (32, 32, 3)
    checked = validate_rows(table, "image", build_vocabulary(Counter(given), source), None)
    assert checked.rows.num_rows == 1797
    assert checked.gray
    other = whole(opened("demo", seed=1), 2000)
    assert other["label"].to_pylist() != list(given)
    assert other["true_label"].to_pylist() == list(truth)
    assert opened("demo", seed=1).fingerprint() != source.fingerprint()


# --- registry -----------------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    for data in (f"{tmp_path}/absent", "", f"clothing1m:{tmp_path}/absent"):
        with pytest.raises(DataError, match=r"Expected data to look at .*, but got no such path '.*'; check the path"):
            opened(data)
    with pytest.raises(StorageError, match="installed driver"):
        opened("nosuchprotocol://x")


def test_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a .csv or .tsv table .* but got a file of type '.zip'"):
        opened(write(tmp_path / "x.zip", "zip"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"'demo', a .parquet file, .* but got an empty folder"):
        opened(tmp_path / "empty")
    write(tmp_path / "tables" / "t.csv", "uri,label\n")
    with pytest.raises(DataError, match=r"but got the files t.csv; give the path of the table itself"):
        opened(tmp_path / "tables")


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
