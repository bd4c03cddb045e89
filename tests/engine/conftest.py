"""One local Ray cluster for all engine tests, and small data sets with known wrong labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from dynacor_ray import schema
from dynacor_ray.engine.session import forgo_watcher, quieten
from dynacor_ray.noise.synthetic import symmetric

# Ray and torch warn about themselves in ways that we cannot change; ours are errors in the unit tests.
THIRD_PARTY = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning", "ignore::UserWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/engine" in item.path.as_posix() or "tests/jobs" in item.path.as_posix():
            item.add_marker("ray")
            item.add_marker(pytest.mark.timeout(600))  # starting processes is slow on a busy machine
            for rule in (*THIRD_PARTY, "ignore::pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(rule))


CLASSES = 4
FEATURES = 16


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    """Four logical CPUs, so that two training workers and Ray Data fit on any machine."""
    quieten()
    forgo_watcher()
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=300 << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.fixture
def feature_set(tmp_path: Path) -> Callable[..., Path]:
    """Make a parquet file of Gaussian classes: ids, features, given labels with symmetric noise, true labels."""

    def make(rows: int = 1001, noise: float = 0.2, seed: int = 0, row_group: int = 300, name: str = "set") -> Path:
        random = np.random.default_rng(seed)
        true = random.integers(0, CLASSES, rows)
        centres = random.normal(size=(CLASSES, FEATURES)) * 1.2
        features = (centres[true] + random.normal(size=(rows, FEATURES))).astype(np.float32)
        ids = np.arange(rows)
        table = pa.table(
            {
                "feature": schema.fixed_size_list(features),
                "given_label": symmetric(true, ids, noise, CLASSES, seed),
                "true_label": true,
            }
        )
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=row_group)
        return path

    return make
