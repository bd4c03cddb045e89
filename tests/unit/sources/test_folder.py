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
    os.symlink(secret, folder / "cat" / "out.png")
    os.symlink(folder / "dog" / "d.tif", folder / "cat" / "in.png")
    os.symlink("nowhere.png", folder / "cat" / "broken.png")
    os.symlink("..", folder / "dog" / "loop")
    os.symlink("dog", folder / "hound")
    source = opened(folder)
    table = whole(source)
    errors = {uri: error for uri, error in pairs(table, "uri", "error").items() if error}
    assert errors == {"cat/out.png": OUTSIDE + "; --follow-links reads it", "cat/broken.png": "missing file"}
    assert source.notes[-1] == "Left out, as links to folders that are read already: 'dog/loop', 'hound/loop'."
    assert pairs(table, "uri", "image")["cat/in.png"] == png()
    assert pairs(table, "uri", "label")["hound/d.tif"] == "hound", "a class that is a link within the data is read"
    assert not any(image == png(9) for image in table["image"].to_pylist())
    assert pairs(whole(opened(folder, follow_links=True)), "uri", "image")["cat/out.png"] == png(9)


@pytest.mark.parametrize("target", ["more", "absent"])
def test_a_class_folder_that_is_a_link_is_never_lost(folder: Path, tmp_path: Path, target: str) -> None:
    write(tmp_path / "more" / "x.png", png(9))
    os.symlink(tmp_path / target, folder / "cow")
    with pytest.raises(
        DataError, match=r"the link 'cow' to (a folder outside of the data; pass --follow-l|nothing; r)"
    ):
        opened(folder)
    if target == "more":
        assert pairs(whole(opened(folder, follow_links=True)), "uri", "image")["cow/x.png"] == png(9)


def test_links_in_circles_end(folder: Path) -> None:
    for name in ("x", "y", "z"):
        os.symlink("..", folder / "cat" / name)
        os.symlink("../cat", folder / "dog" / name)
    assert opened(folder).num_rows < 25


def test_splits_above_the_classes(tmp_path: Path) -> None:
    for split, name in (("train", "daisy"), ("train", "rose"), ("val", "rose"), ("val", "tulip")):
        write(tmp_path / split / name / "a.png", png())
    write(tmp_path / "test" / "a.png", png())
    source = opened(tmp_path)
    uris = ["train/daisy/a.png", "train/rose/a.png", "val/rose/a.png", "val/tulip/a.png"]
    assert whole(source)["uri"].to_pylist() == uris
    assert whole(source)["label"].to_pylist() == ["daisy", "rose", "rose", "tulip"]
    assert source.notes == (
        "'test', 'train', 'val' taken for splits, the folders below for classes; --split train takes one only.",
    )
    assert source.warnings == ("Left out: 1 image directly in 'test', without a class.",)
    assert pairs(whole(opened(tmp_path, split="val")), "uri", "label") == {
        "val/rose/a.png": "rose",
        "val/tulip/a.png": "tulip",
    }
    with pytest.raises(DataError, match=r"a split 'dev' in .*, but got the folders 'test', 'train', 'val'; name one"):
        opened(tmp_path, split="dev")
    with pytest.raises(DataError, match=r"one sub-folder per class in each split of .*, but got images directly in"):
        opened(tmp_path, split="test")


def test_a_folder_above_the_one_that_was_meant_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "images" / "Images" / name / "a.png", png())
        write(tmp_path / "annotations" / name / "a", "x")
    wanted = rf"but got one, 'images'; the classes are probably 'cat', 'dog': pass --data {tmp_path}/images/Images\."
    with pytest.raises(DataError, match=wanted):
        opened(tmp_path)
    for path in ("train/cat", "train/dog", "val/cat"):
        write(tmp_path / "set" / "inner" / path / "a.png", png())
    with pytest.raises(
        DataError, match=rf"the data are probably in 'train', 'val': pass --data {tmp_path}/set/inner\."
    ):
        opened(tmp_path / "set")
    write(tmp_path / "one" / "cat" / "deep" / "a.png", png())
    with pytest.raises(DataError, match=r"but got one, 'cat'; move the images"):
        opened(tmp_path / "one")


def test_folders_of_the_same_names_in_every_class_are_doubted(tmp_path: Path) -> None:
    for path in ("images/cat", "images/dog", "masks/cat", "masks/dog"):
        write(tmp_path / path / "1.png", png())
    (told,) = opened(tmp_path).warnings
    assert told.startswith("The classes are 'images', 'masks', and each of them holds the folders 'cat', 'dog': if the")
    assert told.endswith(f"pass --data {tmp_path}/images.")
    write(tmp_path / "masks" / "owl" / "1.png", png())
    assert opened(tmp_path).warnings == ()


def test_what_is_no_row_is_counted(folder: Path) -> None:
    write(folder / "cat" / "@eaDir" / "a.jpg" / "thumb.jpg", png())
    write(folder / "__MACOSX" / "cat" / "a.jpg", png())
    write(folder / "cat" / "Thumbs.db", "x")
    write(folder / "owl" / "a.mov", "x")
    (folder / "empty").mkdir()
    for ending in ("heic", "jfif", "jpe", "avif", "jp2"):
        write(folder / "dog" / f"x.{ending}", png())
    source = opened(folder)
    assert source.warnings == (
        "No class, since without an image: 'empty', 'owl' (1 x .mov).",
        "Left out: 1 image beside the class folders.",
    )
    assert source.notes == (
        "Left out, since no images by their names: 1 x .mov, 1 x .txt.",
        "Left out, as folders of thumbnails or of a system: 1 x __MACOSX, 1 x @eaDir.",
    )
    errors = pairs(whole(source), "uri", "error")
    assert {name: errors[f"dog/x.{name}"] for name in ("heic", "jfif", "jpe", "avif", "jp2")} == {
        "heic": "images of type .heic are not read",
        **dict.fromkeys(("jfif", "jpe", "avif", "jp2")),
    }


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
    with pytest.raises(DataError, match=r"images in one sub-folder per class .*, but got none \(1 x .txt\)"):
        opened(tmp_path / "bare")


def test_folder_on_fsspec() -> None:
    root = f"/{uuid.uuid4().hex}"
    for name in ("cat/a.png", "cat/x/b.png", "dog/c.png", "d.png", "dog/.h.png"):
        locate(f"memory:/{root}/{name}").write_bytes(png())
    table = whole(opened(f"memory:/{root}"))
    assert pairs(table, "uri", "label") == {"cat/a.png": "cat", "cat/x/b.png": "cat", "dog/c.png": "dog"}
    assert table["error"].null_count == 3
    fsspec.filesystem("memory").rm(root, recursive=True)


@pytest.mark.parametrize("beside", ["unlabeled", "cat"])
def test_splits_beside_other_folders_are_not_taken_for_classes(tmp_path: Path, beside: str) -> None:
    splits = ("train", "val") if beside == "unlabeled" else ("train",)
    for place in (*(f"{split}/{name}" for split in splits for name in ("cat", "dog")), beside, "train"):
        write(tmp_path / place / "a.png", png())
    told = rf"but got the splits 'train'(, 'val')? beside '{beside}'; take one with --split train, or move the others"
    with pytest.raises(DataError, match=told):
        opened(tmp_path)
    assert set(whole(opened(tmp_path, split="train"))["label"].to_pylist()) == {"cat", "dog"}
    for name in ("x", "y"):
        write(tmp_path / "classes" / "test" / name / "a.png", png())
    write(tmp_path / "classes" / "cat" / "a.png", png())
    assert set(whole(opened(tmp_path / "classes"))["label"].to_pylist()) == {"cat", "test"}, "a class may be named so"


def test_classes_of_folders_of_their_own_are_told(tmp_path: Path) -> None:
    for path in ("pets/cat", "pets/dog", "wild/fox", "wild/owl"):
        write(tmp_path / path / "a.png", png())
    (told,) = opened(tmp_path).notes
    wanted = "The classes are 'pets', 'wild', and their images lie in folders of their own, 'pets/cat', 'pets/dog',"
    assert told.startswith(wanted)
    write(tmp_path / "pets" / "a.png", png())
    assert opened(tmp_path).notes == ()


def test_the_only_folder_of_a_split_is_no_class_of_its_own(tmp_path: Path) -> None:
    """As tiny-imagenet has it: train/CLASS/images/ and val/images/, whose classes stand in a list."""
    for path in ("train/cat/images", "train/dog/images", "val/images", "test/dog"):
        write(tmp_path / path / "a.png", png())
    source = opened(tmp_path)
    assert whole(source)["label"].to_pylist() == ["dog", "cat", "dog"]
    assert source.warnings == ("Left out: 1 image directly in 'val/images', without a class.",)
