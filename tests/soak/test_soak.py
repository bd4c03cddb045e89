"""Ten kills at random moments of a run from images to issues: workers, actors and tasks of Ray, and the driver."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.engine.faults import assert_nothing_half, assert_whole

KILLS = 10
ROWS, EPOCHS = 1500, 20
SECONDS = 1500
"""The soak is given up after this."""
RUN = f"""
import sys
import dynacor_ray.engine
import ray
ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
from dynacor_ray.workflows.detect import detect
detect(sys.argv[1], out=sys.argv[2], encoder="pixels:8", epochs={EPOCHS}, batch_size=8, workers=2, max_failures=3,
       checkpoint_seconds=1.0, clustering_epochs=1, quiet=True)
"""
VICTIMS = (
    *("ray::RayTrainWorker", "ray::TrainController", "ray::DatasetManager", "ray::SplitCoordinator"),
    *("ray::MapWorker", "ray::MapBatches", "ray::ReadPieces", "ray::make", "ray::work"),
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


def end(driver: subprocess.Popen[bytes]) -> None:
    """Kill the driver, and its cluster, which here is a machine of its own."""
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for process in family:
        if process.is_running():
            process.kill()


def epochs_done(run: Path) -> int:
    place = run / "signals" / "progress.json"
    return int(json.loads(place.read_text())["epochs"]) if place.exists() else -1


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ten_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    data, run, said = tmp_path / "images.parquet", tmp_path / "run", tmp_path / "driver.log"
    write_images(data)
    dice, killed, deadline = random.Random(seed), Counter[str](), time.monotonic() + SECONDS
    ended_by_itself = 0
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RUN, str(data), str(run)]
        with said.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    # How many epochs are done when a kill comes; before the first of them the data are packed and embedded.
    moments = sorted(dice.randint(-4, EPOCHS - 4) for _ in range(KILLS))
    driver = start()
    while moments or driver.poll() != 0:
        assert time.monotonic() < deadline, f"killed {dict(killed)}\n{said.read_text()[-3000:]}"
        time.sleep(0.2)
        if driver.poll() is not None:
            if driver.returncode == 0 and not moments:
                break
            ended_by_itself += 1
            assert_nothing_half(run)
            if driver.returncode == 0:  # quicker than the kills: once more
                shutil.rmtree(run)
            driver = start()
        elif moments and epochs_done(run) >= max(moments[0], -1):
            time.sleep(dice.uniform(0, 3))
            alive = victims(driver.pid)
            if dice.random() < 0.2:
                end(driver)
                killed["driver"] += 1
                assert_nothing_half(run)
                driver = start()
            elif alive:
                victim = dice.choice(alive)
                killed[title(victim).removeprefix("ray::").partition(".")[0].partition("(")[0]] += 1
                victim.kill()
            else:
                continue
            moments.pop(0)
    print(json.dumps({"seed": seed, "killed": killed, "drivers that ended by themselves": ended_by_itself}))
    assert_whole(run, ROWS, EPOCHS)
