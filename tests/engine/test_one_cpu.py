"""A machine with a single CPU: everything must find room beside the training worker. Runs in a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = """
import sys
import dynacor_ray.engine
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=150 << 20, log_to_driver=False)
from dynacor_ray.workflows.detect import detect
detect(sys.argv[1], out=sys.argv[2], epochs=2, clustering_epochs=1, quiet=True, encoder=sys.argv[3])
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["features", "pixels"])
def test_one_cpu_is_enough(feature_set: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    data = str(feature_set(300)) if kind == "features" else "demo"
    command = [sys.executable, "-c", RUN, data, str(tmp_path / "run"), kind]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["num_rows"] in (300, 1797)
