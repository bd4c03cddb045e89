"""Trainings that keep something per row, on Ray with two workers: killed and resumed, they end as undisturbed ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.workflows.train import train
from tests.engine.conftest import write_features
from tests.engine.faults import kill_machine
from tests.engine.test_faults import dying
from tests.engine.test_train import files_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

METHODS = ("dividemix", "ddyna_l", "ddyna_s")
TWO: dict[str, Any] = {"workers": 2, "epochs": 4, "batch_size": 64, "checkpoint_seconds": 0.0, "quiet": True}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """An odd number of rows, a third of the labels wrong, and others to test on."""
    return {
        "data": str(write_features(tmp_path / "train.parquet", 601, noise=0.3)),
        "test": str(write_features(tmp_path / "test.parquet", 301, noise=0.0)),
        "cache": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("name", ["elr", *METHODS])
def test_a_killed_worker(name: str, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: within the epoch after a division, and after writing what the checkpoint does not list yet."""
    how = TWO | data | ({"method": name, "warm_up": 1} if name in METHODS else {"loss": name})
    train(**how, out=str(tmp_path / "calm"))
    marks = tmp_path / "marks"
    marks.mkdir()
    points = [("step", 2, 1), ("written", 3, 0)]
    monkeypatch.setattr("dynacor_ray.engine.training.cluster_training.train_worker", dying(points, marks))
    train(**how, out=str(tmp_path / "killed"))
    assert len(list(marks.iterdir())) == len(points), "every kill took place"
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "calm")


DRIVER = """
import json, sys
from dynacor_ray.workflows.train import train
train(**json.loads(sys.argv[1]))
"""


def test_a_killed_driver(data: dict[str, str], tmp_path: Path) -> None:
    """Its whole machine is gone; the same command on another cluster goes on."""
    how = TWO | data | {"method": "dividemix", "warm_up": 2, "epochs": 6, "batch_size": 8}
    run = tmp_path / "killed"
    command = [sys.executable, "-c", DRIVER, json.dumps(how | {"out": str(run), "cluster": "local"})]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place, deadline = run / "signals" / "progress.json", time.monotonic() + 400
    while not (place.exists() and json.loads(place.read_text())["epochs"] >= 3):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill_machine(driver)
    assert not (run / "summary.json").exists()
    kept = {path.name for path in (run / "signals").glob("epoch=00000/*")}
    assert kept
    train(**how, out=str(run))
    train(**how, out=str(tmp_path / "calm"))
    assert files_of(run) == files_of(tmp_path / "calm")
