"""A driver that is stopped, taken over and continued changes nothing any more, and neither do its Ray workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.fs as pafs
import pytest

from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.runs import lock
from tests.engine.conftest import write_features
from tests.engine.faults import everything
from tests.engine.s3_server import empty_bucket, s3_server, uri_of

STALE = 2.0
DRIVER = f"""
import sys
from dynacor_ray.runs import lock
lock.BEAT_SECONDS, lock.STALE_SECONDS = 0.2, {STALE}
lock._machine = lambda: "elsewhere"  # so that its successor does not ask for its process
from dynacor_ray.workflows.detect import detect
data, out, cluster = sys.argv[1:]
detect(data, out=out, epochs=5000, batch_size=16, checkpoint_seconds=0.0, quiet=True, cluster=cluster)
"""


@pytest.fixture(params=[pytest.param("disk", marks=pytest.mark.slow), "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "disk":
        yield locate(str(tmp_path))
        return
    with s3_server() as port:
        empty_bucket(port)
        yield locate(uri_of(port).format("here"))


def epochs_done(run: Location) -> int:
    progress = run / "signals" / "progress.json"
    return int(progress.read_json()["epochs"]) if progress.exists() else 0


def wait_for(reached: Callable[[], bool], driver: subprocess.Popen[str], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def stop_between_writes(driver: subprocess.Popen[str], run: Location) -> None:
    """Suspend a driver that has no file half in place: such a one was checked, and may come late."""
    while True:
        driver.send_signal(signal.SIGSTOP)
        time.sleep(0.2)  # what the server was asked for
        infos = run.filesystem.get_file_info(pafs.FileSelector(run.path, recursive=True))
        if not [info for info in infos if info.path.endswith(".part") and ".lock." not in info.path]:
            return
        driver.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def files_of(run: Location) -> dict[str, bytes]:
    """All but the locks, and what is being written, which may be gone before it is read."""
    return everything(run, (".lock", ".part"))


@pytest.mark.parametrize("cluster", ["none", pytest.param("local", marks=pytest.mark.slow)])
def test_late_changes(place: Location, tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "STALE_SECONDS", STALE)
    (place / "data.parquet").write_bytes(write_features(tmp_path / "features.parquet", 300).read_bytes())
    run = place / "run"
    command = [sys.executable, "-c", DRIVER, (place / "data.parquet").uri, run.uri, cluster]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    old = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    family: list[psutil.Process] = []
    try:
        wait_for(lambda: epochs_done(run) >= 2, old)
        family = psutil.Process(old.pid).children(recursive=True)
        stop_between_writes(old, run)
        if cluster == "local":  # where the driver's processes go on without it
            before = epochs_done(run) + 1
            wait_for(lambda: epochs_done(run) > before, old)
        with lock.run_lock(run, Progress(quiet=True)) as check:
            time.sleep(1.0)  # what had been begun
            held = files_of(run)
            time.sleep(STALE)
            old.send_signal(signal.SIGCONT)
            _, said = old.communicate(timeout=120)
            assert old.returncode == 1
            assert "took over, since this driver gave no sign of life" in said
            time.sleep(1.0)
            assert files_of(run) == held
            check()
    finally:
        for process in [old, *family]:
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()
        old.wait()
