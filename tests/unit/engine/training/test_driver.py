"""The driver's side of a training: what it cleans up before and after an attempt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dynacor_ray.core.errors import StorageError, TrainingError
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.training import driver
from dynacor_ray.engine.training.driver import clean_up_first_epoch_oom, rows_done


def started(tmp_path: Path, fresh: bool | None) -> Location:
    """A run directory with signals and checkpoints; fresh: what the note of a failure says, None without one."""
    run = locate(str(tmp_path / "run"))
    (run / "signals" / "epoch=00000" / "a-r0000.parquet").write_bytes(b"signals")
    (run / "train" / "checkpoint").write_bytes(b"state")
    if fresh is not None:
        (run / "signals" / "failed.json").write_json({"message": "no memory", "fresh": fresh})
    return run


@pytest.mark.parametrize(("fresh", "left"), [(True, []), (False, ["signals", "train"]), (None, ["signals", "train"])])
def test_only_what_failed_before_its_first_epoch_leaves_nothing(
    fresh: bool | None, left: list[str], tmp_path: Path
) -> None:
    """Then another batch size may be tried in the same directory; else the recorded epochs are kept for a resume."""
    run = started(tmp_path, fresh)
    with pytest.raises(TrainingError, match="no memory"), clean_up_first_epoch_oom(run):
        raise TrainingError("no memory")
    assert run.names() == left


@pytest.mark.parametrize(
    ("late", "threads", "use_gpu", "said"),
    [(True, 2, False, 1), (False, 2, False, 0), (True, 1, False, 0), (True, 2, True, 0)],
)
def test_a_user_is_told_of_threads_that_spin(
    late: bool, threads: int, use_gpu: bool, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "threads_spin", lambda: late)
    lines: list[str] = []
    job: Any = SimpleNamespace(threads=threads, plan=SimpleNamespace(use_gpu=use_gpu))
    progress: Any = SimpleNamespace(say=lines.append)
    driver._say_if_threads_spin(job, progress)
    assert lines == [driver.SPINNING] * said


def test_what_fails_to_follow_a_training_does_not_end_it(tmp_path: Path) -> None:
    """Before the first epoch there is nothing to follow."""
    run, told = locate(str(tmp_path)), []

    def full(figures: list[dict[str, Any]]) -> None:
        told.append(figures)
        raise StorageError("no space")

    driver._tell(full, run)
    assert told == []
    (run / "signals" / "history.json").write_json([{"epoch": 1}])
    driver._tell(full, run)
    driver._tell(None, run)
    assert told == [[{"epoch": 1}]]


def test_rows_done_are_those_of_all_trainings_that_have_begun(tmp_path: Path) -> None:
    runs = [(locate(str(tmp_path / name)), rows) for name, rows in (("a", 10), ("b", 100), ("c", 1000))]
    for (run, _), epochs in zip(runs, (3, 2), strict=False):
        (run / "signals" / "progress.json").write_json({"epochs": epochs})
    assert rows_done(runs) == 3 * 10 + 2 * 100


@pytest.mark.parametrize(("cluster", "said"), [(True, "at most 3 restarts, but got"), (False, "to end, but got")])
def test_only_a_cluster_is_told_of_restarts(cluster: bool, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "on_cluster", lambda: cluster)
    plan: Any = SimpleNamespace(max_failures=3)
    with pytest.raises(TrainingError, match=f"{said} ValueError: odd; .*resume"), driver._training_errors(plan):
        raise ValueError("odd")
