"""Samples in tar files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError
from tests.opened_sources import opened, png, whole, write


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_shards(tmp_path: Path) -> None:
    first = {"a/1.png": png(1), "a/1.cls": b"3\n", "2.cls": b"5", "2.seg.jpg": png(2), "3.json": b'{"label": 5}'}
    tar(tmp_path / "x-000000.tar", first | {"3.jpg": png(3), "4.jpg": png(4), "5.cls": b"1", "note.txt": b"x"})
    tar(tmp_path / "x-000001.tar", {"1.webp": png(5), "1.cls": b"-1", "2.json": b"[", "2.png": png(6)})
    table = whole(opened(tmp_path))
    assert table["uri"].to_pylist() == [
        *("x-000000.tar#a/1.png", "x-000000.tar#2.seg.jpg", "x-000000.tar#3.jpg", "x-000000.tar#4.jpg"),
        *("x-000001.tar#1.webp", "x-000001.tar#2.png"),
    ]
    assert table["label"].to_pylist() == ["3", "5", "5", None, None, None]
    assert table["image"].to_pylist() == [png(shade) for shade in range(1, 7)]
    assert opened(tmp_path / "x-000000.tar").fingerprint() != opened(tmp_path).fingerprint()


def test_shards_of_splits(tmp_path: Path) -> None:
    for name, label in (("train-0000", b"a"), ("train-0001", b"b"), ("val-0000", b"a")):
        tar(tmp_path / f"{name}.tar", {"1.png": png(), "1.cls": label})
    assert opened(tmp_path).notes == ("The splits train, val are read together; --split takes one.",)
    train = opened(tmp_path, split="train")
    assert (train.notes, whole(train)["label"].to_pylist()) == ((), ["a", "b"])
    with pytest.raises(DataError, match=r"files of a split 'test' in .*, but got the files train-0000.*; correct"):
        opened(tmp_path, split="test")


def test_no_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples of an image and a label .*, but got 1 image without labels; unpack"):
        opened(tar(tmp_path / "x.tar", {"cat/1.png": png()}))
    with pytest.raises(DataError, match=r"x.tar to be a tar file, but got"):
        opened(write(tmp_path / "x.tar", b"no tar" * 200))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_of_gigabytes(kind: bytes, tmp_path: Path) -> None:
    """A sparse file of no size on disk, whose header claims a name that would fill the memory."""
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, 3 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(head.tobuf(tarfile.GNU_FORMAT))
        file.truncate(head.size + 2048)
    with pytest.raises(DataError, match=r"a\.tar to be a tar file, but got 'a header of 3,221,225,472 bytes'"):
        opened(tmp_path / "a.tar")
