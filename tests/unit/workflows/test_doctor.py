"""What doctor looks at and prints, with a cluster that is only said to be there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core.errors import DataError
from dynacor_ray.engine.runtime import session
from dynacor_ray.engine.runtime.session import Resources
from dynacor_ray.workflows import doctor as doctor_module
from dynacor_ray.workflows.doctor import Check, DoctorReport


def test_a_finding_is_the_message_of_the_error() -> None:
    def fail() -> str:
        raise DataError("Expected rows, but got none; add some.")

    report = DoctorReport()
    assert report.look("data", lambda: "12 rows") is True
    assert report.ok
    assert report.look("labels", fail) is False
    assert report.look("cluster", lambda: "2 nodes") is True
    assert not report.ok, "one good check does not make up for a bad one"
    assert report.checks[1] == Check("labels", False, "Expected rows, but got none; add some.")


def test_a_defect_is_no_finding() -> None:
    with pytest.raises(ZeroDivisionError):
        DoctorReport().look("data", lambda: str(1 // 0))


def doctored(monkeypatch: pytest.MonkeyPatch, data: str, tmp_path: Path, **options: Any) -> DoctorReport:
    """What doctor finds with a cluster of 4 CPUs that is only said to be there."""
    have = Resources(cpus=4, gpus=0, memory_bytes=8e9, nodes=1, object_store_bytes=1e9)
    monkeypatch.setattr(doctor_module, "connect", lambda _: None)
    monkeypatch.setattr(doctor_module, "resources", lambda: have)
    monkeypatch.setattr("dynacor_ray.workflows.prepare.resources", lambda: have)
    monkeypatch.setattr(session, "resources", lambda: have)
    return doctor_module.run_doctor(DetectConfig(data=data, out=str(tmp_path / "run"), **options))


def test_doctor_prints_findings_whole_and_harmless(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = f"{tmp_path}/[bold]no\x1b[31mwhere/" + "and " * 40 + "end"
    report = doctored(monkeypatch, nowhere, tmp_path)
    assert [check.name for check in report.checks] == ["cluster", "data"]
    assert [check.ok for check in report.checks] == [True, False]
    said = capsys.readouterr().out
    assert "\x1b" not in said
    whole = re.sub(r"[\s│]", "", said)
    assert "/[bold]no" in whole
    assert "where/" + "and" * 40 + "end" in whole
    assert "Not ready: correct the lines marked 'no'." in said
    assert "What detect would do" not in said


def test_doctor_of_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = doctored(monkeypatch, "demo", tmp_path, gamma=0.5, epochs=10)
    assert report.ok, report.checks
    assert report.plan["run"]["rows"] == 1797
    assert report.plan["run"]["signals to record"] == (1797 + round(898.5)) * 10
    assert not (tmp_path / "run").exists()
    said = capsys.readouterr().out
    assert "1,797" in said
    assert "Ready." in said
