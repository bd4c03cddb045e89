"""A local Ray cluster for the tests that ask for one, and small data sets with known wrong labels."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from dynacor_ray.core import schema
from dynacor_ray.engine.runtime.session import disable_preemption_watcher, silence_ray
from dynacor_ray.ground_truth.synthetic_noise import symmetric
from dynacor_ray.workflows.detect import detect

# Ray Train looks every two seconds whether its workers are done: trainings of a second would wait for that.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
# Ray and torch warn about themselves in ways that we cannot change; ours are errors in the unit tests.
THIRD_PARTY = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if "cluster" in getattr(item, "fixturenames", ()) and given.get("cluster") != "none":
            item.add_marker("ray")
        if "tests/engine" in item.path.as_posix() or "tests/jobs" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(600))  # starting processes is slow on a busy machine
            for rule in (*THIRD_PARTY, "ignore::pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(rule))


CLASSES = 4
FEATURES = 16


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four logical CPUs, so that two training workers and Ray Data fit on any machine; gives its temporary folder.

    For what is about workers, processes, Ray Data or Tune: the rest runs in one process, which takes a fraction of the
    time and makes the same outputs (`test_one_process.py`).
    """
    silence_ray()
    disable_preemption_watcher()
    folder = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patch:  # Ray's own folder stays where it is: its sockets need short paths
        patch.setenv("RAY_TMPDIR", os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
        patch.setenv("TMPDIR", str(folder))
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=300 << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    yield folder
    ray.shutdown()


def write_features(path: Path, rows: int, noise: float = 0.2, seed: int = 0, row_group: int = 300) -> Path:
    """A parquet file of Gaussian classes: features, given labels with symmetric noise, true labels."""
    random = np.random.default_rng(seed)
    true = random.integers(0, CLASSES, rows)
    centers = random.normal(size=(CLASSES, FEATURES)) * 1.2
    features = (centers[true] + random.normal(size=(rows, FEATURES))).astype(np.float32)
    given = symmetric(true, np.arange(rows), noise, CLASSES, seed)
    columns = {"feature": schema.fixed_size_list(features), "given_label": given, "true_label": true}
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


@pytest.fixture
def feature_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a set like `write_features` in the test's own folder."""

    def make(rows: int = 1001, noise: float = 0.2, seed: int = 0, row_group: int = 300, name: str = "set") -> Path:
        return write_features(tmp_path / f"{name}.parquet", rows, noise, seed, row_group)

    return make


FAST: dict[str, Any] = {"epochs": 4, "clustering_epochs": 2, "quiet": True, "batch_size": 64, "cluster": "none"}
ON_RAY: dict[str, Any] = FAST | {"cluster": "auto"}
"""With the fixture `cluster`."""


@dataclass(frozen=True)
class Finished:
    """A finished run of `detect` with `FAST` on 1,001 rows."""

    data: Path
    run: Path
    cache: Path


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Made once for all tests, which only read it."""
    folder = tmp_path_factory.mktemp("finished")
    made = Finished(write_features(folder / "set.parquet", 1001), folder / "run", folder / "cache")
    detect(str(made.data), out=str(made.run), cache=str(made.cache), **FAST)
    return made


@pytest.fixture
def finished(pristine: Finished, tmp_path: Path) -> Finished:
    """A copy of `pristine` to be changed; the data are the same file, to which the run is tied."""
    for there in (pristine.run, pristine.cache):
        shutil.copytree(there, tmp_path / there.name)
    return Finished(pristine.data, tmp_path / "run", tmp_path / "cache")
