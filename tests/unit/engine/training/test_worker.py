"""What a training worker does: commits of whole epochs, resume with other workers, and what it says about memory."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError, TrainingError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training import worker
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.driver import _tell
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.engine.training.lr_schedule import rate_after
from dynacor_ray.engine.training.worker import (
    TrainState,
    is_out_of_memory,
    memory_message,
    read_checkpoint,
    run_epoch,
)
from tests.image_jobs import job_of
from tests.plans import plan_of

CPU = torch.device("cpu")
DIM, CLASSES, EPOCHS = 5, 3, 4
KEYS = np.concatenate([np.arange(20) << 1, (np.arange(4) << 1) | 1])


def state_of(run: Path, world: int = 1, checkpoint_seconds: float = 0.0, **config: Any) -> TrainState:
    """Rank 0 of a training on 20 originals and 4 copies; without a cluster."""
    facts = RowFacts(20, 4, CLASSES, DIM, np.zeros(DIM, np.float32), 1.0, np.array([7, 7, 6]))
    plan = plan_of(4, checkpoint_seconds=checkpoint_seconds)
    job = Job(TrainConfig(epochs=EPOCHS, batch_size=8, **config), plan, locate(str(run)), facts).among(world)
    torch.manual_seed(world)
    module = DynamicsModule(job, CPU)
    return TrainState(job, module, module.network(), 0, world)


def rows(keys: np.ndarray = KEYS) -> Batch:
    random = np.random.default_rng(0)
    feature = torch.from_numpy(random.normal(size=(len(keys), DIM)).astype(np.float32))
    label = torch.from_numpy(random.integers(0, CLASSES, len(keys)))
    return Batch(torch.from_numpy(keys), label, feature, torch.from_numpy((keys >= 0).astype(np.float32)))


def recorded(count: int = len(KEYS)) -> dict[str, np.ndarray]:
    return {schema.MARGIN: np.arange(count, dtype=np.float32), schema.PREDICTED: np.zeros(count, np.int32)}


# --------------------------------------------------------------------------------------------------------------- commit


def test_a_whole_epoch_is_listed_and_saved(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    state.commit(0, KEYS, recorded())
    ((name,),) = state.manifest.values()
    signals = locate(str(tmp_path)) / "signals"
    assert (signals / name).read_table()[schema.KEY].to_pylist() == sorted(KEYS)
    assert (signals / "progress.json").read_json()["epochs"] == 1
    saved = read_checkpoint(locate(str(tmp_path)))
    assert saved is not None
    assert saved["manifest"] == state.manifest
    assert saved["epoch"] == 1


def test_figures_of_the_epochs_are_there_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, figures = state_of(tmp_path), [{"epoch": 1, "loss": 0.5}]
    monkeypatch.setattr(state.module, "figures", lambda: figures)
    state.commit(0, KEYS, recorded())
    followed: list[Any] = []
    _tell(followed.append, locate(str(tmp_path)))
    assert followed == [figures]


@pytest.mark.parametrize(
    ("keys", "found"),
    [(KEYS[:-1], 23), (np.append(KEYS, 99), 25), (np.where(KEYS[3] == KEYS, -1, KEYS), 23)],
    ids=["lost", "surplus", "taken for padding"],
)
def test_an_epoch_without_exactly_one_signal_per_row_is_an_error(keys: np.ndarray, found: int, tmp_path: Path) -> None:
    state = state_of(tmp_path)
    state.commit(0, KEYS, recorded())
    with pytest.raises(CoverageError, match=f"Expected 24 signals in epoch 1, but got {found}"):
        state.commit(1, keys, recorded(len(keys)))
    assert list(state.manifest) == ["0"]
    saved = read_checkpoint(locate(str(tmp_path)))
    assert saved is not None
    assert saved["epoch"] == 1, "a restart goes on from the epoch before"


@pytest.mark.parametrize(("theirs", "whole"), [(14, True), (13, False), (15, False)])
def test_the_signals_of_all_ranks_are_counted(
    theirs: int, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_gather", lambda mine, world: [mine, ("other", theirs, "", False)])
    state = state_of(tmp_path, world=2)
    if whole:
        state.commit(0, KEYS[:10], recorded(10))
        assert state.manifest["0"][1] == "other"
        return
    with pytest.raises(CoverageError, match=f"24 signals in epoch 0, but got {10 + theirs}"):
        state.commit(0, KEYS[:10], recorded(10))


def test_what_went_wrong_on_one_rank_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_gather", lambda mine, world: [mine, ("other", 0, "Expected finite margins.", False)])
    with pytest.raises(TrainingError, match="Expected finite margins"):
        state_of(tmp_path, world=2).commit(0, KEYS[:10], recorded(10))


def test_a_checkpoint_is_made_when_it_is_time_and_at_the_end(tmp_path: Path) -> None:
    state = state_of(tmp_path, checkpoint_seconds=1e9)
    for epoch in range(EPOCHS):
        assert read_checkpoint(locate(str(tmp_path))) is None
        state.commit(epoch, KEYS, recorded())
    saved = read_checkpoint(locate(str(tmp_path)))
    assert saved is not None
    assert saved["epoch"] == EPOCHS


# ---------------------------------------------------------------------------------------------------------------- epoch


@dataclasses.dataclass
class Whole:
    """Rows of a rank, in batches of the size asked for."""

    rows: Batch

    def batches(self, epoch: int, size: int) -> Iterator[Batch]:
        parts = (part.split(size) for part in self.rows)
        return (Batch(*fields) for fields in zip(*parts, strict=True))


def test_rows_are_recorded_in_any_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for portion in (1, 9, 8192):
        monkeypatch.setattr(worker, "RECORD_ROWS", portion)
        found.append(run_epoch(state_of(tmp_path), Whole(rows()), 0, CPU))  # type: ignore[arg-type]
    for keys, signals in found:
        assert keys.tolist() == KEYS.tolist()
        assert signals.keys() == {schema.MARGIN, schema.PREDICTED}
        for name, values in signals.items():
            assert np.array_equal(values, found[0][1][name])


def test_an_epoch_of_too_few_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CoverageError, match="Expected 24 rows on rank 0, but got 20"):
        run_epoch(state_of(tmp_path), Whole(rows(KEYS[:20])), 0, CPU)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- resume


# A milestone at .285 is step 3 of 12, but 5 of 16: passed after an epoch with some numbers of workers.
@pytest.mark.parametrize(
    "schedule", [{}, *({"lr_schedule": "multistep", "lr_milestones": at} for at in ((0.5, 0.75), (0.285,)))]
)
@pytest.mark.parametrize(("before", "after", "steps"), [(2, 2, 12), (2, 3, 16), (3, 1, 12)])
def test_the_learning_rate_goes_on_where_it_was_with_any_number_of_workers(
    before: int,
    after: int,
    steps: int,
    schedule: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After one of four epochs a quarter of the schedule is done, however many steps that is with the new workers."""
    first = state_of(tmp_path, before, **schedule)
    for _ in range(-(-first.job.rows_per_rank // first.batch)):
        first.step(rows(), 0)
    first._checkpoint(1)
    monkeypatch.setattr(worker, "_gather", lambda mine, world: [mine] * world)
    second = state_of(tmp_path, after, **schedule)
    assert second.restore(read_checkpoint(locate(str(tmp_path)))) == 1
    rates = []
    for _ in range(steps // EPOCHS, steps):
        rates.append(second.optimizer.param_groups[0]["lr"])
        second.step(rows(), 1)
    expected = [rate_after(second.job.config, step, steps) for step in range(steps // EPOCHS, steps)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    """Two more steps give the same network as without an interruption: weights, momentum and rate are all there."""
    first = state_of(tmp_path)
    first.step(rows(), 0)
    first.commit(0, KEYS, recorded())
    second = state_of(tmp_path)
    torch.nn.init.zeros_(next(iter(second.network.parameters())))
    assert second.restore(None) == 0
    assert second.restore(read_checkpoint(locate(str(tmp_path)))) == 1
    assert second.manifest == first.manifest
    for state in (first, second):
        for _ in range(2):
            state.step(rows(), 1)
    for mine, theirs in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_ranks_that_found_different_checkpoints_do_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on storage that shows a machine what was there a moment ago: another attempt is made."""
    state_of(tmp_path)._checkpoint(2)
    monkeypatch.setattr(worker, "_gather", lambda mine, world: [mine, 1])
    with pytest.raises(RuntimeError, match=r"one checkpoint on all ranks, but got those of epochs \[2, 1\]"):
        state_of(tmp_path, world=2).restore(read_checkpoint(locate(str(tmp_path))))


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "signals").mkdir()
    torch.save({"epoch": Path("/")}, tmp_path / "signals" / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        read_checkpoint(locate(str(tmp_path)))


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_out_of_memory_says_what_to_try() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore of it")
    fresh = memory_message(job_of(workers=2), error, fresh=True)
    assert fresh == (
        "Expected memory for 8 rows per step on each of 2 worker(s) (--batch-size 16), but got 'CUDA out of memory. "
        "Tried to allocate 2 GiB'; pass e.g. --batch-size 8, or more --workers, or an --image-size below 8; the same "
        "--out may be used, and packed data are kept."
    )
    assert ", or a --worker-cache-gb that leaves more free;" in memory_message(job_of(), MemoryError(), fresh=True)
    assert "with another --out, and this one's --cache" in memory_message(job_of(), error, fresh=False)
