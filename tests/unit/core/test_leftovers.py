"""Old entries of a shared folder go, young ones and those of unknown age stay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.leftovers import PARTIAL_SECONDS, remove_leftovers
from dynacor_ray.core.storage import Location, locate


def aged(place: Path, seconds: float) -> None:
    """A file that was changed so long ago, in a folder as old."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("x")
    at = time.time() - seconds
    for path in (place, place.parent):
        os.utime(path, (at, at))


def test_only_what_is_old_and_named_goes(tmp_path: Path) -> None:
    old = 2 * PARTIAL_SECONDS
    aged(tmp_path / "dead" / "deep" / "part.parquet", old)
    os.utime(tmp_path / "dead", (0, 0))
    aged(tmp_path / "alive" / "deep" / "part.parquet", 10)
    os.utime(tmp_path / "alive", (0, 0))
    aged(tmp_path / "half.part", old)
    aged(tmp_path / "whole.parquet", old)
    names = ["dead", "alive", "half.part", "missing"]
    assert sorted(remove_leftovers(locate(str(tmp_path)), names)) == ["dead", "half.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "whole.parquet"]


def test_what_this_run_left_goes_at_once(tmp_path: Path) -> None:
    for name in ("run1-a", "run1-b", "run10-a"):
        aged(tmp_path / name / "part.parquet", 10)
    assert remove_leftovers(locate(str(tmp_path)), ["run1-a", "run10-a"], mine="run1-") == ["run1-a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run1-b", "run10-a"]


def test_nothing_goes_where_it_must_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(tmp_path / "half.part", 2 * PARTIAL_SECONDS)

    def refuse(*_: Any) -> None:
        raise StorageError("no right to write")

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_bytes", refuse)
        assert remove_leftovers(locate(str(tmp_path)), ["half.part"]) == []
    with monkeypatch.context() as patch:
        patch.setattr("dynacor_ray.core.leftovers._changed", lambda _: None)
        assert remove_leftovers(locate(str(tmp_path)), ["half.part"]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["half.part"]
