"""The driver's side of a training: what it cleans up before and after an attempt, and when it tries again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.exceptions import RayActorError

from dynacor_ray.core.errors import TrainingError
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.training import driver
from dynacor_ray.engine.training.driver import clean_up_first_epoch_oom, drop_corrupt_snapshot, rows_done


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


def test_a_cut_off_list_of_checkpoints_starts_again_and_a_whole_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = started(tmp_path, None) / "train"
    drop_corrupt_snapshot(folder, Progress())
    snapshot = folder / "checkpoint_manager_snapshot.json"
    snapshot.write_json({"checkpoints": []})
    drop_corrupt_snapshot(folder, Progress())
    assert folder.names() == ["checkpoint", "checkpoint_manager_snapshot.json"]
    snapshot.write_bytes(b'{"checkpo')
    drop_corrupt_snapshot(folder, Progress())
    assert not folder.exists()
    assert "training starts again" in capsys.readouterr().err


def test_rows_done_are_those_of_all_trainings_that_have_begun(tmp_path: Path) -> None:
    runs = [(locate(str(tmp_path / name)), rows) for name, rows in (("a", 10), ("b", 100), ("c", 1000))]
    for (run, _), epochs in zip(runs, (3, 2), strict=False):
        (run / "signals" / "progress.json").write_json({"epochs": epochs})
    assert rows_done(runs) == 3 * 10 + 2 * 100


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
    assert driver._fit(lambda: Trainer(failures), 2, lambda: ready.append(1)) == "result"  # type: ignore[arg-type, return-value]
    assert len(ready) == 3
    failures = [RayActorError(), RayActorError()]
    with pytest.raises(RayActorError):
        driver._fit(lambda: Trainer(failures), 1, lambda: None)  # type: ignore[arg-type, return-value]


def test_a_defect_is_not_tried_again() -> None:
    failures: list[Exception] = [ray.train.ControllerError(ValueError("a defect"))]
    with pytest.raises(ray.train.ControllerError):
        driver._fit(lambda: Trainer(failures), 5, lambda: None)  # type: ignore[arg-type, return-value]
    assert not failures
