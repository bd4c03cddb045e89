"""The setting comes in time, too late, or from the user."""

from __future__ import annotations

import os
import sys

import pytest

from dynacor_ray.core import openmp


@pytest.mark.parametrize(
    ("loaded", "chosen", "spin"), [(False, None, False), (True, None, True), (True, "ACTIVE", False)]
)
def test_threads_spin_where_torch_came_first(
    loaded: bool, chosen: str | None, spin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openmp, "_too_late", False)
    monkeypatch.setattr(sys, "modules", {"torch": None} if loaded else {})
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    openmp.let_threads_sleep()
    openmp.let_threads_sleep()
    assert openmp.threads_spin() == spin
    assert os.environ["OMP_WAIT_POLICY"] == (chosen or "PASSIVE")
