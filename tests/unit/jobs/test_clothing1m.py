"""The job of Clothing1M."""

from __future__ import annotations

import pytest

from dynacor_ray.config.detect import DetectConfig
from tests.job_runs import run_job


@pytest.mark.parametrize("root", ["/c", "clothing1m:/c", "s3://bucket/c"])
def test_the_clothing1m_job_insists_on_its_layout(
    root: str, configs: list[DetectConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job("jobs/clothing1m.py", ["--data", root, "--gamma", "0.2"], monkeypatch)
    assert configs == [DetectConfig(data="clothing1m:" + root.removeprefix("clothing1m:"), gamma=0.2)]
