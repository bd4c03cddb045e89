"""How a training is spread over a cluster: workers, threads, memory; and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import ClusterError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.job import Job, TrainConfig, TrainPlan, plan_training, trainings_at_once
from dynacor_ray.models.image_classifiers import NetworkSpec
from tests.plans import machine


def plan(
    workers: int = 1,
    gpu: str = "auto",
    cache: float | None = None,
    at_once: int = 1,
    least: int | None = None,
    **have: Any,
) -> TrainPlan:
    options: dict[str, Any] = {"workers": workers, "min_workers": least, "gpu": gpu, "worker_cache_gb": cache}
    return plan_training(DetectConfig(data="demo", **options), machine(**have), at_once)


def test_one_machine() -> None:
    assert plan() == TrainPlan(
        workers=1,
        min_workers=1,
        use_gpu=False,
        cpus_per_worker=1.0,
        threads=8,
        cache_bytes=16_000_000_000,
        checkpoint_seconds=15,
        max_failures=3,
    )


def test_trainings_of_a_sweep_run_side_by_side_where_there_is_room() -> None:
    assert trainings_at_once(1, "auto", machine(cpus=2)) == 1
    assert trainings_at_once(1, "auto", machine(cpus=16)) == 12, "a quarter is left for reading"
    assert trainings_at_once(4, "auto", machine(cpus=16)) == 3
    assert trainings_at_once(50, "auto", machine(cpus=16)) == 1, "too many workers are refused elsewhere"
    assert trainings_at_once(2, "auto", machine(cpus=64, gpus=8)) == 4
    assert trainings_at_once(2, "no", machine(cpus=64, gpus=8)) == 24
    shared = plan(1, at_once=4)
    assert (shared.threads, shared.cache_bytes) == (2, 4_000_000_000)


def test_workers_share_a_node() -> None:
    four = plan(4)
    assert (four.threads, four.cache_bytes) == (2, 4_000_000_000)
    three = plan(3, nodes=2, cpus=16)  # two on one of the nodes
    assert (three.threads, three.cache_bytes) == (4, 8_000_000_000)


def test_a_step_has_no_more_threads_than_it_keeps_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU is left to others; a network's steps are large enough for all, and those of large data in one process."""

    def threads(dim: int, workers: int = 1, cpus: float = 16, **config: Any) -> int:
        facts = RowFacts(1, 0, 2, dim, np.zeros(dim, np.float32), 1.0, np.ones(2, np.int64))
        return Job(TrainConfig(**config), plan(workers, cpus=cpus), locate("anywhere"), facts).threads

    assert (threads(1280, cpus=2, batch_size=512), threads(1280, cpus=2, batch_size=1024)) == (1, 2)
    monkeypatch.setattr("dynacor_ray.engine.training.job.on_cluster", lambda: True)
    assert [threads(dim) for dim in (64, 512, 1280, 4096)] == [1, 2, 5, 15]
    assert threads(1280, cpus=2, batch_size=1024) == threads(1280, cpus=2) == threads(1280, cpus=1) == 1
    assert (threads(1280, workers=2), threads(512, batch_size=512)) == (2, 8)
    assert threads(3072, network=NetworkSpec("cifar_resnet8", 32)) == 16


def test_workers_may_come_and_go() -> None:
    """What must be there are the fewest; a node that is left has no room for the workers of a lost one."""
    spread = plan(3, least=1, nodes=3, cpus=6, memory_bytes=3e9)
    assert (spread.workers, spread.min_workers, spread.cpus_per_worker) == (3, 1, 1.0)
    assert spread.memory_per_worker <= 3e9 < 2 * spread.memory_per_worker
    assert plan(8, least=2, cpus=4).workers == 8
    with pytest.raises(ClusterError, match="a CPU for each of 5 workers, but got 4 CPUs"):
        plan(8, least=5, cpus=4)
    on_gpus = plan(8, least=2, cpus=64, gpus=4)
    assert (on_gpus.use_gpu, on_gpus.memory_per_worker) == (True, 0)
    with pytest.raises(ClusterError, match="a GPU for each of 6 workers, but got 4 GPUs"):
        plan(8, "yes", least=6, cpus=64, gpus=4)


@given(workers=st.integers(1, 64), spare=st.floats(0, 64), nodes=st.integers(1, 70))
def test_some_cpu_is_always_left_for_data(workers: int, spare: float, nodes: int) -> None:
    """Also beside as many trainings as a sweep runs side by side."""
    cpus = workers + spare
    at_once = trainings_at_once(workers, "no", machine(cpus=cpus, nodes=nodes))
    assert at_once >= 1
    spread = plan(workers, at_once=at_once, cpus=cpus, nodes=nodes)
    assert 0 <= spread.cpus_per_worker <= 1
    on_a_node = -(-workers * at_once // nodes) * spread.cpus_per_worker
    assert spread.cpus_per_worker == 0 or cpus / nodes - on_a_node >= 1 - 1e-9, "a whole CPU on every node"
    assert spread.threads >= 1
    assert spread.cache_bytes > 0


@pytest.mark.parametrize(
    ("gpu", "gpus", "used"), [("auto", 2, True), ("auto", 1, False), ("no", 2, False), ("yes", 2, True)]
)
def test_gpus_are_used_when_there_is_one_for_each(gpu: str, gpus: int, used: bool) -> None:
    assert plan(2, gpu, gpus=gpus).use_gpu is used


def test_too_small_a_cluster() -> None:
    assert plan(8).workers == 8
    with pytest.raises(
        ClusterError, match=r"a CPU for each of 9 workers, but got 8 CPUs on 1 node\(s\); lower --workers"
    ):
        plan(9)
    with pytest.raises(ClusterError, match=r"a GPU for each of 2 workers, but got 1 GPUs; .* use --gpu auto"):
        plan(2, "yes", gpus=1)


FACTS = RowFacts(10, 1, 3, 4, np.zeros(4), 1.0, np.array([4, 3, 3]))


@pytest.mark.parametrize(("cache", "streamed"), [(None, False), (0.0, True), (1.0, False)])
def test_rows_that_do_not_fit_are_streamed(cache: float | None, streamed: bool) -> None:
    job = Job(TrainConfig(), plan(2, cache=cache), locate("/r"), FACTS)
    assert (job.rows.total, job.rows_per_rank) == (11, 6)
    assert job.streamed is streamed
    assert plan(cache=1.0).cache_bytes == 2**30


def test_the_cache_just_fits() -> None:
    bytes_needed = 6 * 4 * 4
    for spare, streamed in ((0, False), (-1, True)):
        spread = plan(2, cache=(bytes_needed + spare) / 2**30)
        assert Job(TrainConfig(), spread, locate("/r"), FACTS).streamed is streamed
