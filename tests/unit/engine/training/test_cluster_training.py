"""When a training on Ray is tried again."""

from __future__ import annotations

from typing import Any

import pytest
import ray.train
from ray.exceptions import RayActorError

from dynacor_ray.engine.training import cluster_training


class Trainer:
    """A training that fails as told, attempt by attempt."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures

    def fit(self) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        return "result"


def test_a_training_whose_leader_died_is_tried_again_so_often() -> None:
    ready = list[int]()
    failures: list[Exception] = [RayActorError(), RayActorError()]
    assert cluster_training._fit(lambda: Trainer(failures), 2, lambda: ready.append(1)) == "result"  # type: ignore[arg-type, return-value]
    assert len(ready) == 3
    failures = [RayActorError(), RayActorError()]
    with pytest.raises(RayActorError):
        cluster_training._fit(lambda: Trainer(failures), 1, lambda: None)  # type: ignore[arg-type, return-value]


def test_a_defect_is_not_tried_again() -> None:
    failures: list[Exception] = [ray.train.ControllerError(ValueError("a defect"))]
    with pytest.raises(ray.train.ControllerError):
        cluster_training._fit(lambda: Trainer(failures), 5, lambda: None)  # type: ignore[arg-type, return-value]
    assert not failures
