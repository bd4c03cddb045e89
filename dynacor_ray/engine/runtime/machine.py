"""What this machine has for one process. No Ray here."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Resources:
    """What the cluster has, and what the largest single node of it has."""

    cpus: float
    gpus: float
    memory_bytes: float
    nodes: int
    object_store_bytes: float


def this_machine() -> Resources:
    """What one process may use here: no more than its container gives, and of the memory what is free."""
    import torch

    return Resources(
        cpus=usable_cpus(), gpus=torch.cuda.device_count(), memory_bytes=free_memory(), nodes=1, object_store_bytes=0.0
    )


def usable_cpus() -> int:
    """CPUs that this process may run on, no more than its container is given."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000" without a limit
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed


def free_memory() -> int:
    """Bytes that can be had without swapping: of the machine, or of its container if that has less."""
    free = _machine_memory()
    with suppress(OSError, ValueError):
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        free = min(free, int(limit) - int(used) + _file_cache())
    return max(free, 0)


def _machine_memory() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError, AttributeError):  # no such file: half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 4 << 30


def _file_cache() -> int:
    """Of the container's memory what only holds files and is given up at once."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
