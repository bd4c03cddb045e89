"""`dynacor export`, `review` and `clean` as they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray import cli
from dynacor_ray.core import schema
from tests.made_runs import NAMES, given_labels, make_run, run_of_data


def status_of(*args: str) -> Any:
    with pytest.raises(SystemExit) as left:
        cli.main(args)
    return left.value.code


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", rows=100)
    data, out = tmp_path / "data.parquet", tmp_path / "clean.parquet"
    features = schema.fixed_size_list(np.zeros((100, 2), np.float32))
    pq.write_table(pa.table({"feature": features, "label": [NAMES[c] for c in given_labels(tmp_path / "run")]}), data)
    run, flagged = run_of_data(tmp_path, data, "parquet")
    assert status_of("export", str(run), str(tmp_path / "a.csv"), "--flagged") == 0
    assert capsys.readouterr().out == f"10 rows written to {tmp_path}/a.csv\n"
    assert status_of("export", str(run), str(tmp_path / "a"), "--format", "parquet", "--limit", "3") == 0
    assert capsys.readouterr().out == f"3 rows written to {tmp_path}/a\n"
    assert pq.read_table(tmp_path / "a").num_rows == 3
    marks = tmp_path / "marks.csv"
    marks.write_text(f"instance_id,mark\n{flagged[0]['instance_id']},right\n")
    assert status_of("review", str(run), str(marks)) == 0
    said = capsys.readouterr().out
    assert said.startswith("1 row marked: 0 wrong, 1 right, 0 unsure; 1 of them on the audit sample.\n")
    assert f"Written to {run}: reviewed_issues.parquet, review.json, report.html." in said
    assert status_of("review", str(run)) == 2
    assert "Expected MARKS or --sample, but got neither" in capsys.readouterr().err
    for name in ("review.json", "reviewed_issues.parquet"):
        (run / name).unlink()
    assert status_of("clean", str(run), str(out)) == 2
    assert "Expected --drop or --relabel, but got neither" in capsys.readouterr().err
    assert status_of("clean", str(run), str(out), "--drop", "--marks", str(marks)) == 0
    said = capsys.readouterr().out
    assert said == f"Left out: 9; flagged and kept: 1. Copy: {out}\nChanges: {out}.changes.csv\n"
    assert pq.read_table(out).num_rows == 91
    assert status_of("clean", str(run), str(tmp_path / "b.parquet"), "--drop", "--all-flagged") == 2
    assert "Expected --relabel for --all-flagged, but got --drop" in capsys.readouterr().err
    assert status_of("clean", str(run), str(tmp_path / "b.parquet"), "--relabel", "--marks", str(marks)) == 2
    assert "rows that a person confirmed to be wrong, but got none; review them" in capsys.readouterr().err
    assert status_of("clean", str(run), str(tmp_path / "b.parquet"), "--relabel", "--all-flagged") == 0
    assert capsys.readouterr().out.startswith("Relabeled: 10; flagged and kept: 0. Copy: ")
