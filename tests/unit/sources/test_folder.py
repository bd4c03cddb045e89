"""Image folders: rows, links, odd names, fingerprints."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import fsspec
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.validate import build_vocabulary, validate_rows
from tests.opened_sources import OUTSIDE, opened, pairs, png, whole, write


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
