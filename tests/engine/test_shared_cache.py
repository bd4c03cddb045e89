"""A cache that may not be written, or that others fill at the same time: nothing half or doubled, a reason."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.data import embed, ingest
from dynacor_ray.workflows.detect import detect
from tests.engine.faults import assert_nothing_half, assert_whole

ROWS, EPOCHS = 40, 2
OPTIONS: dict[str, Any] = {"epochs": EPOCHS, "clustering_epochs": 1, "quiet": True, "cluster": "none"}
OPTIONS |= {"encoder": "pixels:8", "gamma": 0.3}


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """A folder of images in two classes that differ in brightness."""
    random = np.random.default_rng(0)
    for number in range(ROWS):
        pixels = random.integers(0, 100, (8, 8, 3)) + 100 * (number % 2)
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return str(tmp_path / "pictures")


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "MAX_UNIT_ROWS", 16)


def files_of(folder: Path) -> set[str]:
    return {place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_file()}


def kept(number: int, may_read: bool) -> pafs.FileSystem:
    """A disk on which nothing can be changed, or nothing be read, with the error of that number."""

    class Kept(pafs.FSSpecHandler):
        def refuse(self, path: str, *_: Any, **__: Any) -> Any:
            raise OSError(number, os.strerror(number), path)

        open_output_stream = delete_file = delete_dir = move = refuse

        def create_dir(self, path: str, recursive: bool) -> None:
            if not os.path.isdir(path):
                self.refuse(path)

        def get_file_info(self, paths: list[str]) -> Any:
            return super().get_file_info(paths) if may_read else self.refuse(paths[0])

    return pafs.PyFileSystem(Kept(LocalFileSystem()))


READ_ONLY, OF_ANOTHER = errno.EROFS, errno.EACCES


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("number", [READ_ONLY, OF_ANOTHER], ids=["read-only disk", "cache of another user"])
def test_a_cache_that_may_not_be_written(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert_serves_as_far_as_it_goes(pictures, tmp_path, monkeypatch, number, OPTIONS)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster", "small_units")
def test_a_cache_that_may_not_be_written_on_ray(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose tasks and workers are told of the place by the driver."""
    options = OPTIONS | {"cluster": "auto", "workers": 2}
    assert_serves_as_far_as_it_goes(pictures, tmp_path, monkeypatch, READ_ONLY, options)


def assert_serves_as_far_as_it_goes(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, options: dict[str, Any]
) -> None:
    """A cache on which nothing can be changed; what is missing ends the run with a reason, and all is as it was."""
    cache, disk = tmp_path / "cache", kept(number, may_read=True)
    monkeypatch.setattr("dynacor_ray.core.storage._from_fsspec", lambda uri: (disk, uri.removeprefix("kept://")))
    message = f"Expected to write kept://{cache}.*, but got '{os.strerror(number)}'; .* or choose another place"
    with pytest.raises(StorageError, match=message):
        detect(pictures, out=str(tmp_path / "empty"), cache=f"kept://{cache}", **options)
    assert not cache.exists()
    assert files_of(tmp_path / "empty") == set(), "free for the corrected command"
    detect(pictures, out=str(tmp_path / "calm"), cache=str(cache), **options)
    before = files_of(cache)
    detect(pictures, out=str(tmp_path / "run"), cache=f"kept://{cache}", **options)
    with pytest.raises(StorageError, match=message):
        detect(pictures, out=str(tmp_path / "more"), cache=f"kept://{cache}", **options | {"gamma": 0.5})
    assert files_of(cache) == before
    assert pq.read_table(tmp_path / "run" / "issues.parquet").equals(
        pq.read_table(tmp_path / "calm" / "issues.parquet")
    )


def test_a_cache_that_may_not_be_read(pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a user with umask 077."""
    disk = kept(errno.EACCES, may_read=False)
    monkeypatch.setattr("dynacor_ray.core.storage._from_fsspec", lambda uri: (disk, uri.removeprefix("kept://")))
    (tmp_path / "cache").mkdir()
    with pytest.raises(StorageError, match=r"Expected to (read|write) kept://.*/cache.*'Permission denied'; check"):
        detect(pictures, out=str(tmp_path / "run"), cache=f"kept://{tmp_path}/cache", **OPTIONS)
    assert files_of(tmp_path / "run") == set()


@pytest.mark.usefixtures("small_units")
@pytest.mark.parametrize("moment", ["before the manifest", "before the embedding"])
def test_another_driver_fills_the_cache_meanwhile(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Wholly, between two steps of the first: the data are packed once, and both runs are those of one alone."""
    cache, others = tmp_path / "cache", []

    def meanwhile(module: Any, name: str) -> None:
        function: Callable[..., Any] = getattr(module, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            made = function(*arguments, **options)
            monkeypatch.setattr(module, name, function)
            others.append(detect(pictures, out=str(tmp_path / "second"), cache=str(cache), **OPTIONS))
            return made

        monkeypatch.setattr(module, name, wrapper)

    meanwhile(*((ingest, "_pack") if moment == "before the manifest" else (embed, "_missing")))
    detect(pictures, out=str(tmp_path / "first"), cache=str(cache), **OPTIONS)
    assert len(others) == 1
    detect(pictures, out=str(tmp_path / "calm"), cache=str(tmp_path / "alone"), **OPTIONS)
    assert_cache_like_alone(cache, tmp_path / "alone")
    for name in ("first", "second"):
        assert_whole(tmp_path / name, ROWS, EPOCHS, gamma=0.3)
        for table in ("issues.parquet", "dynamics.parquet"):
            assert pq.read_table(tmp_path / name / table).equals(pq.read_table(tmp_path / "calm" / table))


def test_what_a_killed_driver_had_half_packed_is_removed(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself when it resumes; what another driver is packing stays."""
    cache = tmp_path / "cache"
    with monkeypatch.context() as killed:
        killed.setattr(ingest, "_summarize", lambda *_: pytest.fail("killed"))
        delete = Location.delete
        killed.setattr(Location, "delete", lambda place: None if "/dataset/" in place.path else delete(place))
        with pytest.raises(pytest.fail.Exception):
            detect(pictures, out=str(tmp_path / "first"), cache=str(cache), **OPTIONS)
    (left,) = cache.glob("*/dataset/*")
    assert left.is_dir()
    for name in ("second", "first"):
        cache.joinpath(next(cache.glob("*/dataset/manifest.json"), Path("none"))).unlink(missing_ok=True)
        detect(pictures, out=str(tmp_path / name), cache=str(cache), **OPTIONS)
        assert left.exists() == (name == "second")


def assert_cache_like_alone(cache: Path, alone: Path) -> None:
    """As many files, of the same names but for that of the attempt, all whole."""
    assert_nothing_half(cache)
    (packed,), (packed_alone,) = ([*place.glob("*/dataset")] for place in (cache, alone))
    attempts = [ingest.PackedDataset.read(locate(str(one))).files[0].parent.path for one in (packed, packed_alone)]
    names = [files_of(place) for place in (cache, alone)]
    held = [
        {name.replace(Path(attempt).name, "attempt") for name in found}
        for found, attempt in zip(names, attempts, strict=True)
    ]
    assert held[0] == held[1]


DRIVER = """
import sys
from dynacor_ray.workflows.detect import detect
detect(sys.argv[1], out=sys.argv[2], cache=sys.argv[3], epochs=2, clustering_epochs=1, quiet=True, cluster="none",
    encoder="pixels:8", gamma=0.3)
"""


@pytest.mark.slow
def test_three_drivers_that_start_together(pictures: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    runs, cache = [tmp_path / f"run{number}" for number in range(3)], tmp_path / "cache"
    drivers = [
        subprocess.Popen([sys.executable, "-c", DRIVER, pictures, str(run), str(cache)], env=environment)
        for run in runs
    ]
    assert [driver.wait(300) for driver in drivers] == [0, 0, 0]
    assert_nothing_half(cache)
    assert not list(cache.rglob("*.part"))
    for run in runs:
        assert_whole(run, ROWS, EPOCHS, gamma=0.3)
        assert pq.read_table(run / "issues.parquet").equals(pq.read_table(runs[0] / "issues.parquet"))
