"""The jobs that are one command each."""

from __future__ import annotations

import pytest

from dynacor_ray.config.analyze_signals import AnalyzeSignalsConfig
from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.sweep import SweepConfig
from tests.job_runs import run_job


def test_a_wrong_option_of_a_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_job("jobs/detect.py", ["--data", "demo", "--alpha", "-1"], monkeypatch, status=2)
    said = capsys.readouterr().err
    assert said == "dynacor: Expected --alpha of at least 0, but got -1.0; the paper uses 0.5 or 0.05.\n"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("detect", DetectConfig),
        ("sweep", SweepConfig),
        ("compare_baselines", CompareConfig),
        ("analyze_signals", AnalyzeSignalsConfig),
    ],
)
def test_a_job_is_its_command(
    script: str, kind: type, configs: list[DetectConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(f"jobs/{script}.py", ["--data", "DATA", "--epochs", "7"], monkeypatch)
    (config,) = configs
    assert type(config) is kind
    assert getattr(config, "detect", config) == DetectConfig(data="DATA", epochs=7)
