"""What a run will take: sums by hand, and measurements that follow what is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training import job as engine_job
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.workflows import cost_estimate as module
from dynacor_ray.workflows.cost_estimate import Speeds, estimate, seconds_of, step_seconds
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
