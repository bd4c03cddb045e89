"""Places: whole files or none, and errors that name the place and the way out."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import pickle
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from dynacor_ray.core import storage
from dynacor_ray.core.errors import RunDirectoryError, StorageError
from dynacor_ray.core.fences import fenced
from dynacor_ray.core.storage import ATTEMPTS, FIRST_WAIT, Location, locate, require_space, storage_errors

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
FULL = "No space left on device'; free some space or choose another place"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(params=["local", "fsspec", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """The same folder on three kinds of file system; blanks and other alphabets in its name."""
    name = "a b/ü 日本"
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return locate(f"memory://{tmp_path.name}/{name}")
    return locate(f"{'local://' if request.param == 'fsspec' else ''}{tmp_path}/{name}")


# ----------------------------------------------------------------------------------------------------- reading, writing


def test_files_come_back(folder: Location) -> None:
    place = folder / "x" / "f 1.bin"
    assert not place.exists()
    assert not place.is_dir()
    place.write_bytes(b"\0abc")
    assert place.read_bytes() == b"\0abc"
    place.write_bytes(b"shorter"[:2])
    assert place.read_bytes() == b"sh", "the old content is replaced"
    (folder / "j.json").write_json({"ä": [1, None]})
    assert (folder / "j.json").read_json() == {"ä": [1, None]}
    (folder / "t.parquet").write_table(TABLE, compression="zstd")
    assert (folder / "t.parquet").read_table().equals(TABLE)
    assert (folder / "t.parquet").read_table(["b"]).column_names == ["b"]
    assert folder.names() == ["j.json", "t.parquet", "x"]
    assert (folder / "x").is_dir()
    assert place.info().size == 2
    folder.delete()
    assert not folder.exists()
    assert folder.names() == []
    folder.delete()  # nothing there, nothing to do


def test_directories(folder: Location) -> None:
    made = (folder / "p" / "q").make_dir()
    assert made.is_dir()
    assert made.make_dir() == made
    (made / "f").write_bytes(b"")
    (made / "f").delete()
    assert made.names() == []


def test_a_place_travels(folder: Location) -> None:
    (folder / "f").write_bytes(b"1")
    there = pickle.loads(pickle.dumps(folder))
    assert str(there / "f") == str(folder / "f")
    assert (there / "f").read_bytes() == b"1"


def test_a_failing_write_leaves_nothing(folder: Location) -> None:
    def write_half() -> None:
        with (folder / "f").atomic_replace() as part:
            part.filesystem.open_output_stream(part.path).close()
            assert folder.names() == [part.path.rpartition("/")[2]]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert folder.names() == []
    with pytest.raises(ValueError, match="not JSON compliant"):
        (folder / "f").write_json({"a": float("nan")})
    with pytest.raises(ValueError, match="no such version"):
        (folder / "f").write_table(TABLE, version="no such version")
    assert folder.names() == []


def test_what_a_killed_process_left_half_written(folder: Location) -> None:
    for name in ("a.json", "a.json.12ab34cd.part", "x/y/b.parquet.12ab34cd.part", "x/c.part.json"):
        (folder / name).write_bytes(b"1")
    folder.remove_half_written()
    assert folder.names() == ["a.json", "x"]
    assert ((folder / "x").names(), (folder / "x" / "y" / "b.parquet.12ab34cd.part").exists()) in (
        (["c.part.json"], False),
        (["c.part.json", "y"], False),
    )
    (folder / "none").remove_half_written()


def test_a_failing_write_keeps_the_old_file(folder: Location) -> None:
    (folder / "f").write_bytes(b"old")

    def write_half() -> None:
        with (folder / "f").atomic_replace() as part:
            stream = part.filesystem.open_output_stream(part.path)
            stream.write(b"new")
            stream.close()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert folder.names() == ["f"]
    assert (folder / "f").read_bytes() == b"old"


def test_nothing_is_seen_before_it_is_whole(folder: Location) -> None:
    place = folder / "f"
    with place.atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
        stream.write(b"abc")
        assert not place.exists()
    assert place.read_bytes() == b"abc"


# --------------------------------------------------------------------------------------------------------------- errors


def test_missing_file(folder: Location) -> None:
    for read in ((folder / "f").read_bytes, (folder / "f").read_json, (folder / "f").read_table):
        expected = re.escape(f"Expected to read {folder / 'f'}, but got 'No such file or directory'; check path")
        with pytest.raises(StorageError, match=expected):
            read()


def test_damaged_json(folder: Location) -> None:
    (folder / "f").write_bytes(b'{"a":')
    with pytest.raises(StorageError, match=r"Expected JSON in .*/f, but got '.*'; remove the damaged file\.$"):
        (folder / "f").read_json()
    (folder / "f").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageError, match="remove the damaged file"):
        (folder / "f").read_json()


@pytest.mark.parametrize("kind", ["longer", "shorter", "as long"])
def test_a_file_that_is_replaced_while_it_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store sends as many bytes as the file had when it was opened, of what it is at each request."""
    monkeypatch.setattr(storage, "_READ_BYTES", 4)
    versions = [b'{"a": 1}', {"longer": b'{"b": 1.25}', "shorter": b'{"b":2}', "as long": b'{"b": 2}'}[kind]]

    class Store(pafs.FSSpecHandler):
        """Its file is replaced once it is open, or after the first request for content."""

        now = 0

        def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
            return [pafs.FileInfo(path, pafs.FileType.File, size=len(versions[self.now])) for path in paths]

        def open_input_stream(self, path: str) -> pa.NativeFile:
            store, size, start = self, len(versions[self.now]), 0
            self.now = int(kind != "as long")

            class Answer(io.RawIOBase):
                def readable(self) -> bool:
                    return True

                def read(self, count: int = -1, /) -> bytes:
                    nonlocal start
                    content = versions[store.now][start : min(size, start + count)]
                    start, store.now = start + count, 1
                    return content

            return pa.PythonFile(Answer(), "r")

    place = Location(pafs.PyFileSystem(Store(LocalFileSystem())), "f", "store://f")
    assert place.read_json() == json.loads(versions[kind != "as long"])


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    for action in (locate(f"{tmp_path}/f/g").make_dir, locate(f"{tmp_path}/f").names):
        with pytest.raises(StorageError, match=r"Expected to (read|write) .*Not a directory.*; check path and rights"):
            action()


class FullDisk(LocalFileSystem):
    """Takes the name of a file, but none of its bytes."""

    protocol = "full"
    cachable = False
    opened: ClassVar[list[Any]] = []

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" not in mode:
            return super()._open(path, mode, **options)
        Path(path).touch()
        self.opened.append(io.FileIO("/dev/full", mode))
        return self.opened[-1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    full = Location(pafs.PyFileSystem(pafs.FSSpecHandler(FullDisk())), str(tmp_path), "full://x")
    expected = re.escape(f"Expected to write full://x/f, but got '{FULL}.")
    with pytest.raises(StorageError, match=expected):
        (full / "f").write_bytes(b"abc")
    with pytest.raises(StorageError, match=expected):
        (full / "f").write_table(TABLE)
    assert list(tmp_path.iterdir()) == []
    for file in FullDisk.opened:
        file.close()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space or choose another place"),
        (errno.EDQUOT, "free some space or choose another place"),
        (errno.EACCES, "check path and rights, or choose another place"),
        (errno.EROFS, "check path and rights, or choose another place"),
        (errno.ENOTDIR, "check path and rights"),
        (errno.EIO, "run the same command again when the storage answers; it goes on where it was"),
        (None, "run the same command again when the storage answers; it goes on where it was"),
    ],
)
def test_remedies(number: int | None, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    error = OSError("broken") if number is None else OSError(number, os.strerror(number))

    def fail(*_args: object, **_options: object) -> NoReturn:
        raise error

    monkeypatch.setattr(pq, "write_table", fail)
    reason = "broken" if number is None else os.strerror(number)
    with pytest.raises(StorageError, match=re.escape(f"/f, but got '{reason}'; {remedy}.")) as caught:
        (locate(str(tmp_path)) / "f").write_table(TABLE)
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, OSError)


def test_the_innermost_place_is_named(tmp_path: Path) -> None:
    outer, inner = storage_errors("write", locate("/out")), storage_errors("read", locate("/in"))
    with pytest.raises(StorageError, match=r"^Expected to read /in,"), outer, inner:
        raise PermissionError(errno.EACCES, "no")


class Trouble:
    """Takes the place of a function of pyarrow: fails with the errors given, one per call, then works."""

    def __init__(self, function: Any, *errors: OSError) -> None:
        self.function, self.errors, self.calls = function, list(errors), 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.function(*args, **options)


PASSING = [
    OSError(errno.EIO, os.strerror(errno.EIO)),
    ConnectionResetError("by peer"),
    OSError("When reading: AWS Error NETWORK_CONNECTION"),
]


def test_what_fails_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    place = locate(str(tmp_path)) / "f"
    for error in PASSING:
        writing = Trouble(pq.write_table, error)
        monkeypatch.setattr(pq, "write_table", writing)
        place.write_table(TABLE)
        reading = Trouble(pq.ParquetFile, error)
        monkeypatch.setattr(pq, "ParquetFile", reading)
        assert place.read_table().equals(TABLE)
        assert (writing.calls, reading.calls) == (2, 2)
        monkeypatch.undo()
        monkeypatch.setattr("time.sleep", waits.append)
    assert waits == [FIRST_WAIT] * 6
    assert [p.name for p in tmp_path.iterdir()] == ["f"], "the failed attempts left nothing"


def test_attempts_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    writing = Trouble(pq.write_table, *PASSING * 4)
    monkeypatch.setattr(pq, "write_table", writing)
    with pytest.raises(
        StorageError, match=r"^Expected to write .*; run the same command again when the storage answers"
    ):
        (locate(str(tmp_path)) / "f").write_table(TABLE)
    assert writing.calls == ATTEMPTS
    assert waits == [FIRST_WAIT * 2**i for i in range(ATTEMPTS - 1)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "full"),
        PermissionError("no"),
        FileNotFoundError("gone"),
        OSError("When reading: AWS Error ACCESS_DENIED during HeadObject"),
    ],
)
def test_what_will_not_pass_is_told_at_once(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing = Trouble(pq.write_table, error)
    monkeypatch.setattr(pq, "write_table", writing)
    with pytest.raises(StorageError):
        (locate(str(tmp_path)) / "f").write_table(TABLE)
    assert writing.calls == 1


# --------------------------------------------------------------------------------------------------------------- locate


def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of me")
    found = {
        "/a/b": "/a/b",
        "a b/ü": f"{tmp_path}/a b/ü",
        ".": str(tmp_path),
        "./x/": f"{tmp_path}/x",
        "~/x": "/home/of me/x",
        "file:///a/b": "/a/b",
        "file:///a b/100%": "/a b/100%",
        "file://localhost/a/b": "/a/b",
        "file://localhost": "/",
        "file:///a//b/": "/a/b",
        "file:///a%3A%2F%2Fb": "/a:/b",
        Path("/a b/ü#?%20").as_uri(): "/a b/ü#?%20",
    }
    for uri, path in found.items():
        place = locate(uri)
        assert (place.path, place.uri, place.is_local) == (path, path, True), uri
    assert (locate("/a") / "b" / "c").path == "/a/b/c"


def test_other_stores() -> None:
    place = locate("memory://bucket/a b/")
    assert not place.is_local
    assert place.uri == str(place) == "memory://bucket/a b"
    assert (place / "c").uri == "memory://bucket/a b/c"
    assert (place / "c").path == "/bucket/a b/c"


@pytest.mark.parametrize("uri", ["nosuch://x/y", "s4://bucket"])
def test_unknown_protocol(uri: str) -> None:
    with pytest.raises(StorageError, match="a path or a URI with an installed driver, but got") as caught:
        locate(uri)
    assert repr(uri) in str(caught.value)
    assert "install the fsspec driver of the protocol, or use a local path" in str(caught.value)
    assert "known: " in str(caught.value)


def test_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> NoReturn:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(StorageError, match="Install s3fs to access S3"):
        locate("oss://bucket/x")


def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        @staticmethod
        def from_uri(_: str) -> NoReturn:
            raise OSError("When resolving region for bucket 'b': AWS Error NETWORK_CONNECTION")

    monkeypatch.setattr(pafs, "FileSystem", Offline)
    with pytest.raises(StorageError, match=r"Expected a store at s3://b/x, but got '.*NETWORK.*'; check the address"):
        locate("s3://b/x")


# ---------------------------------------------------------------------------------------------------------------- space


def test_space_is_asked_where_the_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(10, 5, 2_000_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    place = locate(f"{tmp_path}/not/there yet")
    require_space(place, 2_000_000_000)
    assert asked == [tmp_path]
    with pytest.raises(StorageError) as caught:
        require_space(place, 2_500_000_000)
    assert str(caught.value) == (
        f"Expected 2.50 GB of free space for {place}, but got 2.00 GB; free some space or choose another place."
    )


def test_remote_stores_are_not_asked_for_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: pytest.fail("asked"))
    require_space(locate("memory://x"), 10**18)


def test_a_folder_that_may_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(StorageError, match="'Permission denied'; check path and rights"):
        require_space(Location(pafs.LocalFileSystem(), "/a/b", "/a/b"), 1)


def test_large_and_deep_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(StorageError, match=r"deep\.json"):
        locate(str(tmp_path / "deep.json")).read_json()
    (tmp_path / "large.json").write_text(json.dumps(["x" * 100] * 21_000))
    assert len(locate(str(tmp_path / "large.json")).read_json()) == 21_000
    monkeypatch.setattr(storage, "MAX_JSON_BYTES", 2 << 20)
    with pytest.raises(StorageError, match="to be small, but got more than 2 MiB; check what it is"):
        locate(str(tmp_path / "large.json")).read_json()


# -------------------------------------------------------------------------------------------------- queries and secrets

S3 = "s3://KEY:SECRET@bucket/a%20b?endpoint_override=localhost:1&scheme=http"


def test_children_stand_before_the_query() -> None:
    place = locate(S3)
    child = place / "x" / "y.json"
    assert (place.path, child.path) == ("bucket/a b", "bucket/a b/x/y.json")
    assert child.uri == "s3://KEY:SECRET@bucket/a%20b/x/y.json?endpoint_override=localhost:1&scheme=http"
    assert locate(child.uri) == child
    assert (child.parent, child.beside(".part").path) == (place / "x", "bucket/a b/x/y.json.part")
    signed = locate("https://host/root/?sig=abc")
    assert (signed / "a.jpg").path == (signed / "a.jpg").uri == "https://host/root/a.jpg?sig=abc"
    assert (locate("/data/a?b") / "c").path == "/data/a?b/c", "a local path has no query"


def test_secrets_stay_out_of_texts_and_come_back_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_CREDENTIALS", {})
    shown = "s3://***@bucket/a%20b?endpoint_override=localhost:1&scheme=http"
    with pytest.raises(StorageError, match=r"the credentials of s3://\*\*\*@bucket/.*, but got none, as they are not"):
        locate(shown)
    place = locate(S3)
    assert str(place) == shown
    assert "SECRET" not in f"{place} {place!r} {pickle.loads(pickle.dumps(place))!r}"
    assert locate(shown) == place
    with pytest.raises(StorageError):
        locate(shown.replace("bucket", "other"))
    with pytest.raises(StorageError, match=r"s3://\*\*\*@bucket.*nonsense") as caught:
        locate("s3://KEY:SECRET@bucket/x?nonsense=1")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("mask", [0o077, 0o027])
def test_files_and_folders_follow_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        place = locate(str(tmp_path)) / "run"
        (place / "a.json").write_json(1)
        (place / "b.parquet").write_table(TABLE)
        with (place / "c").atomic_replace() as part, part.filesystem.open_output_stream(part.path) as stream:
            assert Path(part.path).stat().st_mode & 0o777 == 0o666 & ~mask, "temporary files, too"
            stream.write(b"x")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run", *(tmp_path / "run").iterdir())}
    assert modes == {"run": 0o777 & ~mask, **dict.fromkeys(("a.json", "b.parquet", "c"), 0o666 & ~mask)}


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "x"))
    place.write_bytes(bytes(3 << 20))
    assert len(place.read_bytes(3 << 20)) == 3 << 20
    with pytest.raises(StorageError, match="x to be small, but got more than 2 MiB"):
        place.read_bytes(2 << 20)


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_packed_files_end_somewhere(
    ending: str, pack: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_UNPACKED_BYTES", 1 << 20)
    place = locate(str(tmp_path / f"x.{ending}"))
    for size in (1 << 20, (1 << 20) + 1):
        place.write_bytes(pack(bytes(size)))
        if size == 1 << 20:
            assert place.read_bytes() == bytes(size)
            continue
        with pytest.raises(StorageError, match="to be no decompression bomb, but got more than 1 MiB"):
            place.read_bytes()


def test_a_place_that_is_lost_while_its_folder_is_made_keeps_its_file(tmp_path: Path) -> None:
    there, mine = locate(str(tmp_path / "run" / "a.json")), locate(str(tmp_path / "mine"))
    there.write_json("theirs")
    mine.write_json("mine")
    asked: list[None] = []

    def check() -> None:
        asked.append(None)
        if len(asked) > 1:
            raise RunDirectoryError("another driver took over")

    with (
        fenced(there.filesystem, there.parent.path, "lock", check),
        pytest.raises(RunDirectoryError, match="took over"),
    ):
        mine.move_to(there)
    assert there.read_json() == "theirs"
