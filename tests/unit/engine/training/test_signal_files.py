"""Files of signals: sorted, without padding, complete or told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import TrainingError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.training.signal_files import (
    complete,
    file_name,
    remove_unlisted,
    signal_table,
    write_signals,
)


def recorded(margins: Any, predicted: list[int]) -> dict[str, np.ndarray]:
    return {schema.MARGIN: np.asarray(margins, np.float32), schema.PREDICTED: np.array(predicted)}


def test_signals_are_sorted_and_without_padding(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / file_name(3, "ab", 12)
    assert place.path == f"{tmp_path}/epoch=00003/ab-r0012.parquet"
    keys, margins = np.array([8, -1, 3, 4, -1]), np.array([1.5, 9, -1e-9, 1e9, 9], np.float32)
    assert write_signals(place, keys, recorded(margins, [2, 9, 0, 1, 9]), signal_table) == 3
    table = place.read_table()
    assert table.schema.equals(schema.signal_schema())
    assert table[schema.KEY].to_pylist() == [3, 4, 8]
    assert table[schema.PREDICTED].to_pylist() == [0, 1, 2]
    margin = table[schema.MARGIN].to_numpy()
    assert margin[0] < 0, "a tiny negative margin stays negative"
    assert margin[1:].tolist() == [65504.0, 1.5]


def test_no_signals(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / "f.parquet"
    assert write_signals(place, np.array([-1]), recorded([0], [0]), signal_table) == 0
    assert place.read_table().schema.equals(schema.signal_schema())


def test_diverged_signals_leave_no_file(tmp_path: Path) -> None:
    place = locate(str(tmp_path)) / "f.parquet"
    with pytest.raises(TrainingError, match="finite margins"):
        write_signals(place, np.array([1]), recorded([np.nan], [0]), signal_table)
    assert not place.exists()
    assert write_signals(place, np.array([1, -1]), recorded([0, np.nan], [0, 0]), signal_table) == 1


def test_complete() -> None:
    assert complete({}, 0)
    assert complete({"0": ["a"], "1": ["b"]}, 2)
    assert complete({"0": ["a"], "1": ["b"], "2": ["c"]}, 2)
    assert not complete({"0": ["a"], "2": ["b"]}, 2)


def test_what_dead_attempts_left_is_removed(tmp_path: Path) -> None:
    signals = locate(str(tmp_path))
    for name in ("epoch=00000/a-r0000.parquet", "epoch=00000/b-r0000.parquet", "epoch=00001/b-r0000.parquet"):
        (signals / name).write_bytes(b"x")
    (signals / "progress.json").write_json({"epochs": 2})
    remove_unlisted(signals, {"0": ["epoch=00000/b-r0000.parquet"], "1": ["epoch=00001/b-r0000.parquet"]})
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["epoch=00000/b-r0000.parquet", "epoch=00001/b-r0000.parquet", "progress.json"]
