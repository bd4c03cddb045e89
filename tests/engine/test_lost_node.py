"""A cluster of three nodes loses one while it trains with an elastic number of workers. In a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.faults import assert_whole

RUN = """
import json, os, sys, threading, time
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "10"
import dynacor_ray.engine
import ray
from ray.cluster_utils import Cluster

data, out = sys.argv[1:]
here = dict(num_cpus=2, object_store_memory=100 << 20, include_dashboard=False)
cluster = Cluster(initialize_head=True, head_node_args=here)
others = [cluster.add_node(num_cpus=2, object_store_memory=100 << 20) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
progress = os.path.join(out, "signals", "progress.json")

def lose_a_node():
    while not (os.path.exists(progress) and json.load(open(progress))["epochs"] >= 2):
        time.sleep(0.05)
    cluster.remove_node(others[0], allow_graceful=False)
    print("lost", flush=True)

thread = threading.Thread(target=lose_a_node, daemon=True)
thread.start()
from dynacor_ray.workflows.detect import detect
detect(data, out=out, workers=3, min_workers=1, epochs=8, batch_size=6, clustering_epochs=1, checkpoint_seconds=0.0,
       quiet=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_the_other_nodes_finish(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """Three workers become as many as there is room for; no row is lost with the node."""
    run = tmp_path / "run"
    command = [sys.executable, "-c", RUN, str(feature_set(1001)), str(run)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    # Its own, since such a cluster notes its address there; short, since the paths of sockets are.
    with tempfile.TemporaryDirectory(prefix="ray") as temp:
        done = subprocess.run(
            command, env=environment | {"RAY_TMPDIR": temp}, capture_output=True, text=True, timeout=400, check=False
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "lost" in done.stdout
    assert_whole(run, 1001, 8)
    listed = json.loads((run / "signals" / "manifest.json").read_text())
    ranks = [len(listed[str(epoch)]) for epoch in range(8)]
    assert ranks[0] == 3
    assert ranks[-1] == 2
