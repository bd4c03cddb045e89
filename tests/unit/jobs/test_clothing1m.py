"""The job of Clothing1M."""

from __future__ import annotations

import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.workflows import detect
from tests.job_runs import run_job


@pytest.mark.parametrize("root", ["/c", "clothing1m:/c", "s3://bucket/c"])
def test_the_clothing1m_job_insists_on_its_layout(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[DetectConfig] = []
    monkeypatch.setattr(detect, "run_detect", seen.append)
    run_job("jobs/clothing1m.py", ["--data", root, "--gamma", "0.2"], monkeypatch)
    assert seen == [DetectConfig(data="clothing1m:" + root.removeprefix("clothing1m:"), gamma=0.2)]


def test_a_wrong_option_of_a_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("jobs/clothing1m.py", ["--data", "/c", "--alpha", "-1"], monkeypatch, status=2)
    said = capsys.readouterr().err
    assert said == "dynacor: Expected --alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05.\n"
