"""What a page shows of a run: a bounded choice of rows, whatever the size of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynacor_ray.core import table_files
from dynacor_ray.core.storage import locate
from dynacor_ray.report import page_reader as page_data
from dynacor_ray.report.page_reader import read_page
from dynacor_ray.runs.audit import AUDIT_ROWS
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import make_run
from tests.pages import made


def test_only_what_is_shown_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of 20 times as many rows holds as many rows, read in several batches and row groups."""
    monkeypatch.setattr(table_files, "BATCH", 7000)
    small, few = made(tmp_path / "small", rows=5_000)
    large, many = made(tmp_path / "large", rows=100_000)
    most = page_data.TOP + 6 * page_data.PER_PAIR + 2 * page_data.NEAR + AUDIT_ROWS
    assert len(few["rows"]) <= most
    assert len(many["rows"]) <= most
    assert len(large) < 1.2 * len(small)
    assert sum(row["audit"] is not None for row in many["rows"]) == AUDIT_ROWS
    ranks = [row["rank"] for row in many["rows"]]
    assert set(range(1, page_data.TOP + 1)) <= set(ranks)
    assert {10_000, 10_001} <= set(ranks), "both sides of the threshold"
    assert all(len(row["path"]) == 6 for row in many["rows"])


def test_the_audit_sample_is_on_the_page_in_its_order(tmp_path: Path) -> None:
    run = locate(str(make_run(tmp_path / "run", rows=5_000, names=("a", "b"))))
    page = read_page(run / "issues.parquet", run / "dynamics.parquet", RunSummary.read(run), [4000, 7, 123], None)
    places = {suspect.instance_id: suspect.audit_place for suspect in page.suspects if suspect.audit_place is not None}
    assert places == {4000: 0, 7: 1, 123: 2}
