"""The job of detect."""

from __future__ import annotations

import pytest

from tests.job_runs import run_job


def test_a_wrong_option_of_a_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("jobs/detect.py", ["--data", "demo", "--alpha", "-1"], monkeypatch, status=2)
    said = capsys.readouterr().err
    assert said == "dynacor: Expected --alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05.\n"
