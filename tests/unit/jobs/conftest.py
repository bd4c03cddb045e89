"""What the jobs would run."""

from __future__ import annotations

import pytest

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.workflows import analyze_signals as studies
from dynacor_ray.workflows import compare as comparisons
from dynacor_ray.workflows import detect as pipeline
from dynacor_ray.workflows import sweep as sweeps


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[DetectConfig]:
    seen: list[DetectConfig] = []
    monkeypatch.setattr(pipeline, "run_detect", seen.append)
    monkeypatch.setattr(sweeps, "run_sweep", seen.append)
    monkeypatch.setattr(comparisons, "run_compare", seen.append)
    monkeypatch.setattr(studies, "run_analyze_signals", seen.append)
    return seen
