"""How a test's training is spread over a cluster that there is not."""

from __future__ import annotations

from typing import Any

from dynacor_ray.engine.training.job import TrainPlan


def plan_of(workers: int = 1, **options: Any) -> TrainPlan:
    """One thread and all rows in memory, unless told otherwise."""
    plain: dict[str, Any] = {
        "min_workers": workers,
        "use_gpu": False,
        "cpus_per_worker": 1.0,
        "threads": 1,
        "cache_bytes": 1 << 40,
        "checkpoint_seconds": 1.0,
        "max_failures": 0,
    }
    return TrainPlan(workers=workers, **plain | options)
