"""A scheduler's SIGTERM: the run ends at once, with a status that says so, and goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynacor_ray.runs.lock import is_lock
from dynacor_ray.workflows.detect import detect
from tests.engine.faults import assert_nothing_half, assert_whole

PROMPT = 20.0
"""Seconds from the signal to the end of the process, on a busy machine; an idle one takes about one."""


@pytest.mark.parametrize("cluster", ["none", pytest.param("local", marks=pytest.mark.slow)])
def test_sigterm(feature_set: Callable[..., Path], tmp_path: Path, cluster: str) -> None:
    data, run = feature_set(2001), tmp_path / "run"
    options = {"epochs": 12, "batch_size": 16, "checkpoint_seconds": 0.0, "clustering_epochs": 1}
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-c", "from dynacor_ray.cli import main; main()", "detect", "--data", str(data)]
    command += ["--out", str(run), "--quiet", "--cluster", cluster, *flags]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    place = run / "signals" / "progress.json"
    deadline = time.monotonic() + 400
    while not (place.exists() and json.loads(place.read_text())["epochs"] >= 3):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    told = time.monotonic()
    out, err = driver.communicate(timeout=120)
    assert time.monotonic() - told < PROMPT
    assert driver.returncode == 143
    assert err.splitlines()[-1] == "dynacor: Told to end (SIGTERM). The same command resumes where it was."
    assert cluster != "none" or (out, err.count("\n")) == ("", 1)
    assert not [path.name for path in run.iterdir() if is_lock(path.name)]
    assert_nothing_half(run)
    first = {path.name for path in (run / "signals").glob("epoch=00000/*")}
    detect(str(data), out=str(run), cluster="none", quiet=True, **options)
    assert_whole(run, 2001, 12)
    assert {path.name for path in (run / "signals").glob("epoch=00000/*")} == first, "the first epoch is not repeated"
    detect(str(data), out=str(tmp_path / "calm"), cluster="none", quiet=True, **options)
    for name in ("issues.parquet", "dynamics.parquet"):
        assert pq.read_table(run / name).equals(pq.read_table(tmp_path / "calm" / name))
