"""Shared by the tests of faults: what must hold of a run however often it was disturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location
from dynacor_ray.method.corruption import CorruptionConfig, is_selected
from dynacor_ray.runs.lock import is_lock


def expected_keys(rows: int, gamma: float = 0.1, seed: int = 0) -> np.ndarray:
    """Keys of all instances and of the planted errors, which depend on nothing but gamma and seed."""
    copies = np.flatnonzero(is_selected(np.arange(rows), CorruptionConfig(gamma=gamma, seed=seed)))
    return np.sort(np.concatenate([np.arange(rows) << 1, (copies << 1) | 1]))


def assert_whole(run: Path, rows: int, epochs: int, gamma: float = 0.1) -> None:
    """A finished run: exactly one signal per row and epoch, no key twice, the undisturbed corrupted set, no litter."""
    expected = expected_keys(rows, gamma)
    table = pq.read_table(run / "dynamics.parquet")
    assert np.array_equal(table["key"].to_numpy(), expected)
    assert schema.matrix(table["margin"]).shape == (len(expected), epochs)
    assert sorted(pq.read_table(run / "issues.parquet")["instance_id"].to_pylist()) == list(range(rows))
    assert_signals_whole(run / "signals", rows, epochs, gamma)
    assert json.loads((run / "summary.json").read_text())["num_rows"] == rows
    names = [path.name for path in run.iterdir()]
    assert not [name for name in names if name.endswith(".part") or is_lock(name)]


def assert_signals_whole(signals: Path, rows: int, epochs: int, gamma: float) -> None:
    """Exactly one signal per row and epoch, and no file that does not count."""
    expected = expected_keys(rows, gamma)
    listed = json.loads((signals / "manifest.json").read_text())
    assert sorted(map(int, listed)) == list(range(epochs))
    left = {p.relative_to(signals).as_posix() for p in signals.glob("epoch=*/*")}
    assert left == {name for names in listed.values() for name in names}, "dead attempts left nothing behind"
    assert not list(signals.rglob("*.part"))
    for epoch in listed:
        found = np.concatenate([pq.read_table(signals / f)["key"].to_numpy() for f in listed[epoch]])
        assert np.array_equal(np.sort(found), expected), f"epoch {epoch}"


def assert_nothing_half(run: Path) -> None:
    """A run that was stopped anywhere: every file that has its final name can be read to its end, Ray's own apart."""
    for place in run.rglob("*"):
        if {"tune", "train"} & set(place.relative_to(run).parts):
            continue
        if place.suffix == ".json":
            json.loads(place.read_text())
        elif place.suffix == ".parquet":
            pq.read_table(place)


def everything(place: Location, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Path below `place` -> content. but: endings of files that are not read."""
    infos = place.filesystem.get_file_info(pafs.FileSelector(place.path, recursive=True))
    files = [info.path for info in infos if info.is_file and not info.path.endswith(but)]
    return {path[len(place.path) + 1 :]: place.filesystem.open_input_file(path).read() for path in files}


class Killable(Protocol):
    """A process that this one has started."""

    pid: int

    def kill(self) -> None: ...
    def wait(self) -> int: ...


def kill_machine(driver: Killable) -> None:
    """Kill a driver and all that it started, as where their machine goes down."""
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    for process in family:
        if process.is_running():
            process.kill()
