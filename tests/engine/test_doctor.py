"""doctor: what it finds, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dynacor_ray.workflows.doctor import doctor


def test_doctor_describes_the_run(
    feature_set: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = feature_set(1000)
    report = doctor(str(data), out=str(tmp_path / "run"), gamma=0.2)
    assert report.ok, [c.message for c in report.checks if not c.ok]
    planned = report.plan["run"]
    assert planned["rows"] == 1000
    assert planned["corrupted copies (§4.2)"] == 200
    assert planned["signals to record"] == 1200 * 20
    said = capsys.readouterr().out
    assert "parquet: 1,000 rows" in said
    assert "Ready." in said
    assert not (tmp_path / "run").exists(), "doctor spends and leaves nothing"


@pytest.mark.usefixtures("cluster")
def test_doctor_names_every_trouble_at_once(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynacor_ray.workflows.doctor.store_bytes", lambda _: 10**16)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    report = doctor(str(feature_set(1000)), out=str(tmp_path / "run"), workers=99, encoder="pixels", quiet=True)
    wrong = {check.name: check.message for check in report.checks if not check.ok}
    assert set(wrong) == {"encoder", "run directory", "cluster", "room to spill"}
    assert "GB of room in" in wrong["room to spill"]
    assert "notes.txt" in wrong["run directory"]
    assert "a CPU for each of 99 workers" in wrong["cluster"]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_doctor_without_data(tmp_path: Path) -> None:
    report = doctor(str(tmp_path / "nowhere"), quiet=True)
    assert [check.name for check in report.checks if not check.ok] == ["data"]
    assert "nowhere" in report.checks[0].message
