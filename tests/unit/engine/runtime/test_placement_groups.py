"""What a training reserves is found again, also by another process."""

from __future__ import annotations

import pytest
import ray

from dynacor_ray.engine.runtime import placement_groups
from dynacor_ray.engine.runtime.placement_groups import release_reservation, reservation_tag


def test_the_tag_is_that_of_the_training() -> None:
    """As of a trial that Tune starts again elsewhere; worked out by hand, so that no process has its own."""
    tags = {reservation_tag(f"s3://bucket/run/trainings/{number}") for number in range(1000)}
    assert len(tags) > 995
    assert min(tags) > 0
    assert reservation_tag("/run") == TAG


TAG = 516225
"""1 + BLAKE2b of the text as JSON, in 8 bytes, modulo 2^20."""


def test_what_a_training_reserved_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of another one, nor what was given back already."""
    names = [ray.PlacementGroupID.from_random().hex() for _ in range(4)]
    bundles = [{0: {"CPU": 1.0}, 1: {"memory": 7.0}}, {0: {"memory": 8.0}}, {0: {"CPU": 2.0}}, {0: {"memory": 7.0}}]
    states = ["CREATED", "CREATED", "PENDING", "REMOVED"]
    table = {
        name: {"bundles": bundle, "state": state} for name, bundle, state in zip(names, bundles, states, strict=True)
    }
    removed: list[str] = []
    monkeypatch.setattr(placement_groups, "placement_group_table", lambda: table)
    monkeypatch.setattr(placement_groups, "remove_placement_group", lambda group: removed.append(group.id.hex()))
    release_reservation(7)
    assert removed == names[:1]
