"""What Python gets back from a run."""

from __future__ import annotations

from pathlib import Path

import dynacor_ray
from dynacor_ray.core.storage import locate
from dynacor_ray.workflows.results import DetectResult
from tests.made_runs import make_run


def test_a_result_makes_its_report(tmp_path: Path) -> None:
    run = locate(str(make_run(tmp_path / "run")))
    result = DetectResult.read(run)
    assert result.report() == f"{tmp_path}/run/report.html"
    assert (tmp_path / "run" / "report.html").exists()
    assert "<b>30 of 300 labels look wrong</b>" in result._repr_html_()
    assert repr(result) == f"<DetectResult {run}: 30 of 300 labels look wrong>"


def test_a_result_passes_for_its_directory(tmp_path: Path) -> None:
    result = dynacor_ray.load(make_run(tmp_path / "run"))
    assert dynacor_ray.load(result) == result
    assert dynacor_ray.review(result, sample=20).run == result.run
