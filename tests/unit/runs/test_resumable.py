"""The one way in which a run directory is filled: once, by one driver, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError, RunDirectoryError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.runs.lock import is_lock, run_lock
from dynacor_ray.runs.resumable import ResumableRun, run_once

QUIET = Progress(quiet=True)


@dataclass
class Sum(ResumableRun[int, str]):
    """Adds two and two and says what was called."""

    place: Location
    called: list[str] = field(default_factory=list)
    error: Exception | None = None
    meanwhile: Callable[[], None] = lambda: None

    @property
    def run(self) -> Location:
        return self.place

    def finished(self) -> str | None:
        self.called.append("finished")
        done = self.place / "summary.json"
        return str(done.read_json()) if done.exists() else None

    def execute(self, progress: Progress) -> int:
        self.called.append("execute")
        assert [name for name in self.place.names() if is_lock(name)], "the directory is held"
        if self.error is not None:
            raise self.error
        self.meanwhile()
        return 4

    def release_if_empty(self) -> None:
        self.called.append("forget")

    def write(self, made: int, seconds: dict[str, float]) -> str:
        self.called.append("write")
        assert {"start", "total"} <= seconds.keys()
        (self.place / "summary.json").write_json(made)
        return str(made)

    def on_already_complete(self, result: str) -> None:
        self.called.append(f"revisit {result}")


@pytest.fixture
def task(tmp_path: Path) -> Sum:
    return Sum(locate(str(tmp_path / "run")).make_dir())


def test_it_is_done_once(task: Sum) -> None:
    assert run_once(lambda: task, QUIET) == "4"
    assert task.called == ["finished", "finished", "execute", "write"], "looked at again when the directory was held"
    task.called.clear()
    assert run_once(lambda: task, QUIET) == "4"
    assert task.called == ["finished", "revisit 4"]
    assert task.place.names() == ["summary.json"], "no sign of life is left"


def test_another_driver_may_have_done_it_meanwhile(task: Sum, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([None, "5"])
    monkeypatch.setattr(Sum, "finished", lambda _: next(said))
    assert run_once(lambda: task, QUIET) == "5"
    assert task.called == ["revisit 5"]


def test_a_failure_frees_the_directory(task: Sum) -> None:
    task.error = DataError("Expected sense, but got none; look again.")
    with pytest.raises(DataError, match="Expected sense"):
        run_once(lambda: task, QUIET)
    assert task.called[-1] == "forget"
    assert task.place.names() == []
    task.error = None
    assert run_once(lambda: task, QUIET) == "4"


def test_a_failure_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    task = Sum(locate(str(tmp_path / "runs" / "one")), error=DataError("Expected sense, but got none; look again."))
    with pytest.raises(DataError):
        run_once(lambda: task, QUIET)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").touch()
    with pytest.raises(DataError):
        run_once(lambda: task, QUIET)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_directory_that_another_driver_holds_is_refused(task: Sum) -> None:
    with run_lock(task.place, QUIET), pytest.raises(RunDirectoryError, match="to be free, but got process"):
        run_once(lambda: task, QUIET)
    assert "execute" not in task.called


def test_a_driver_that_lost_the_directory_writes_no_result(task: Sum) -> None:
    """As after a pause of the whole machine: another driver thought it dead, and is at work."""

    def take_over() -> None:
        (mine,) = (name for name in task.place.names() if is_lock(name))
        said = (task.place / mine).read_json()
        (task.place / "driver-other.lock").write_json(said | {"host": "far", "pid": 7, "took": [mine]})

    task.meanwhile = take_over
    with pytest.raises(RunDirectoryError, match=r"Expected to hold .* but got process 7 on far .* took over"):
        run_once(lambda: task, QUIET)
    assert "write" not in task.called
    assert task.place.names() == ["driver-other.lock"]
