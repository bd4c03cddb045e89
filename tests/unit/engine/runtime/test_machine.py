"""What one process may use: no more than its container gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynacor_ray.engine.runtime import machine


@pytest.mark.parametrize(
    ("quota", "cpus"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)]
)
def test_cpus_are_those_of_the_container(
    quota: str, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert machine.usable_cpus() == cpus


@pytest.mark.parametrize(("limit", "free"), [("max", 900), ("500", 500 - 300 + 100), ("5000", 900), ("100", 0)])
def test_memory_is_what_is_free_in_the_container(
    limit: str, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that the system keeps in memory are given up at once."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_machine_memory", lambda: 900)
    for name, content in (("max", limit), ("current", "300"), ("stat", "anon 5\ninactive_file 100\n")):
        (tmp_path / f"memory.{name}").write_text(f"{content}\n")
    assert machine.free_memory() == free
