"""Killed workers and drivers, lost files: the run ends with full coverage and no doubled key."""

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

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from dynacor_ray import schema
from dynacor_ray.errors import CoverageError, TrainingError
from dynacor_ray.pipeline import detect

SLOW_TRAINING = {"epochs": 12, "batch_size": 4, "checkpoint_seconds": 0.0, "cluster_epochs": 1, "quiet": True}
"""Many small steps: an epoch of 2,000 rows takes about half a second, so that a kill lands inside one."""


def training_workers() -> list[psutil.Process]:
    """Ray Train worker processes below this test process's own Ray session."""
    mine = psutil.Process().children(recursive=True)
    return [p for p in mine if "RayTrainWorker" in " ".join(p.cmdline() or [p.name()])]


def kill_when(run: Path, epochs: int, done: threading.Event, killed: list[int]) -> None:
    """Kill one training worker, by its pid, once rank 0 says that `epochs` epochs are finished."""
    place = run / "signals" / "progress.json"
    while not done.is_set():
        if place.exists() and json.loads(place.read_text())["epochs"] >= epochs:
            time.sleep(0.1)
            for process in training_workers()[-1:]:
                killed.append(process.pid)
                process.send_signal(signal.SIGKILL)
                return
        time.sleep(0.02)


def assert_full_coverage(run: Path, rows: int, epochs: int) -> None:
    table = pq.read_table(run / "dynamics.parquet")
    keys = table["key"].to_numpy()
    assert len(np.unique(keys)) == len(keys)
    assert sorted(keys[(keys & 1) == 0] >> 1) == list(range(rows))
    assert schema.matrix(table["margin"]).shape == (len(keys), epochs)
    listed = json.loads((run / "signals" / "manifest.json").read_text())
    assert sorted(map(int, listed)) == list(range(epochs))
    left = {p.relative_to(run / "signals").as_posix() for p in (run / "signals").glob("epoch=*/*")}
    assert left == {name for names in listed.values() for name in names}, "dead attempts left nothing behind"
    for epoch in listed:
        found = np.concatenate([pq.read_table(run / "signals" / f)["key"].to_numpy() for f in listed[epoch]])
        assert np.array_equal(np.sort(found), np.sort(keys)), f"epoch {epoch}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_in_mid_epoch(feature_set: Callable[..., Path], tmp_path: Path, workers: int) -> None:
    """The run ends by itself, every instance has one signal per epoch, and an attempt that died left nothing behind."""
    run, done, killed = tmp_path / "run", threading.Event(), []
    killer = threading.Thread(target=kill_when, args=(run, 3, done, killed))
    killer.start()
    try:
        result = detect(str(feature_set(2001)), out=str(run), workers=workers, **SLOW_TRAINING)
    finally:
        done.set()
        killer.join()
    assert killed, "the test must have killed a worker"
    assert_full_coverage(run, 2001, 12)
    listed = json.loads((run / "signals" / "manifest.json").read_text())
    attempts = {Path(file).name.split("-")[0] for files in listed.values() for file in files}
    assert len(attempts) > workers, "epochs of the first and of the second attempt both count"
    assert result.summary["evaluation"]["f1"] > 0.6


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
    detect(data, out=str(run), max_failures=0, **SLOW_TRAINING)
    assert_full_coverage(run, 2001, 12)


DRIVER = """
import sys
from dynacor_ray.pipeline import detect
detect(sys.argv[1], out=sys.argv[2], epochs=12, batch_size=4, checkpoint_seconds=0.0, cluster_epochs=1, quiet=True)
"""


def test_a_killed_driver_is_resumed_by_the_same_command(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, run = feature_set(2001), tmp_path / "run"
    command = [sys.executable, "-c", DRIVER, str(data), str(run)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = run / "signals" / "progress.json"
    deadline = time.monotonic() + 400
    while not (place.exists() and json.loads(place.read_text())["epochs"] >= 4):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for process in family:  # the machine goes down with its driver
        if process.is_running():
            process.kill()
    assert not (run / "summary.json").exists()
    first = {p.name for p in (run / "signals").glob("epoch=00000/*")}
    detect(str(data), out=str(run), epochs=12, **{k: v for k, v in SLOW_TRAINING.items() if k != "epochs"})
    assert_full_coverage(run, 2001, 12)
    assert {p.name for p in (run / "signals").glob("epoch=00000/*")} == first, "the first epoch was not repeated"


def test_a_lost_signal_file_is_named(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Assembly proves coverage: it names the instances without a signal instead of going on."""
    data, run = str(feature_set(400)), tmp_path / "run"
    options = {"epochs": 3, "cluster_epochs": 1, "quiet": True}
    detect(data, out=str(run), **options)
    listed = json.loads((run / "signals" / "manifest.json").read_text())
    victim = run / "signals" / listed["1"][0]
    table = pq.read_table(victim)
    pq.write_table(table.slice(2), victim)
    (run / "summary.json").unlink()
    with pytest.raises(CoverageError, match=r"epoch 1, but got 2 missing \(instance_id 0, 1\)"):
        detect(data, out=str(run), **options)
