"""What a run will take: sums by hand, measurements that follow what is measured, and doctor's words for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.runtime.session import Resources
from dynacor_ray.engine.training import job as engine_job
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.workflows import cost_estimate as module
from dynacor_ray.workflows import doctor as checks
from dynacor_ray.workflows.cost_estimate import Speeds, estimate, seconds_of, step_seconds
from dynacor_ray.workflows.doctor import DoctorReport, run_doctor
from tests.plans import plan_of

PLAN = plan_of(workers=2)


def job_of(originals: int = 1000, copies: int = 100, dim: int = 8, epochs: int = 3, **plan: Any) -> Job:
    facts = RowFacts(originals, copies, 4, dim, np.zeros(dim, np.float32), 1.0, np.zeros(4, np.int64))
    return Job(TrainConfig(epochs=epochs, batch_size=64), replace(PLAN, **plan), locate("/nowhere"), facts)


def taken(job: Job, speeds: Speeds, gpus: float = 0.0) -> Any:
    return estimate(job, speeds, packed_bytes=50.0, cpus=4.0, gpus=gpus, base_bytes=1e9)


def test_by_hand() -> None:
    """1,000 rows and 100 copies on 4 CPUs; 2 workers make 18 steps of 32 of their 550 rows in each of 3 epochs."""
    found = taken(job_of(), Speeds(read=0.008, decode=0.003, encode=0.037, step=0.5))
    assert found.read_seconds == pytest.approx(1000 * 0.008 / 4)
    assert found.embed_seconds == pytest.approx(1100 * 0.040 / 4)
    assert found.train_seconds == pytest.approx(3 * 18 * 0.5)
    assert found.seconds == pytest.approx(2 + 11 + 27)
    assert found.rows_per_second == pytest.approx(64)
    assert found.memory_bytes == 1e9 + 550 * 8 * 4
    assert found.disk_bytes == 1000 * 50 + 1100 * 8 * 4 + 1100 * 3 * 12
    assert found.cost(90.0) == pytest.approx(1.0)


def test_given_features_need_no_embedding() -> None:
    found = taken(job_of(), Speeds(read=0.0, decode=None, encode=None, step=0.0625))
    assert found.embed_seconds == 0
    assert found.disk_bytes == 1000 * 50 + 1100 * 3 * 12


def test_a_gpu_waits_for_the_slower_of_itself_and_the_cpus() -> None:
    decoding = taken(job_of(use_gpu=True), Speeds(0.0, decode=0.04, encode=0.001, step=0.1), gpus=2.0)
    encoding = taken(job_of(use_gpu=True), Speeds(0.0, decode=0.001, encode=0.04, step=0.1), gpus=2.0)
    assert decoding.embed_seconds == pytest.approx(1100 * 0.04 / 4)
    assert encoding.embed_seconds == pytest.approx(1100 * 0.04 / 2)


def test_streamed_rows_need_no_more_than_their_share() -> None:
    job = job_of(cache_bytes=1000)
    assert job.streamed
    assert taken(job, Speeds(0.0, None, None, 0.1)).memory_bytes == 1e9 + 500


def test_an_action_is_timed_after_it_was_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then until the time is over; one time in which the machine did something else as well does not count."""
    now, durations = [0.0], iter([10.0, 0.25, 4.0, 0.25, 0.25, 0.25])
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def action() -> None:
        now[0] += next(durations)

    assert seconds_of(action, 4.9) == 0.25
    assert now[0] == 15.0


@pytest.mark.parametrize("workers", [1, 2, 100])
def test_a_step_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """As many rows and threads as a worker of the run has, and the threads of this process come back."""
    seen: list[tuple[int, ...]] = []
    before = torch.get_num_threads()

    class Watched(DynamicsModule):
        def step(self, model: Any, batch: Any, epoch: int) -> Any:
            seen.append((torch.get_num_threads(), *batch.feature.shape))
            return super().step(model, batch, epoch)

    monkeypatch.setattr(module, "make_module", Watched)
    monkeypatch.setattr(engine_job, "NUMBERS_PER_THREAD", 1)
    assert step_seconds(job_of(workers=workers, threads=before + 2), "cpu") > 0
    threads = before + 1 if workers < 64 else 1
    assert set(seen) == {(threads, max(1, 64 // workers), 8)}
    assert torch.get_num_threads() == before


def doctored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, price: float | None, data: str = "demo", **options: Any
) -> DoctorReport:
    plain = {"cpus": 4.0, "gpus": 0.0, "memory_bytes": 8e9, "nodes": 1, "object_store_bytes": 1e9}
    there = Resources(**{name: options.pop(name, value) for name, value in plain.items()})
    monkeypatch.setattr(checks, "connect", lambda _: None)
    monkeypatch.setattr(checks, "resources", lambda: there)
    monkeypatch.setattr("dynacor_ray.workflows.prepare.resources", lambda: there)
    monkeypatch.setattr("dynacor_ray.engine.runtime.session.resources", lambda: there)
    return run_doctor(DetectConfig(data=data, out=str(tmp_path / "run"), epochs=10, **options), price)


def test_doctor_tells_time_memory_disk_and_cost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = doctored(monkeypatch, tmp_path, 7.2)
    found, told = report.plan["estimate"], report.plan["run"]
    assert found.read_seconds > 0
    assert found.embed_seconds > 0
    assert found.train_seconds == pytest.approx(10 * -(-1977 // 128) * 128 / found.rows_per_second)
    assert found.disk_bytes > 1977 * (192 * 4 + 10 * 12), "features and signals"
    assert found.memory_bytes > 1e8, "what Python and torch need is measured"
    assert told["cost"] == f"about {found.seconds * 0.002:,.2f} at 7.20 per hour"
    assert {"time for reading", "time for embedding", "time for training", "memory per worker"} <= told.keys()
    said = capsys.readouterr().out
    assert told["cost"] in said
    assert "not in it" in said


def test_doctor_of_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing to embed: images are decoded while it trains, once where they fit into memory."""
    network = {"network": "cifar_resnet8", "image_size": 8}
    report = doctored(monkeypatch, tmp_path, None, **network)
    assert report.ok, report.checks
    found, speeds = report.plan["estimate"], report.plan
    encoder = next(check.message for check in report.checks if check.name == "encoder")
    assert encoder == "cifar_resnet8 at 8 px, 75,290 parameters; nothing to embed"
    assert found.embed_seconds == 0
    steps = 10 * -(-1977 // 128) * 128 / found.rows_per_second
    assert found.train_seconds == pytest.approx(steps + 1977 * speeds["decode"] / 4)
    streamed = doctored(monkeypatch, tmp_path, None, worker_cache_gb=0.0, **network)
    found, speeds = streamed.plan["estimate"], streamed.plan
    steps = 10 * -(-1977 // 128) * 128 / found.rows_per_second
    assert found.train_seconds == pytest.approx(steps + 10 * 1977 * speeds["decode"] / 4)


def test_a_common_batch_norm_needs_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = doctored(monkeypatch, tmp_path, None, network="cifar_resnet8", sync_batchnorm=True)
    assert [check.message for check in report.checks if not check.ok] == [
        "Expected GPUs for --sync-batchnorm, but got a training on CPUs; leave it out: torch has it on GPUs only."
    ]


def test_doctor_of_given_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing to embed, and nothing but the packed rows and the signals on disk."""
    features = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    columns = {"label": ["a", "b"] * 250, "feature": schema.fixed_size_list(features)}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    report = doctored(monkeypatch, tmp_path, None, str(tmp_path / "f.parquet"))
    assert report.ok, report.checks
    found = report.plan["estimate"]
    assert found.embed_seconds == 0
    assert found.disk_bytes == pytest.approx(500 * 16 * 4 + 550 * 10 * 12, rel=0.5)
    assert {"time for both", "time for reading", "time for training"} <= report.plan["run"].keys()


def test_without_a_price_nothing_is_said_of_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "cost" not in doctored(monkeypatch, tmp_path, None).plan["run"]


def test_gpus_elsewhere_are_not_guessed_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    report = doctored(monkeypatch, tmp_path, 1.0, gpus=1)
    assert report.ok
    assert "estimate" not in report.plan
    assert "run doctor where one is" in report.plan["run"]["time"]


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_a_price_is_a_number(price: float) -> None:
    with pytest.raises(ConfigError, match="--price-per-hour of at least 0"):
        run_doctor(DetectConfig(data="demo"), price)
