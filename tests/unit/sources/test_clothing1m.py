"""Clothing1M: its layouts, its keys, its two kinds of labels, balanced samples."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.sources.clothing1m import CLASS_NAMES, Entry, balanced_sample, key_error
from dynacor_ray.sources.validate import build_vocabulary, validate_rows
from tests.opened_sources import OUTSIDE, opened, png, whole, write


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


def test_clothing1m_test_images(tmp_path: Path) -> None:
    """With their clean labels, and nothing of the training images."""
    root = clothing(tmp_path)
    source = opened(f"clothing1m_test:{root}")
    assert (source.name, source.num_rows, source.has_truth) == ("clothing1m_test", 1, False)
    assert source.class_names == opened(root).class_names
    assert source.fingerprint() != opened(root).fingerprint()
    table = whole(source)
    assert table["uri"].to_pylist() == ["images/0/both 2.jpg"]
    assert table["label"].to_pylist() == ["4"]
    with pytest.raises(ConfigError, match="--include-double-labeled"):
        opened(f"clothing1m_test:{root}", include_double_labeled=True)
    (root / "annotations" / "clean_test_key_list.txt").unlink()
    with pytest.raises(DataError, match=r"clean_test_key_list.txt in .*, but got no such file"):
        opened(f"clothing1m_test:{root}")


@pytest.mark.parametrize("name", ["noisy_label_kv.txt", "noisy_train_key_list.txt"])
def test_clothing1m_texts_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("dynacor_ray.sources.clothing1m._TEXT_BYTES", 1 << 20)
    os.truncate(clothing(tmp_path) / "annotations" / name, 1 << 30)
    with pytest.raises(StorageError, match=f"{name} to be small, but got more than 1 MiB"):
        opened(tmp_path)
