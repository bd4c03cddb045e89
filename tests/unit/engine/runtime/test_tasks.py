"""Tasks in this process: results in order, one thread each, and an end to them when the caller stops."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info

from dynacor_ray.core.progress import Progress
from dynacor_ray.engine.runtime.parallel_map import parallel_map
from dynacor_ray.engine.runtime.tasks import map_shared, map_threads, run_in_order, run_task, share


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_shared_values_are_handed_over_and_results_are_in_order() -> None:
    known = share([1, 2, 3])
    results = run_in_order(lambda values, at: values[at], [(known, 2), (known, 0)])
    assert [result.get() for result in results] == [3, 1]
    with Progress(quiet=True).stage("folds", 2, "folds") as bar:
        assert dict(map_shared(lambda shared, item: shared + item, 10, [1, 2], bar)) == {1: 11, 2: 12}
        assert bar.done == 2


def test_a_task_has_one_thread_and_leaves_them_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    before = blas_threads()
    try:
        assert run_task(lambda: (torch.get_num_threads(), blas_threads())) == (1, {1})
        assert set(map_threads(lambda _: (torch.get_num_threads(), *blas_threads()), range(8))) == {(1, 1)}
        assert torch.get_num_threads() == 2
        assert blas_threads() == before
    finally:
        torch.set_num_threads(1)


def test_threads_work_side_by_side_and_answer_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynacor_ray.engine.runtime.tasks.usable_cpus", lambda: 3)
    together = threading.Barrier(3, timeout=20)

    def work(item: int) -> int:
        together.wait()
        return -item

    assert list(parallel_map(work, range(6))) == [0, -1, -2, -3, -4, -5]
    assert list(parallel_map(work, [])) == []


def test_what_waits_is_dropped_when_the_caller_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynacor_ray.engine.runtime.tasks.usable_cpus", lambda: 2)
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.05)
        return item

    results = map_threads(work, range(100))
    assert next(results) == 0
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert len(begun) < 8, "what has begun is ended, and no more is begun"
    with pytest.raises(ZeroDivisionError):
        list(map_threads(lambda item: 1 // item, [1, 0]))
