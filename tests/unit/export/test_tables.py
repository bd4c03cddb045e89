"""Tables of issues for other tools: cleanlab's columns, nothing that a spreadsheet computes, what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError
from dynacor_ray.export.tables import export_run
from tests.made_runs import NAMES, at, issues, lines, make_run


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_have_cleanlab_s_columns_and_names_of_classes(ending: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    known, out = issues(run), tmp_path / f"out.{ending}"
    assert export_run(at(run), at(out)) == 300
    rows = lines(out) if ending == "csv" else pq.read_table(out).to_pylist()
    assert list(rows[0]) == schema.issues_schema().names
    assert {"is_label_issue", "label_quality", "given_label", "predicted_label"} <= set(rows[0])
    for row, same in zip(rows, known, strict=True):
        assert int(row["instance_id"]) == same["instance_id"]
        assert row["given_label"] == NAMES[same["given_label"]]
        assert row["predicted_label"] == NAMES[same["predicted_label"]]
        assert float(row["label_quality"]) == pytest.approx(same["label_quality"])
        assert str(row["is_label_issue"]).lower() == str(same["is_label_issue"]).lower()
    assert export_run(at(run), at(out), flagged=True) == 30
    assert export_run(at(run), at(out), limit=7) == 7


def test_a_spreadsheet_computes_nothing(tmp_path: Path) -> None:
    uris: list[str | None] = ["=cmd|' /C calc'!A0", "+1+1", "@x", "-2", "-x", None, "a=b"] + ["plain"] * 53
    run = make_run(tmp_path / "run", rows=60, names=("=1+1", "dog"), uris=uris)
    export_run(at(run), at(tmp_path / "out.csv"))
    rows = {int(row["instance_id"]): row for row in lines(tmp_path / "out.csv")}
    assert [rows[i]["uri"] for i in range(7)] == ["'=cmd|' /C calc'!A0", "'+1+1", "'@x", "-2", "'-x", "", "a=b"]
    assert {row["given_label"] for row in rows.values()} == {"'=1+1", "dog"}


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    remedy = "--format csv or parquet or label-studio or fiftyone"
    with pytest.raises(ConfigError, match=rf"ends with \.csv, \.parquet, \.json, but got .* {remedy}"):
        export_run(at(run), at(tmp_path / "out.xlsx"))
    with pytest.raises(DataError, match="but got feature vectors; export to"):
        export_run(at(run), at(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()
    with pytest.raises(ConfigError, match=r"another ending than \.xml, .*/out\.xml; name it \.json"):
        export_run(at(make_run(tmp_path / "images", images=True)), at(tmp_path / "out.xml"), form="label-studio")
    with pytest.raises(DataError, match="FiftyOne, but got feature vectors; export to"):
        export_run(at(run), at(tmp_path / "out"), form="fiftyone")
