"""One driver per run directory: a lock file there names the driver, and changes every few seconds while it is alive.

Every driver writes a file of its own and looks for others only then, so of two that start together at least one sees
the other. A driver on this machine is checked by its process, one elsewhere by changes of its file: no two clocks are
ever compared. The file of a dead driver is removed by the one that takes over.

A driver that was thought dead, since it was suspended or cut off from the storage, is stopped when it goes on. Until it
is, its changes do no harm: before each of them it makes sure that it still holds the directory, unless its file changed
so short a time ago that nobody can have taken over (a lease; Gray & Cheriton, 1989). Its workers in other processes are
stopped by the loss of that file, which whoever takes over removes first (`core.fences`).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, StorageError, expected_got
from dynacor_ray.core.fences import fenced
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, parse_json

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A driver elsewhere whose file has not changed for so long counts as dead."""
ATTEMPTS = 20
_PREFIX, _SUFFIX = "driver-", ".lock"
_BROKEN = {"host": "?", "pid": "?", "since": "?", "machine": "", "started": "", "holds": True, "beat": -1, "took": []}


def is_lock(name: str) -> bool:
    """Whether a file in a run directory is a driver's lock."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@contextmanager
def run_lock(run: Location, progress: Progress) -> Iterator[Callable[[], None]]:
    """Lock the run directory while the block runs.

    Yields:
        A check that raises RunDirectoryError if another driver has taken over.

    Raises:
        RunDirectoryError: a living driver has the lock, or another one took over in the block; the message names it.
    """
    lock = _Lock(run)
    lock.claim(progress)
    stop = threading.Event()
    stops_main = threading.current_thread() is threading.main_thread()
    heartbeat = threading.Thread(target=lock.keep_alive, args=(stop, stops_main), daemon=True)
    heartbeat.start()
    try:
        try:
            with fenced(run.filesystem, run.path, lock.place.path, lock.check_lease):
                yield lock.check
        finally:
            stop.set()
            heartbeat.join()
            with contextlib.suppress(StorageError):
                lock.place.delete()
    except KeyboardInterrupt:
        lock.raise_if_lost()
        raise


class _Lock:
    """The lock file of this driver."""

    def __init__(self, run: Location) -> None:
        self.run, self.name = run, f"{_PREFIX}{uuid.uuid4().hex[:12]}{_SUFFIX}"
        self.place = run / self.name
        self.new_owner: str | None = None
        """The driver that took over."""
        self.renewed = _now()
        """When the file was last changed."""
        pid = os.getpid()
        self.content: dict[str, Any] = {
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
        """Take the lock, if need be from drivers that are dead."""
        dead: dict[str, int] = {}
        for _ in range(ATTEMPTS):
            self.place.write_json(self.content)
            rivals = {name: other for name, other in self._others().items() if dead.get(name) != other["beat"]}
            if not rivals:
                self.content |= {"holds": True, "took": sorted(dead)}
                self._renew()
                for name in dead:
                    (self.run / name).delete()
                return
            self.place.delete()
            for name, other in rivals.items():
                if not _is_alive(self.run / name, other, progress):
                    dead[name] = other["beat"]
                elif other["holds"]:
                    raise RunDirectoryError(_message(self.run, other))
            time.sleep(random.uniform(0.05, 0.5))  # both began at the same moment: not at the same moment again
        raise RunDirectoryError(_message(self.run, other))

    def keep_alive(self, stop: threading.Event, stops_main: bool) -> None:
        """Renew the file until told to stop, or until another driver takes over, which ends the work.

        stops_main: whether the work is done in the main thread, which can be interrupted; else it ends at its next
        change of a file.
        """
        while not stop.wait(BEAT_SECONDS) and self.new_owner is None:
            # Storage that fails now may work at the next beat; whether another took over is seen then.
            with contextlib.suppress(StorageError):
                self._detect_takeover()
                if self.new_owner is None:
                    self.content["beat"] += 1
                    self._renew()
        if self.new_owner is not None and stops_main and not stop.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # wakes it from a wait, too

    def _renew(self) -> None:
        began = _now()
        self.place.write_json(self.content)
        self.renewed = began

    def check(self) -> None:
        """Raise RunDirectoryError if another driver took over, believing that this one was dead."""
        self._detect_takeover()
        self.raise_if_lost()

    def check_lease(self) -> None:
        """`check`, which reads the storage only where so much time went by that another driver may have taken over."""
        if _now() - self.renewed > STALE_SECONDS / 2:
            self._detect_takeover()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raise RunDirectoryError if it is known that another driver took over."""
        if self.new_owner is not None:
            got = f"{self.new_owner} took over, since this driver gave no sign of life for {STALE_SECONDS:.0f} s"
            remedy = "let that one finish, or run the same command again after it"
            raise RunDirectoryError(expected_got(f"to hold {self.run} to the end", got, remedy))

    def _detect_takeover(self) -> None:
        others = self._others().values()
        takers = [_describe(other) for other in others if self.name in other["took"]]
        if takers or not self.place.exists():
            self.new_owner = takers[0] if takers else "another driver"

    def _others(self) -> dict[str, dict[str, Any]]:
        """Locks of other drivers. A file that vanishes is none."""
        names = [name for name in self.run.names() if is_lock(name) and name != self.name]
        locks = {name: _read(self.run / name) for name in names}
        return {name: lock for name, lock in locks.items() if lock is not None}


def _read(place: Location) -> dict[str, Any] | None:
    try:
        content = parse_json(place.read_bytes())
    except StorageError:
        if place.exists():
            raise
        return None
    except ValueError:  # a machine went down while writing it: it will not change
        return _BROKEN
    return content if isinstance(content, dict) and content.keys() >= _BROKEN.keys() else _BROKEN


def _is_alive(place: Location, other: dict[str, Any], progress: Progress) -> bool:
    """Whether the driver behind a lock is alive; one that ended itself is not."""
    if other["machine"] and other["machine"] == _machine():
        return bool(_started(other["pid"]) == other["started"])
    deadline, announced = time.monotonic() + STALE_SECONDS, False
    while time.monotonic() < deadline:
        now = _read(place)
        if now is None:
            return False
        if now["beat"] != other["beat"]:
            return True
        if not announced and time.monotonic() > deadline - STALE_SECONDS + 2 * BEAT_SECONDS:
            wait = f"waiting for {STALE_SECONDS:.0f} s to see if it is alive"
            progress.say(f"{_describe(other)} holds the run directory; {wait} ...")
            announced = True
        time.sleep(BEAT_SECONDS / 5)
    return False


def _message(run: Location, other: dict[str, Any]) -> str:
    remedy = "wait for it, end it, or choose another --out"
    return expected_got(f"{run} to be free", f"{_describe(other)} working in it", remedy)


def _describe(other: dict[str, Any]) -> str:
    return f"process {other['pid']} on {other['host']} (since {other['since']})"


def _now() -> float:
    """Seconds of a clock that nobody sets, those of a suspended machine included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))  # on macOS the latter counts them


def _machine() -> str:
    """Identifies this boot of this machine and this container's view of its processes; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty when it is gone. A process id may be used again."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else rest[18]
