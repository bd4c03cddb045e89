"""Kills at random moments of detect, sweep and train, from images on: of the driver, and of Ray's workers and tasks."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

import dynacor_ray.engine  # noqa: F401  (with Ray, before a driver is forked)
from dynacor_ray.engine.runtime.session import silence_ray
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.sweep import sweep
from dynacor_ray.workflows.train import train
from tests.engine.faults import assert_nothing_half, assert_signals_whole, assert_whole, kill_machine

ROWS, EPOCHS = 1500, 20
SECONDS = 5400
"""A soak is given up after this: a machine that does other work beside it is slow, not faulty."""
GAMMAS = (0.1, 0.2)
OPTIONS: dict[str, Any] = {"encoder": "pixels:8", "epochs": EPOCHS, "batch_size": 8, "checkpoint_seconds": 1.0}
MODES: dict[str, dict[str, Any]] = {"none": {"cluster": "none"}, "ray": {"workers": 2, "max_failures": 3}}


def drive(verb: str, mode: str, data: Path, out: Path) -> None:
    """What a driver does."""
    options = OPTIONS | MODES[mode] | {"out": str(out), "quiet": True}
    if mode == "ray":
        silence_ray()
        start_ray()
    if verb == "detect":
        detect(str(data), clustering_epochs=1, **options)
    elif verb == "sweep":
        sweep(str(data), gammas=GAMMAS, alphas=(0.0, 0.5), clustering_epochs=1, **options)
    else:
        train(str(data), loss="elr", **options)
    ray.shutdown()


def start_ray() -> None:
    """A cluster; once more where this machine is too busy for Ray to start in time, which says nothing of a run."""
    there = {"num_cpus": 4, "include_dashboard": False, "object_store_memory": 200 << 20, "log_to_driver": False}
    for attempt in range(3):
        try:
            ray.init(address="local", **there)
            return
        except Exception as error:
            kill_children()
            if attempt == 2 or "timed out" not in str(error):
                raise


def kill_children() -> None:
    """Those of a start of Ray that failed."""
    for process in psutil.Process().children(recursive=True):
        process.kill()


class Driver:
    """A process of its own. It is forked from this one, which has imported everything: a start takes no minute then."""

    def __init__(self, verb: str, mode: str, data: Path, out: Path, said: Path) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)  # the test's own limit
                for stream, place in ((1, os.devnull), (2, str(said))):
                    os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
                os.environ.pop("RAY_ADDRESS", None)
                warnings.simplefilter("ignore")  # errors in the tests, and Ray warns about itself
                drive(verb, mode, data, out)
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                kill_children()
                os._exit(code)

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code

    def kill(self) -> None:
        """At once."""
        os.kill(self.pid, signal.SIGKILL)


VICTIMS = (
    *("ray::RayTrainWorker", "ray::TrainController", "ray::DatasetManager", "ray::SplitCoordinator"),
    *(
        "ray::MapWorker",
        "ray::MapBatches",
        "ray::ReadPieces",
        "ray::make",
        "ray::work",
        "ray::run",
        "ray::ImplicitFunc",
    ),
)
"""Actors and tasks of a run, by the titles that Ray gives their processes."""


def write_images(place: Path) -> None:
    """Two classes of plain pictures, a fifth of the labels wrong."""
    draw = np.random.default_rng(0)
    images = []
    for row in range(ROWS):
        pixels = draw.integers(0, 90, (8, 8, 3), dtype=np.uint8) + np.uint8(120 * (row % 2))
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        images.append(data.getvalue())
    labels = [(row % 2) ^ (row % 5 == 0) for row in range(ROWS)]
    pq.write_table(pa.table({"image": images, "label": pa.array(labels, pa.int64())}), place, row_group_size=300)


def title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.Error:
        return ""


def victims(driver: int) -> list[psutil.Process]:
    try:
        family = psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in family if title(process).startswith(VICTIMS)]


def epochs_done(run: Path) -> int:
    """Of all trainings; -1 before the first."""
    places = [run / "signals" / "progress.json", *run.glob("trainings/*/signals/progress.json")]
    return sum((json.loads(place.read_text())["epochs"] for place in places if place.exists()), -1)


def outcome(verb: str, run: Path) -> list[Any]:
    """What is equal in two undisturbed runs."""
    if verb == "train":
        return [(run / "model" / "model.safetensors").read_bytes()]
    if verb == "sweep":
        trials = pq.read_table(run / "trials.parquet")
        return [trials.drop_columns([name for name in trials.column_names if "second" in name]).to_pylist()]
    return [pq.read_table(run / name) for name in ("issues.parquet", "dynamics.parquet")]


def assert_complete(verb: str, run: Path) -> None:
    """Everything is there, once, and nothing else."""
    if verb == "detect":
        assert_whole(run, ROWS, EPOCHS)
    elif verb == "sweep":
        trainings = sorted((run / "trainings").iterdir())
        assert len(trainings) == len(GAMMAS)
        for gamma, training in zip(GAMMAS, trainings, strict=True):
            assert_signals_whole(training / "signals", ROWS, EPOCHS, gamma)
        assert pq.read_table(run / "trials.parquet")["status"].to_pylist() == ["finished"] * 2 * len(GAMMAS)
        assert sorted(pq.read_table(run / "best" / "issues.parquet")["instance_id"].to_pylist()) == list(range(ROWS))
    else:
        history = json.loads((run / "summary.json").read_text())["epochs"]
        assert [figures["epoch"] for figures in history] == list(range(1, EPOCHS + 1))
        assert not (run / "signals").exists()
    assert_nothing_half(run)
    assert not [place for place in run.rglob("*.part") if "cache" not in place.relative_to(run).parts]
    assert len([place for place in run.glob("cache/*/dataset/*") if place.is_dir()]) == 1, "packed once"


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("mode", ["none", "ray"])
@pytest.mark.parametrize("verb", ["detect", "sweep", "train"])
def test_kills_at_random_moments(tmp_path: Path, verb: str, mode: str, seed: int, kills: int) -> None:
    data, run, said = tmp_path / "images.parquet", tmp_path / "run", tmp_path / "driver.log"
    write_images(data)
    dice, killed, deadline = random.Random(f"{seed} {verb} {mode}"), Counter[str](), time.monotonic() + SECONDS
    ended_by_itself = 0

    def start(out: Path = run) -> Driver:
        return Driver(verb, mode, data, out, said)

    # How many epochs are done when a kill comes; before the first of them the data are packed and embedded.
    last = EPOCHS * (len(GAMMAS) if verb == "sweep" else 1) - 4
    moments = sorted(dice.randint(-4, last) for _ in range(kills))
    driver, was_disturbed = start(), False
    while moments or driver.poll() != 0:
        assert time.monotonic() < deadline, f"killed {dict(killed)}\n{said.read_text()[-3000:]}"
        time.sleep(0.05)
        if driver.poll() is not None:
            if driver.returncode == 0 and not moments:
                break
            assert driver.returncode == 0 or was_disturbed, said.read_text()[-3000:]
            ended_by_itself += 1
            assert_nothing_half(run)
            if driver.returncode == 0:  # quicker than the kills: once more
                shutil.rmtree(run)
            driver, was_disturbed = start(), False
        elif moments and epochs_done(run) >= max(moments[0], -1):
            time.sleep(dice.uniform(0, 3.0 if mode == "ray" or moments[0] < 0 else 0.5))
            alive = victims(driver.pid)
            if mode == "none" or dice.random() < 0.2:
                kill_machine(driver)
                killed["driver"] += 1
                if run.exists():
                    assert_nothing_half(run)
                driver, was_disturbed = start(), False
            elif alive:
                victim = dice.choice(alive)
                killed[title(victim).removeprefix("ray::").partition(".")[0].partition("(")[0]] += 1
                victim.kill()
                was_disturbed = True
            else:
                continue
            moments.pop(0)
    told = {"verb": verb, "mode": mode, "seed": seed, "killed": killed}
    print(json.dumps(told | {"drivers that ended by themselves": ended_by_itself}))
    assert_complete(verb, run)
    if mode == "none":  # where the number of workers, on which sums of floats depend, stays the same
        assert start(tmp_path / "calm").wait() == 0
        assert outcome(verb, run) == outcome(verb, tmp_path / "calm")
