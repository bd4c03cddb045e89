"""One driver per run directory: refused while the holder lives, free as soon as it does not."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow.fs as pafs
import pytest

from dynacor_ray.core import fences
from dynacor_ray.core.errors import RunDirectoryError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.runs import lock
from dynacor_ray.runs.lock import is_lock, run_lock
from tests.listing_cache import listed_store

QUIET = Progress(quiet=True)
HOLDER = """
import sys
from dynacor_ray.runs.lock import run_lock
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import locate
with run_lock(locate(sys.argv[1]), Progress(quiet=True)):
    print("held", flush=True)
    sys.stdin.read()
"""


THERE = {
    **{"host": "far", "pid": 7, "since": "noon", "machine": "m", "started": "1"},
    **{"holds": True, "beat": 3, "took": []},
}
STOPPED = """
    import sys
    from dynacor_ray.runs import lock
    from dynacor_ray.core.progress import Progress
    from dynacor_ray.core.storage import locate

    lock.STALE_SECONDS = 0.3
    lock._machine = lambda: "elsewhere"
    run, number = locate(sys.argv[1]), 0
    with lock.run_lock(run, Progress(quiet=True)):
        (run / "manifest.json").write_json("old")
        print("held", flush=True)
        sys.stdin.readline()  # a change that is under way when the process is stopped would be made
        try:
            while True:
                (run / "manifest.json").write_json(f"old {(number := number + 1)}")
        finally:
            (run / "manifest.json").delete()
"""


@pytest.fixture(params=["local", "memory", "listed"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    fsspec.filesystem("memory").store.clear()
    if request.param == "listed":
        return listed_store(f"{tmp_path.name}/run")
    return locate(f"memory://{tmp_path.name}/run" if request.param == "memory" else str(tmp_path / "run"))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.3)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def nobody_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no driver has to be in time, nobody need wait."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.05)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)


def put(run: Location, **said: object) -> str:
    """The file of a driver on another machine."""
    (run / "driver-other.lock").write_json(THERE | said)
    return "driver-other.lock"


def take_over(run: Location, mine: str) -> None:
    """What another driver does, by other means than this process's locations."""
    text = json.dumps(THERE | {"took": [mine]}).encode()
    with run.filesystem.open_output_stream(f"{run.path}/driver-other.lock") as stream:
        stream.write(text)
    run.filesystem.delete_file(f"{run.path}/{mine}")


def test_a_second_driver_is_told_who_holds_it(run: Location) -> None:
    with (
        run_lock(run, QUIET),
        pytest.raises(
            RunDirectoryError, match=rf"to be free, but got process {os.getpid()} on .* choose another --out"
        ),
        run_lock(run, QUIET),
    ):
        pytest.fail("held twice")
    assert run.names() == [], "nothing is left when the block ends"
    with run_lock(run, QUIET) as check:
        check()


def test_a_second_driver_that_has_listed_the_directory_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through drivers of a store that keep listings: of the lock, of its loss, and of files, it sees those of now."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)  # a beat between loss and check would interrupt, or put it back
    fsspec.filesystem("memory").store.clear()
    (run := listed_store(f"{tmp_path.name}/run")).make_dir()
    other = listed_store(f"{tmp_path.name}/run")
    assert other.names() == []
    with run_lock(run, QUIET) as check:
        assert other.filesystem.get_file_info(pafs.FileSelector(other.path)) == [], "the store hides it"
        with pytest.raises(RunDirectoryError, match="to be free, but got process"), run_lock(other, QUIET):
            pytest.fail("held twice")
        (run / "a.json").write_json("one")
        assert (other / "a.json").read_json() == "one"
        (run / "a.json").write_json("another")
        assert (other / "a.json").read_json() == "another"
        (mine,) = (name for name in other.names() if is_lock(name))
        (other / mine).delete()
        with pytest.raises(RunDirectoryError, match="another driver took over"):
            check()


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_takes_nothing_and_gives_nothing(
    run: Location, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """By an hour, of the driver that holds the directory and of the one that wants it: nobody looks at that clock."""
    monkeypatch.setattr(lock, "STALE_SECONDS", 60.0)
    with run_lock(run, QUIET) as check:
        _jump(monkeypatch, jump)
        monkeypatch.setattr(lock, "_machine", lambda: "another")  # so that the holder is watched
        with pytest.raises(RunDirectoryError, match="to be free, but got process"), run_lock(run, QUIET):
            pytest.fail("held twice")
        check()
        (run / "a.json").write_json("mine")
    assert run.names() == ["a.json"]


def _jump(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    wall, wall_ns, get = time.time, time.time_ns, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: wall() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + int(seconds * 1e9))
    monkeypatch.setattr(time, "clock_gettime", lambda which: get(which) + seconds * (which == time.CLOCK_REALTIME))


def test_a_living_process_keeps_it_and_a_killed_one_does_not(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 1e9)  # a process on this machine need not be watched
    run = locate(str(tmp_path / "run"))
    with pytest.raises(RunDirectoryError, match=f"process {holder.pid} on "), run_lock(run, QUIET):
        pytest.fail("held twice")
    holder.kill()
    holder.wait()
    with run_lock(run, QUIET) as check:
        check()
        assert len([name for name in run.names() if is_lock(name)]) == 1, "the dead driver's file is gone"


@pytest.mark.usefixtures("nobody_lives")
def test_the_number_of_a_dead_process_may_be_used_again(run: Location) -> None:
    with run_lock(run, QUIET):
        (mine,) = (json.loads((run / name).read_bytes()) for name in run.names())
    put(run, machine=mine["machine"], pid=os.getpid(), started="1")
    with run_lock(run, QUIET):
        assert "driver-other.lock" not in run.names()


@pytest.mark.usefixtures("nobody_lives")
def test_a_silent_driver_elsewhere_is_taken_to_be_dead(run: Location) -> None:
    put(run)
    with run_lock(run, QUIET) as check:
        check()
        assert "driver-other.lock" not in run.names()


def test_a_driver_elsewhere_that_shows_life_is_not_disturbed(run: Location) -> None:
    stop = threading.Event()

    def live() -> None:
        beat = 0
        while not stop.wait(0.05):
            put(run, beat=(beat := beat + 1))

    put(run)
    other = threading.Thread(target=live)
    other.start()
    try:
        with pytest.raises(RunDirectoryError, match=r"process 7 on far \(since noon\)"), run_lock(run, QUIET):
            pytest.fail("held twice")
    finally:
        stop.set()
        other.join()
    assert run.names() == ["driver-other.lock"]


def test_a_driver_that_was_thought_dead_finds_out(run: Location) -> None:
    """As after a pause of the whole machine: it must not finish what another has taken over.

    In a thread of its own, which ends at its next change of a file: an interrupt of the main thread is for a process.
    """

    def work() -> None:
        with run_lock(run, QUIET):
            (mine,) = run.names()
            take_over(run, mine)
            for _ in range(600):
                (run / "a.json").write_json("late")
                time.sleep(0.1)

    with (
        ThreadPoolExecutor(1) as thread,
        pytest.raises(RunDirectoryError, match=r"process 7 on far .* took over, since this driver gave no sign"),
    ):
        thread.submit(work).result()
    assert set(run.names()) - {"a.json"} == {"driver-other.lock"}, "it no longer shows life"


def test_late_changes_of_a_driver_that_was_thought_dead_do_nothing(
    run: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was about to write or to remove, before its heartbeat tells it."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)
    now = lock._now()
    monkeypatch.setattr(lock, "_now", lambda: now)
    with run_lock(run, QUIET):
        (mine,) = run.names()
        (run / "a.json").write_json("mine")
        take_over(run, mine)
        now += lock.STALE_SECONDS  # it was suspended for so long
        for change in (lambda: (run / "a.json").write_json("late"), (run / "a.json").delete, (run / "b").delete):
            with pytest.raises(RunDirectoryError, match="took over"):
                change()
        assert (run / "a.json").read_json() == "mine"
        beside = run.beside("-b") / "a.json"
        beside.write_json("another run")
    assert run.names() == ["a.json", "driver-other.lock"]
    (run / "a.json").write_json("free again")


def test_workers_of_a_driver_that_was_thought_dead_change_nothing(
    run: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places in other processes, which take the driver's lock with them as they are sent."""
    with run_lock(run, QUIET):
        (mine,) = run.names()
        sent, same = pickle.dumps(run), pickle.dumps(run.beside("-b"))
        assert pickle.loads(sent).lock == "", "its own process asks the lock itself"
        with monkeypatch.context() as elsewhere:  # as in another process
            elsewhere.setattr(fences, "_OWN", set())
            elsewhere.setattr(fences, "_FENCES", {})
            worker = pickle.loads(pickle.dumps(pickle.loads(sent))) / "signals" / "a.json"  # and on to another one
            assert pickle.loads(same).lock == "", "of another directory"
        worker.write_json("first")
    assert mine not in run.names()
    for change in (
        lambda: worker.write_json("late"),
        worker.delete,
        (worker.parent / "b").delete,
        worker.parent.delete,
    ):
        with pytest.raises(RunDirectoryError, match=r"the driver of this worker to hold .*, but got none"):
            change()
    assert (run / "signals").names() == ["a.json"]
    assert (run / "signals" / "a.json").read_json() == "first"


def test_no_reading_of_locks_within_the_lease(run: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STALE_SECONDS", 1e6)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)
    with run_lock(run, QUIET):
        monkeypatch.setattr(lock._Lock, "_others", lambda _: pytest.fail("read"))
        (run / "a.json").write_json(1)


def test_a_driver_that_is_stopped_and_continued_after_the_take_over(tmp_path: Path) -> None:
    """SIGSTOP and SIGCONT, of a process that its successor takes to be on another machine."""
    run = locate(str(tmp_path / "run"))
    code = textwrap.dedent(STOPPED)
    command = [sys.executable, "-c", code, run.path]
    cwd = Path(__file__).parents[3]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as old:
        try:
            assert old.stdout is not None
            assert old.stdout.readline() == "held\n"
            os.kill(old.pid, signal.SIGSTOP)
            with run_lock(run, QUIET) as check:
                (run / "manifest.json").write_json("new")
                os.kill(old.pid, signal.SIGCONT)
                _, message = old.communicate("go on\n", timeout=60)
                check()
                assert (run / "manifest.json").read_json() == "new"
                assert "took over, since this driver gave no sign of life" in message
                assert old.returncode == 1
                assert len(run.names()) == 2, "manifest.json and the lock of the new driver"
        finally:
            old.kill()


def test_a_lock_that_somebody_removed_is_lost(run: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 1e6)  # a beat at the same moment would put it back
    with run_lock(run, QUIET) as check:
        (mine,) = run.names()
        (run / mine).delete()
        with pytest.raises(RunDirectoryError, match="another driver took over"):
            check()


def test_of_many_that_start_together_one_at_a_time_holds(run: Location) -> None:
    inside, most, entered, refused = [0], [0], [0], [0]
    lock, start = threading.Lock(), threading.Barrier(4)

    def drive() -> None:
        start.wait()
        try:
            with run_lock(run, QUIET):
                with lock:
                    inside[0] += 1
                    entered[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.3)
                with lock:
                    inside[0] -= 1
        except RunDirectoryError:
            with lock:
                refused[0] += 1

    threads = [threading.Thread(target=drive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert entered[0] >= 1
    assert entered[0] + refused[0] == 4
    assert run.names() == []


@pytest.mark.usefixtures("nobody_lives")
@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"host": "far"}'])
def test_a_damaged_file_holds_nothing_for_ever(run: Location, content: bytes) -> None:
    run.make_dir()
    (run / "driver-x.lock").write_bytes(content)
    with run_lock(run, QUIET):
        assert "driver-x.lock" not in run.names()
