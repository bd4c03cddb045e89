"""Killed workers and drivers, failing storage, lost files: full coverage, no doubled key, the same planted errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from dynacor_ray.core.errors import RunDirectoryError, TrainingError
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.sweep import sweep
from tests.engine.faults import assert_nothing_half, assert_signals_whole, assert_whole, kill_machine

pytestmark = pytest.mark.usefixtures("cluster")

SLOW_TRAINING = {"epochs": 12, "batch_size": 4, "checkpoint_seconds": 0.0, "clustering_epochs": 1, "quiet": True}
"""Many small steps: an epoch of 2,000 rows takes about half a second, so that a kill lands inside one."""


def processes(name: str) -> list[psutil.Process]:
    """Those of a name below this test process's own Ray session."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if name in " ".join(p.cmdline() or [p.name()])]


def kill_when(
    run: Path, epochs: int, done: threading.Event, killed: list[int], names: tuple[str, ...] = ("RayTrainWorker",)
) -> None:
    """Kill one process of each name, by its pid, once rank 0 says that `epochs` epochs are finished."""
    while not done.is_set():
        places = [*run.glob("signals/progress.json"), *run.glob("trainings/*/signals/progress.json")]
        if any(json.loads(place.read_text())["epochs"] >= epochs for place in places):
            time.sleep(0.1)
            found = [process for name in names for process in processes(name)[-1:]]
            for process in found:
                killed.append(process.pid)
                process.send_signal(signal.SIGKILL)
            if found:
                return
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_worker_killed_in_mid_epoch(feature_set: Callable[..., Path], tmp_path: Path, workers: int) -> None:
    """The run ends by itself, every instance has one signal per epoch, and an attempt that died left nothing behind."""
    run, done, killed = tmp_path / "run", threading.Event(), []
    killer = threading.Thread(target=kill_when, args=(run, 3, done, killed))
    killer.start()
    try:
        result = detect(str(feature_set(2001)), out=str(run), workers=workers, **SLOW_TRAINING | {"epochs": 7})
    finally:
        done.set()
        killer.join()
    assert killed, "the test must have killed a worker"
    assert_whole(run, 2001, 7)
    listed = json.loads((run / "signals" / "manifest.json").read_text())
    attempts = {Path(file).name.split("-")[0] for files in listed.values() for file in files}
    assert len(attempts) > workers, "epochs of the first and of the second attempt both count"
    assert result.summary.evaluation["f1"] > 0.6


@pytest.mark.slow
def test_what_a_killed_leader_had_set_aside_is_given_back(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Also when the process that Ray has for that died as well: with three workers on four CPUs no others would fit."""
    run, done, killed = tmp_path / "run", threading.Event(), []
    names = ("PlacementGroupCleaner", "TrainController")
    killer = threading.Thread(target=kill_when, args=(run, 3, done, killed, names))
    killer.start()
    try:
        detect(str(feature_set(2001)), out=str(run), workers=3, **SLOW_TRAINING | {"batch_size": 32})
    finally:
        done.set()
        killer.join()
    assert len(killed) == len(names)
    assert_whole(run, 2001, 12)


@pytest.mark.slow
def test_what_a_killed_trial_had_set_aside_is_given_back(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Tune starts it again in another process, which must find it; else the training would wait for a CPU for ever."""
    out, done, killed = tmp_path / "sweep", threading.Event(), []
    names = ("PlacementGroupCleaner", "ImplicitFunc")
    killer = threading.Thread(target=kill_when, args=(out, 3, done, killed, names))
    killer.start()
    options = SLOW_TRAINING | {"batch_size": 32, "workers": 3, "max_failures": 2}
    try:
        result = sweep(str(feature_set(2001)), out=str(out), gammas=[0.1], alphas=[0.5], **options)
    finally:
        done.set()
        killer.join()
    assert len(killed) == len(names)
    assert result.trials()["status"].to_pylist() == ["finished"]
    (training,) = (out / "trainings").iterdir()
    assert_signals_whole(training / "signals", 2001, 12, 0.1)


def dying(points: list[tuple[str, int, int]], marks: Path) -> Callable[[dict[str, Any]], str | None]:
    """The worker's function, in which rank `rank` kills its process once at each of (point, epoch, rank).

    Nested, so that the workers get it by value: they cannot import this file.
    """
    folder = str(marks)

    def die_once(name: str) -> None:
        import os
        import signal

        try:
            os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    def train_and_die(told: dict[str, Any]) -> str | None:
        import os

        import ray.train

        from dynacor_ray.engine.training import cluster_training, worker

        rank = ray.train.get_context().get_world_rank()

        def at(point: str, epoch: int) -> None:
            if (point, epoch, rank) in points:
                die_once(f"{point}-{epoch}")

        if os.listdir(folder):
            at("start again", 0)
        step, write, save = worker.TrainState.step, worker.write_signals, worker.TrainState._checkpoint

        def dying_step(self: Any, batch: Any, epoch: int) -> Any:
            done = step(self, batch, epoch)
            at("step", epoch)
            return done

        def dying_write(place: Any, *rest: Any) -> int:
            count = write(place, *rest)
            at("written", int(place.path.split("epoch=")[1][:5]))
            return count

        def dying_save(self: Any, epoch: int) -> None:
            save(self, epoch)
            at("saved", epoch - 1)

        worker.TrainState.step, worker.write_signals = dying_step, dying_write
        worker.TrainState._checkpoint = dying_save
        return cluster_training.train_worker(told)

    return train_and_die


@pytest.mark.slow
@pytest.mark.parametrize(
    "points",
    [
        pytest.param([("written", 1, 1), ("saved", 2, 0)], id="between write and checkpoint, and after it"),
        pytest.param([("step", 2, 0), ("start again", 0, 1)], id="two in a row, the second as it starts"),
    ],
)
def test_a_worker_killed_at_the_worst_moment(
    feature_set: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    points: list[tuple[str, int, int]],
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr("dynacor_ray.engine.training.cluster_training.train_worker", dying(points, marks))
    options = {"epochs": 4, "batch_size": 64, "checkpoint_seconds": 0.0, "clustering_epochs": 1, "quiet": True}
    detect(str(feature_set(601)), out=str(tmp_path / "run"), workers=2, **options)
    assert len(list(marks.iterdir())) == len(points), "every kill took place"
    assert_whole(tmp_path / "run", 601, 4)


@pytest.mark.slow
def test_more_kills_than_allowed_end_the_run_with_a_reason(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    run, done, killed = tmp_path / "run", threading.Event(), []
    killer = threading.Thread(target=kill_when, args=(run, 2, done, killed))
    killer.start()
    data = str(feature_set(2001))
    with pytest.raises(TrainingError, match=r"at most 0 restarts.*rerun the same command to resume"):
        detect(data, out=str(run), max_failures=0, **SLOW_TRAINING)
    done.set()
    killer.join()
    assert killed
    assert not (run / "summary.json").exists()
    assert_nothing_half(run)
    held, content = Path(data).stat(), Path(data).read_bytes()
    pq.write_table(pq.read_table(data).slice(1), data)
    with pytest.raises(RunDirectoryError, match=r"the data changed since that run began; choose another --out\.$"):
        detect(data, out=str(run), max_failures=0, **SLOW_TRAINING)
    Path(data).write_bytes(content)
    os.utime(data, ns=(held.st_atime_ns, held.st_mtime_ns))
    detect(data, out=str(run), max_failures=0, **SLOW_TRAINING)
    assert_whole(run, 2001, 12)


DRIVER = """
import sys
from dynacor_ray.workflows.detect import detect
detect(sys.argv[1], out=sys.argv[2], epochs=12, batch_size=4, checkpoint_seconds=0.0, clustering_epochs=1, quiet=True,
    cluster=sys.argv[3])
"""


@pytest.mark.parametrize(("first", "second"), [("local", "none"), pytest.param("none", "auto", marks=pytest.mark.slow)])
def test_a_killed_driver_is_resumed_by_the_same_command(
    feature_set: Callable[..., Path], tmp_path: Path, first: str, second: str
) -> None:
    """With or without a cluster, whichever of the two it had before; the outputs are those of an undisturbed run."""
    data, run = feature_set(2001), tmp_path / "run"
    command = [sys.executable, "-c", DRIVER, str(data), str(run), first]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = run / "signals" / "progress.json"
    deadline = time.monotonic() + 400
    while not (place.exists() and json.loads(place.read_text())["epochs"] >= 4):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(RunDirectoryError, match=rf"{run} to be free, but got process {driver.pid} on .* --out"):
        detect(str(data), out=str(run), **SLOW_TRAINING)
    kill_machine(driver)
    assert not (run / "summary.json").exists()
    assert_nothing_half(run)
    kept = {p.name for p in (run / "signals").glob("epoch=00000/*")}
    detect(str(data), out=str(run), cluster=second, **SLOW_TRAINING)
    assert_whole(run, 2001, 12)
    assert {p.name for p in (run / "signals").glob("epoch=00000/*")} == kept, "the first epoch was not repeated"
    detect(str(data), out=str(tmp_path / "calm"), cluster="none", **SLOW_TRAINING)
    for name in ("issues.parquet", "dynamics.parquet"):
        assert pq.read_table(run / name).equals(pq.read_table(tmp_path / "calm" / name))


def flaky_storage(marks: str, points: dict[str, tuple[str, str]]) -> pafs.FileSystem:
    """A file system that fails once at each of the points (action, part of the path); nested, see `dying`.

    The point "rows" only counts outside of this process, where Ray Data reads.
    """
    driver = os.getpid()

    class Flaky(pafs.FSSpecHandler):
        def _fail_once(self, action: str, path: str) -> None:
            import errno
            import os

            for name, (wanted, part) in points.items():
                here = name != "rows" or os.getpid() != driver
                if here and action == wanted and part in path and not os.path.exists(f"{marks}/{name}"):
                    os.close(os.open(f"{marks}/{name}", os.O_CREAT))
                    raise OSError(errno.EIO, os.strerror(errno.EIO), path)

        def open_input_stream(self, path: str) -> Any:
            self._fail_once("read", path)
            return super().open_input_stream(path)

        def open_input_file(self, path: str) -> Any:
            self._fail_once("read", path)
            return super().open_input_file(path)

        def open_output_stream(self, path: str, metadata: Any) -> Any:
            self._fail_once("write", path)
            return super().open_output_stream(path, metadata)

    return pafs.PyFileSystem(Flaky(LocalFileSystem()))


@pytest.mark.slow
def test_storage_that_fails_once(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read or a write that fails for a moment is tried again, wherever it is; the run needs no restart by hand."""
    points = {
        "packing": ("write", "/part-"),
        "labels": ("read", "/part-"),
        "rows": ("read", "/part-"),
        "signals": ("write", "/signals/epoch=00001"),
        "checkpoint": ("write", "/signals/checkpoint"),
        "assembly": ("read", "/signals/epoch=00001"),
        "dynamics": ("write", "/dynamics.parquet"),
        "issues": ("write", "/issues.parquet"),
        "truth": ("read", "/truth.parquet"),
        "summary": ("write", "/summary.json"),
    }
    marks, run = tmp_path / "marks", tmp_path / "run"
    marks.mkdir()
    storage = flaky_storage(str(marks), points)
    monkeypatch.setattr("dynacor_ray.core.storage._from_fsspec", lambda uri: (storage, uri.removeprefix("flaky://")))
    options = {"epochs": 3, "batch_size": 64, "clustering_epochs": 1, "quiet": True}
    detect(str(feature_set(601)), out=f"flaky://{run}", **options)
    assert {path.name for path in marks.iterdir()} == set(points)
    assert_whole(run, 601, 3)
