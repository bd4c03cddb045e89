"""Many runs one after another in one process, and a disk that is full at any of the writes of a run."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import ray
from fsspec.implementations.local import LocalFileSystem

from dynacor_ray.core.errors import StorageError
from dynacor_ray.engine.runtime.blocks import RayBlocks
from dynacor_ray.engine.runtime.parallel_map import parallel_map
from dynacor_ray.workflows.detect import detect
from tests.engine.faults import assert_nothing_half, assert_whole

OPTIONS: dict[str, Any] = {"epochs": 2, "clustering_epochs": 1, "quiet": True, "cluster": "none"}
ON_CLUSTER, WARM = 64, 16
"""Runs, each of which starts and ends two workers, and how many of them are over before anything is measured."""
WRITTEN_ON_RAY = ("/dataset/", "/signals/epoch", "progress.json", "checkpoint.pt", "manifest.json", "dynamics.parquet")
"""By tasks and workers, but for the last manifest; what else there is the driver writes, as in one process."""


def held() -> tuple[int, int, int, int]:
    """Bytes of memory, open files, threads, and temporary files of this process."""
    me = psutil.Process()
    return me.memory_info().rss, me.num_fds(), threading.active_count(), len(os.listdir(tempfile.gettempdir()))


def slopes(rows: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Of each of `held` or `of_cluster`, per run."""
    after = np.array(rows, float)
    return np.polyfit(np.arange(len(after)), after, 1)[0]


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("runs", "warm", "most"),
    [pytest.param(8, 3, 8 << 20, id="8"), pytest.param(64, 16, 512 << 10, id="64", marks=pytest.mark.slow)],
)
def test_many_runs_leave_nothing(
    feature_set: Callable[..., Path], tmp_path: Path, own_temporary_folder: Path, runs: int, warm: int, most: int
) -> None:
    """No more than `most` bytes of memory per run, which says little after few runs, and nothing else."""
    data, rows = str(feature_set(200)), []
    for number in range(runs):
        detect(data, out=str(tmp_path / f"run{number}"), **OPTIONS)
        rows.append(held())
    memory, files, threads, _ = slopes(rows[warm:])
    assert memory < most, f"{memory / 1024:.0f} KiB per run"
    assert max(files, threads) < 0.05, rows
    assert not list(own_temporary_folder.iterdir())


def of_cluster() -> tuple[float, ...]:
    """Of Ray's servers bytes of memory and open files, of its workers both on average, and how many there are.

    Ray starts and ends workers as it likes. Its log monitor holds logs of theirs open, up to 200.
    """
    servers, workers = [], []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may end meanwhile
            if "log_monitor" not in " ".join(process.cmdline()):
                kind = workers if process.name().startswith("ray::") else servers
                kind.append((process.memory_full_info().uss, process.num_fds()))
    return (*np.sum(servers, axis=0), *np.mean(workers or [(0, 0)], axis=0), len(workers))


def reserved() -> int:
    """Placement groups that are not removed."""
    return sum(group["state"] != "REMOVED" for group in ray.util.placement_group_table().values())


@pytest.mark.usefixtures("cluster")
def test_a_pass_over_a_data_set_of_ray_leaves_no_thread() -> None:
    """Neither where the caller stops early; five were left per run."""
    before = set(threading.enumerate())
    assert sorted(parallel_map(abs, [-1, -2, -3])) == [1, 2, 3]
    blocks = iter(RayBlocks(ray.data.from_arrow([pa.table({"a": [1, 2]}), pa.table({"a": [3]})])))
    assert next(blocks).num_rows == 2
    del blocks
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert "Prefetcher" not in left, left


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_runs_on_one_cluster_leave_nothing(
    feature_set: Callable[..., Path], tmp_path: Path, own_temporary_folder: Path, cluster: Path
) -> None:
    """Nothing stays reserved: what a run leaves set aside, the next one would wait for.

    Ray's servers remember each process that there was; their memory per run is what that takes.
    """
    data, mine, theirs, left = str(feature_set(200)), [], [], []
    for number in range(ON_CLUSTER):
        detect(data, out=str(tmp_path / f"run{number}"), **OPTIONS | {"cluster": "auto", "workers": 2})
        mine.append(held())
        theirs.append(of_cluster())
        left.append(len(list(cluster.rglob("*"))))
        assert reserved() == 0, f"placement groups after run {number}"
    memory, files, threads, _ = slopes(mine[WARM:])
    of_servers, handles, of_a_worker, its_handles, workers = slopes(theirs[WARM:])
    told = f"KiB per run: driver {memory / 1024:.0f}, servers {of_servers / 1024:.0f}, worker {of_a_worker / 1024:.0f}"
    also = f"handles: driver {files:.3f}, servers {handles:.3f}, worker {its_handles:.3f}; threads {threads:.3f}"
    print(f"{told}; {also}; workers {workers:.3f}; temporary files {left[-1]}")
    assert memory < 1 << 20, told
    assert max(of_servers, of_a_worker) < 2 << 20, theirs
    assert max(files, threads) < 0.05, mine
    assert max(handles, its_handles) < 1, theirs
    assert workers < 0.1, theirs
    assert left[WARM:] == [left[WARM]] * (ON_CLUSTER - WARM), left
    assert not list(own_temporary_folder.iterdir())


def full_disk(allowed: int) -> tuple[pafs.FileSystem, list[str]]:
    """A file system on which only so many files can be written, and the paths of those that were begun."""
    begun: list[str] = []

    class Full(pafs.FSSpecHandler):
        def open_output_stream(self, path: str, metadata: Any) -> Any:
            if "/driver-" not in path:  # the lock's beat comes at any time
                begun.append(path)
                if len(begun) > allowed:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return super().open_output_stream(path, metadata)

    return pafs.PyFileSystem(Full(LocalFileSystem())), begun


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_that_is_full_at_any_write(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with what to do, leaves no half file, and goes on where it was once there is space."""
    data, calm = str(feature_set(300)), tmp_path / "calm"
    detect(data, out=str(calm), **OPTIONS)

    def run_on(disk: pafs.FileSystem, out: Path) -> None:
        monkeypatch.setattr("dynacor_ray.core.storage._from_fsspec", lambda uri: (disk, uri.removeprefix("full://")))
        detect(data, out=f"full://{out}", **OPTIONS)

    disk, begun = full_disk(10**9)
    run_on(disk, tmp_path / "whole")
    assert len(begun) > 8
    for allowed in range(len(begun)):
        out = tmp_path / f"run{allowed}"
        with pytest.raises(StorageError, match=r"No space left on device.*free some space"):
            run_on(full_disk(allowed)[0], out)
        if (out / "summary.json").exists():  # the report is all that is missing
            assert_whole(out, 300, 2)
            assert allowed == len(begun) - 1
        if out.exists():
            assert_nothing_half(out)
            assert not list(out.rglob("*.part"))
        run_on(full_disk(10**9)[0], out)
        assert_whole(out, 300, 2)
        for name in ("issues.parquet", "dynamics.parquet"):
            assert pq.read_table(out / name).equals(pq.read_table(calm / name))


def full_for(part: str) -> pafs.FileSystem:
    """A file system without room for files with this part in their path, in whichever process."""

    class Full(pafs.FSSpecHandler):
        def open_output_stream(self, path: str, metadata: Any) -> Any:
            if part and part in path:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            return super().open_output_stream(path, metadata)

    return pafs.PyFileSystem(Full(LocalFileSystem()))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_disk_that_is_full_where_workers_write(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, on Ray, whose tasks and workers are told of the place by the driver."""
    data, options = str(feature_set(300)), OPTIONS | {"cluster": "auto", "workers": 2, "max_failures": 1}

    def run_on(disk: pafs.FileSystem, out: Path) -> None:
        monkeypatch.setattr("dynacor_ray.core.storage._from_fsspec", lambda uri: (disk, uri.removeprefix("full://")))
        detect(data, out=f"full://{out}", **options)

    for number, part in enumerate(WRITTEN_ON_RAY):
        out = tmp_path / f"run{number}"
        with pytest.raises(StorageError, match=r"No space left on device.*free some space"):
            run_on(full_for(part), out)
        if out.exists():
            assert_nothing_half(out)
        run_on(full_for(""), out)
        assert_whole(out, 300, 2)
