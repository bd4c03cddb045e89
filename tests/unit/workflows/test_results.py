"""What Python gets back from a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import dynacor_ray
from dynacor_ray.core.storage import locate
from dynacor_ray.workflows.results import DetectResult
from tests.made_runs import NAMES, issues, make_run


def test_a_result_makes_its_report(tmp_path: Path) -> None:
    run = locate(str(make_run(tmp_path / "run")))
    result = DetectResult.read(run)
    assert result.report() == f"{tmp_path}/run/report.html"
    assert (tmp_path / "run" / "report.html").exists()
    assert "<b>30 of 300 labels look wrong</b>" in result._repr_html_()
    assert repr(result) == f"<DetectResult {run}: 30 of 300 labels look wrong>"


def test_a_result_passes_for_its_directory(tmp_path: Path) -> None:
    result = dynacor_ray.load(make_run(tmp_path / "run"))
    assert dynacor_ray.load(result.run).run == result.run
    assert pd.read_parquet(result.run / "issues.parquet").shape[0] == len(result.to_pandas())
    assert dynacor_ray.load(result) == result
    assert dynacor_ray.review(result, sample=20).run == result.run


def test_a_frame_has_the_labels_of_the_data(tmp_path: Path) -> None:
    """Names of classes, or the integers that were the labels, not numbers of ours; those are at hand."""
    for names in (NAMES, ("3", "7", "10"), ("03", "7", "10")):
        run = make_run(tmp_path / names[0], rows=60, names=names)
        known = sorted(issues(run), key=lambda row: row["instance_id"])
        result = DetectResult.read(locate(str(run)))
        for column in ("given_label", "predicted_label"):
            codes = [row[column] for row in known]
            wanted = [names[code] for code in codes]
            found = result.to_pandas()[column]
            assert found.to_list() == ([int(name) for name in wanted] if names[0] == "3" else wanted)
            if names[0] != "3":
                assert found.cat.codes.to_list() == codes
            assert result.to_pandas(codes=True)[column].to_list() == codes
