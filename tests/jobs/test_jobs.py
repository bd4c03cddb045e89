"""`ray job submit` of the scripts in jobs/: exit status, last lines, results."""

from __future__ import annotations

import io
import json
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dynacor_ray.sources.clothing1m import CLASS_NAMES
from tests.engine.faults import assert_nothing_half, assert_whole

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)  # starting processes is slow on a busy machine


def submit(head: dict[str, str], *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = ["ray", "job", "submit", *options, "--", *arguments]
    return subprocess.run(command, env=head, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def clothing1m(tmp_path: Path) -> Path:
    """A miniature of Clothing1M's tree: 14 classes of 24 plain colored JPEGs, every eighth label wrong."""
    root, random = tmp_path / "clothing1m", np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    keys, labels = [], []
    for number in range(14 * 24):
        true = number % 14
        color = np.array([true * 18, 255 - true * 18, (true * 97) % 256])
        pixels = np.clip(color + random.normal(scale=12, size=(40, 32, 3)), 0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG")
        key = f"images/{number % 10}/{number % 7}/{1000 + number},{number}.jpg"
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data.getvalue())
        keys.append(key)
        labels.append((true + 1) % 14 if number % 8 == 0 else true)
    lists = root / "annotations"
    (lists / "category_names_eng.txt").write_text("\n".join(CLASS_NAMES) + "\n")
    (lists / "noisy_train_key_list.txt").write_text("\n".join(keys) + "\n")
    (lists / "noisy_label_kv.txt").write_text("".join(f"{k} {v}\n" for k, v in zip(keys, labels, strict=True)))
    return root


def kill_driver(out: Path, job: Future[subprocess.CompletedProcess[str]]) -> None:
    """Kill the job's driver, which names `out` in its command, once the training has begun to record."""
    deadline = time.monotonic() + 200
    while not (out / "signals" / "progress.json").exists():
        assert not job.done(), job.result().stdout[-3000:] + job.result().stderr[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    here = psutil.Process().children(recursive=True)
    (driver,) = [p for p in here if p.cmdline()[1:2] == ["jobs/clothing1m.py"] and str(out) in p.cmdline()]
    driver.kill()


def test_clothing1m_as_a_job(head: dict[str, str], clothing1m: Path, tmp_path: Path) -> None:
    """The card's command on the data set's own layout ends with status 0, the table and the files.

    The first time its driver is killed, and the same job is submitted again.
    """
    out = tmp_path / "run"
    options = ["--out", str(out), "--encoder", "pixels:8", "--epochs", "6", "--batch-size", "2", "--gamma", "0.2"]
    job = ("python", "jobs/clothing1m.py", "--data", str(clothing1m), *options, "--checkpoint-seconds", "0")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(submit, head, *job)
        kill_driver(out, first)
        assert first.result().returncode != 0
    assert not (out / "summary.json").exists()
    assert_nothing_half(out)
    done = submit(head, *job)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert_whole(out, 14 * 24, 6, gamma=0.2)
    assert "labels that look wrong" in done.stdout
    assert f"Results: {out}" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["num_rows"] == 14 * 24
    assert [row["class"] for row in summary["classes"]] == list(CLASS_NAMES)
    assert summary["data"]["allows_thumbnails"] is False
    page = (out / "report.html").read_text()
    assert "the terms of this data forbid" in page
    assert "data:image/jpeg" not in page
    issues = pq.read_table(out / "issues.parquet").to_pandas()
    wrong = issues["instance_id"] % 8 == 0
    assert issues.loc[wrong, "label_quality"].mean() < issues.loc[~wrong, "label_quality"].mean()


@pytest.mark.slow
def test_a_benchmark_of_whole_runs(head: dict[str, str], tmp_path: Path) -> None:
    """It prints one JSON object with its ratio, and where memory can be read, the peaks of every stage."""
    sizes = ["--rows", "400", "--dim", "8", "--classes", "3", "--epochs", "2", "--folder", str(tmp_path)]
    command = ["python", "jobs/bench_pipeline.py", *sizes]
    done = subprocess.run(command, env=head, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["sizes"]["rows"] == [400]
    assert {"seconds of the largest run / 5 min per 1M rows"} <= set(report["ratios"])
    (one,) = report["runs"]
    assert {"imports", "start", "ingest", "train", "cluster", "output", "exit"} <= set(one["seconds_by_stage"])
    assert sum(one["seconds_by_stage"].values()) == pytest.approx(one["seconds"], abs=1.5)
    if one["memory_mb"] is not None:
        assert one["memory_mb"]["all_processes"] == max(one["memory_mb"]["by_stage"].values()) > 100


def test_a_failing_job_says_why(head: dict[str, str], tmp_path: Path) -> None:
    """Its status is not 0, and the last lines of the driver name what was expected and what to do."""
    missing = tmp_path / "nowhere"
    done = submit(head, "python", "jobs/clothing1m.py", "--data", str(missing), options=("--working-dir", str(ROOT)))
    assert done.returncode != 0
    said = (done.stdout + done.stderr).strip().splitlines()
    assert any("dynacor: Expected" in line and str(missing) in line for line in said[-25:]), "\n".join(said[-40:])
    assert not any("Traceback" in line for line in said[-25:])
