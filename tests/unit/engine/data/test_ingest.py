"""What attempts that died and replaced data leave in a cache."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.ingest import REPLACED_SECONDS, ingest
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source

DAY = 24 * 3600.0


def test_old_attempts_are_removed_by_the_next_run(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows = {"feature": schema.fixed_size_list(features), "label": np.arange(40) % 2}
    pq.write_table(pa.table(rows), tmp_path / "data.parquet")

    def pack() -> PackedDataset:
        source = open_source(str(tmp_path / "data.parquet"), SourceOptions())
        return ingest(source, locate(str(tmp_path / "packed")), 0.01, Progress(quiet=True))

    first, folder = pack(), tmp_path / "packed"
    attempt = first.manifest.quarantine.partition("/")[0]
    ages = {"00000001": (2 * DAY, True), "00000002": (60.0, True)}  # attempts that died: a file of theirs is missing
    ages |= {"00000003": (2 * DAY, False), "00000004": (2 * REPLACED_SECONDS, False)}  # whole ones
    for name, (age, died) in ages.items():
        shutil.copytree(folder / attempt, folder / name)
        if died:
            (folder / name / "quarantine.parquet").unlink()
        at = time.time() - age
        for path in (*(folder / name).rglob("*"), folder / name):
            os.utime(path, (at, at))
    for path in (folder / attempt).rglob("*"):
        os.utime(path, (0, 0))
    assert pack() == first
    assert sorted(path.name for path in folder.iterdir()) == sorted([attempt, "00000002", "00000003", "manifest.json"])
    assert len(first.labels().ids) == 40
