"""One driver per run directory: a file there says who holds it, and changes every few seconds while the holder lives.

Every driver writes a file of its own and looks for others only then, so of two that start together at least one sees
the other. A driver on this machine is known to live by its process; one elsewhere by its file, which is watched, so no
two clocks are ever compared. The file of a dead driver is removed by whoever takes over.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, StorageError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A driver elsewhere whose file does not change for so long is taken to be dead."""
ATTEMPTS = 20
_PREFIX, _SUFFIX = "driver-", ".lock"
_NOBODY = {"host": "?", "pid": "?", "since": "?", "machine": "", "started": "", "holds": True, "beat": -1, "took": []}


def is_lock(name: str) -> bool:
    """Whether a file in a run directory is a driver's sign of life."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@contextmanager
def run_lock(run: Location, progress: Progress) -> Iterator[Callable[[], None]]:
    """Hold the run directory while the block runs; yields a check that raises if another driver took over meanwhile.

    Raises RunDirectoryError when a living driver holds it, naming that one.
    """
    mine = _Lease(run)
    mine.claim(progress)
    stop = threading.Event()
    heart = threading.Thread(target=mine.beat_until, args=(stop,), daemon=True)
    heart.start()
    try:
        yield mine.check
    finally:
        stop.set()
        heart.join()
        with contextlib.suppress(StorageError):
            mine.place.delete()


class _Lease:
    """What this driver says of itself in the directory."""

    def __init__(self, run: Location) -> None:
        self.run, self.name = run, f"{_PREFIX}{uuid.uuid4().hex[:12]}{_SUFFIX}"
        self.place = run / self.name
        self.took_over: str | None = None
        """Who took the directory from this driver."""
        pid = os.getpid()
        self.says: dict[str, Any] = {
            "host": platform.node(),
            "pid": pid,
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": _machine(),
            "started": _started(pid),
            "holds": False,
            "beat": 0,
            "took": [],
        }

    def claim(self, progress: Progress) -> None:
        dead: dict[str, int] = {}
        for _ in range(ATTEMPTS):
            self.place.write_json(self.says)
            rivals = {name: other for name, other in self._others().items() if dead.get(name) != other["beat"]}
            if not rivals:
                self.says |= {"holds": True, "took": sorted(dead)}
                self.place.write_json(self.says)
                for name in dead:
                    (self.run / name).delete()
                return
            self.place.delete()
            for name, other in rivals.items():
                if not _lives(self.run / name, other, progress):
                    dead[name] = other["beat"]
                elif other["holds"]:
                    raise RunDirectoryError(_message(self.run, other))
            time.sleep(random.uniform(0.05, 0.5))  # both began at the same moment: not at the same moment again
        raise RunDirectoryError(_message(self.run, other))

    def beat_until(self, stop: threading.Event) -> None:
        """Show life until told to stop, or until another driver took over."""
        while not stop.wait(BEAT_SECONDS) and self.took_over is None:
            # Storage that fails now may work at the next beat; whether another took over is seen then.
            with contextlib.suppress(StorageError):
                self._look()
                if self.took_over is None:
                    self.says["beat"] += 1
                    self.place.write_json(self.says)

    def check(self) -> None:
        """Raise RunDirectoryError if another driver took the directory, thinking that this one was dead."""
        self._look()
        if self.took_over is not None:
            got = f"{self.took_over} took over, since this driver gave no sign of life for {STALE_SECONDS:.0f} s"
            remedy = "let that one finish, or run the same command again after it"
            raise RunDirectoryError(expected_got(f"to hold {self.run} to the end", got, remedy))

    def _look(self) -> None:
        others = self._others().values()
        takers = [_who(other) for other in others if self.name in other["took"]]
        if takers or not self.place.exists():
            self.took_over = takers[0] if takers else "another driver"

    def _others(self) -> dict[str, dict[str, Any]]:
        """What the other drivers say. A file that vanishes or is no lock is none."""
        found = {}
        for name in self.run.names():
            if is_lock(name) and name != self.name:
                other = _read(self.run / name)
                if other is not None:
                    found[name] = other
        return found


def _read(place: Location) -> dict[str, Any] | None:
    try:
        said = json.loads(place.read_bytes())
    except StorageError:
        if place.exists():
            raise
        return None
    except ValueError:  # a machine went down while it was written: nobody will change it
        return _NOBODY
    return said if isinstance(said, dict) and said.keys() >= _NOBODY.keys() else _NOBODY


def _lives(place: Location, other: dict[str, Any], progress: Progress) -> bool:
    """Whether the driver behind a lock is alive; one that ended itself is not."""
    if other["machine"] and other["machine"] == _machine():
        return bool(_started(other["pid"]) == other["started"])
    deadline, told = time.monotonic() + STALE_SECONDS, False
    while time.monotonic() < deadline:
        now = _read(place)
        if now is None:
            return False
        if now["beat"] != other["beat"]:
            return True
        if not told and time.monotonic() > deadline - STALE_SECONDS + 2 * BEAT_SECONDS:
            progress.say(
                f"{_who(other)} holds the run directory; waiting for {STALE_SECONDS:.0f} s to see if it lives ..."
            )
            told = True
        time.sleep(BEAT_SECONDS / 5)
    return False


def _message(run: Location, other: dict[str, Any]) -> str:
    remedy = "wait for it, end it, or choose another --out"
    return expected_got(f"{run} to be free", f"{_who(other)} working in it", remedy)


def _who(other: dict[str, Any]) -> str:
    return f"process {other['pid']} on {other['host']} (since {other['since']})"


def _machine() -> str:
    """Names this boot of this machine and this container's view of its processes; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty when it is gone. A number may be used again."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]
