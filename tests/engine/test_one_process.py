"""Without a cluster: the same outputs bit for bit, and nothing of Ray is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.core import table_files
from dynacor_ray.core.storage import locate
from dynacor_ray.export.cleaned_copy import clean_run
from dynacor_ray.export.tables import export_run
from dynacor_ray.workflows.analyze_signals import analyze_signals
from dynacor_ray.workflows.compare import compare
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.results import load
from dynacor_ray.workflows.review import review
from dynacor_ray.workflows.sweep import sweep
from tests.engine.conftest import FAST, Finished
from tests.plans import machine

MEASURED = ("seconds", "config", "versions", "training_waited_for_rows", "cluster")
"""What differs between two runs of the same work."""


DETECTORS = ("dynacor", "aum", "simifeat_v", "fm_srm")
"""One for each kind of evidence: dynamics, a training of its own, neighbors, prototypes."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 60 images in three classes that differ in brightness, a sixth of them in the wrong one."""
    random = np.random.default_rng(0)
    for number in range(60):
        pixels = random.integers(0, 80, (10, 10, 3)) + 60 * (number % 3)
        wrong = number % 6 == 0
        folder = tmp_path / "pictures" / "abc"[(number + wrong) % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return tmp_path / "pictures"


def assert_same(first: Path, second: Path) -> None:
    for name in ("issues", "dynamics"):
        assert pq.read_table(first / f"{name}.parquet").equals(pq.read_table(second / f"{name}.parquet")), name
    mine, theirs = (json.loads((run / "summary.json").read_text()) for run in (first, second))
    for said in (mine, theirs):
        for name in MEASURED:
            said.pop(name, None)
    assert mine == theirs


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("features", {}, id="features"),
        pytest.param("features", {"worker_cache_gb": 0.0}, id="streamed features", marks=pytest.mark.slow),
        pytest.param("pictures", {"encoder": "pixels:10"}, id="encoder", marks=pytest.mark.slow),
        pytest.param("pictures", {"network": "cifar_resnet8", "image_size": 8}, id="network", marks=pytest.mark.slow),
    ],
)
def test_outputs_are_those_of_one_worker_on_ray(
    kind: str,
    options: dict[str, Any],
    feature_set: Callable[..., Path],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dynacor_ray.engine.data.embed.MAX_UNIT_ROWS", 25)
    monkeypatch.setattr("dynacor_ray.engine.dynamics.assemble.BLOCK_BYTES", 20_000)
    # As many threads train a network as there are CPUs, of which the cluster is said to have four.
    monkeypatch.setattr("dynacor_ray.engine.runtime.session.this_machine", lambda: machine(cpus=4.0))
    data = str(feature_set(1001) if kind == "features" else pictures)
    cache = str(tmp_path / "cache")  # packed once: how it is named is a matter of chance
    if "worker_cache_gb" in options:  # which --cluster none refuses; here it is what both do that counts
        monkeypatch.setattr("dynacor_ray.workflows.cluster_session._too_much", lambda *_: None)
    for name, cluster in (("ray", "auto"), ("here", "none")):
        detect(data, out=str(tmp_path / name), cache=cache, **FAST | options | {"cluster": cluster})
    assert_same(tmp_path / "ray", tmp_path / "here")


def test_a_large_run_is_folders_that_all_commands_read(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows as in one file each, in the report, exported, reviewed and cleaned."""
    monkeypatch.setattr(table_files, "MOST_BYTES", 5_000)
    monkeypatch.setattr(table_files, "_ROWS", 200)
    detect(str(finished.data), out=str(tmp_path / "large"), cache=str(finished.cache), **FAST)
    runs = {"small": finished.run, "large": tmp_path / "large"}
    for name in ("issues", "dynamics"):
        assert not (tmp_path / "large" / f"{name}.parquet").exists()
        assert len(list((tmp_path / "large" / name).glob("*.parquet"))) > 2
        assert pq.read_table(tmp_path / "large" / name).equals(pq.read_table(finished.run / f"{name}.parquet"))
    for name, run in runs.items():
        review(str(run), sample=20)
        answers = tmp_path / f"{name}-answers.csv"
        pd.read_csv(run / "audit.csv").assign(mark="wrong").to_csv(answers, index=False)
        review(str(run), str(answers))
        export_run(locate(str(run)), locate(str(tmp_path / f"{name}.csv")))
        clean_run(locate(str(run)), locate(str(tmp_path / f"{name}.parquet")), "drop")
    assert (tmp_path / "large" / "reviewed_issues").is_dir()
    for end in ("csv", "parquet"):
        assert (tmp_path / f"large.{end}").read_bytes() == (tmp_path / f"small.{end}").read_bytes()
    small, large = (load(str(run)) for run in runs.values())
    assert small.worst() == large.worst()
    assert small.to_pandas().equals(large.to_pandas())


VERBS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "sweep": lambda **how: sweep(gammas=(0.1, 0.2), alphas=(0.0, 0.5), **how).trials().to_pylist(),
    "compare": lambda **how: compare(detectors=DETECTORS, **how).judgments().to_pylist(),
    "analyze_signals": lambda **how: analyze_signals(signals=("margin_sign",), **how).findings().to_pylist(),
}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("verb", VERBS)
def test_the_other_verbs_say_the_same(verb: str, feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, found = str(feature_set(601)), []
    for cluster in ("auto", "none"):
        rows = VERBS[verb](data=data, out=str(tmp_path / cluster), **FAST | {"cluster": cluster})
        found.append([{name: value for name, value in row.items() if name != "seconds"} for row in rows])
    assert found[0] == found[1]


ALONE = """
import sys
from dynacor_ray.workflows.detect import detect
detect(sys.argv[1], out=sys.argv[2], epochs=3, clustering_epochs=1)
loaded = {name.split(".")[0] for name in sys.modules} & {"ray", "matplotlib", "timm", "open_clip", "torchvision"}
assert not loaded, loaded
"""


def test_nothing_of_ray_is_loaded(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", ALONE, str(feature_set(300)), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "One process: 300 rows fit into memory; --cluster local starts Ray." in done.stderr
