"""Tables of issues for other tools: cleanlab's columns, nothing that a spreadsheet computes, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.export import tables
from dynacor_ray.export.tables import FORMATS, export_run
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


@pytest.fixture(scope="module", params=["none flagged", "only flagged", "flagged far apart", "an empty class"])
def any_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run and its number of flagged rows."""
    noise = {"none flagged": 0.0, "only flagged": 1.0}.get(request.param, 0.1)
    names = (*NAMES, "never") if request.param == "an empty class" else NAMES
    run = make_run(tmp_path_factory.mktemp("any") / "run", rows=90, names=names, noise=noise, images=True)
    if request.param == "flagged far apart":  # whole batches without a flagged row, and one that comes last
        table = pq.read_table(run / "issues.parquet")
        pq.write_table(table.take([*range(1, 90), 0]), run / "issues.parquet")
    if names != NAMES:
        table = pq.read_table(run / "issues.parquet")
        for name in ("given_label", "predicted_label"):
            codes = pa.array(table[name].to_numpy() % 3, pa.int32())
            table = table.set_column(table.schema.get_field_index(name), name, codes)
        pq.write_table(table, run / "issues.parquet")
    return run, round(90 * noise)


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_every_valid_run_can_be_exported(
    form: str, flagged: bool, any_run: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_BATCH", 8)
    monkeypatch.setattr(tables, "_IMAGE_BATCH", 8)
    (run, count), out = any_run, tmp_path / "out"
    wanted = count if flagged or form == "label-studio" else 90
    assert export_run(at(run), at(out), flagged, form=form) == wanted
    assert export_run(at(run), at(tmp_path / "fewer"), flagged, limit=0, form=form) == 0
    if form == "json":
        rows = json.loads(out.read_text())
        known = [row for row in issues(run) if row["is_label_issue"] or not flagged]
        assert [row["instance_id"] for row in rows] == [row["instance_id"] for row in known]
        assert all(row["given_label"] == NAMES[same["given_label"]] for row, same in zip(rows, known, strict=True))


def test_an_error_in_the_code_is_not_called_damaged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", rows=60)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "named_classes", lambda *_: pa.array(["x"]).cast(pa.int8()))
        with pytest.raises(pa.ArrowInvalid, match="Failed to parse"):
            export_run(at(run), at(tmp_path / "out.csv"))
    content = bytearray((run / "issues.parquet").read_bytes())
    content[100:400] = b"x" * 300
    (run / "issues.parquet").write_bytes(content)
    with pytest.raises(StorageError, match=r"Corrupt.*remove it and run again"):
        export_run(at(run), at(tmp_path / "out.csv"))


def test_a_spreadsheet_computes_nothing(tmp_path: Path) -> None:
    uris: list[str | None] = ["=cmd|' /C calc'!A0", "+1+1", "@x", "-2", "-x", None, "a=b"] + ["plain"] * 53
    run = make_run(tmp_path / "run", rows=60, names=("=1+1", "dog"), uris=uris)
    export_run(at(run), at(tmp_path / "out.csv"))
    rows = {int(row["instance_id"]): row for row in lines(tmp_path / "out.csv")}
    assert [rows[i]["uri"] for i in range(7)] == ["'=cmd|' /C calc'!A0", "'+1+1", "'@x", "-2", "'-x", "", "a=b"]
    assert {row["given_label"] for row in rows.values()} == {"'=1+1", "dog"}


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    remedy = "--format csv or parquet or json or label-studio or fiftyone or datumaro or datasets"
    with pytest.raises(ConfigError, match=rf"ends with \.csv, \.parquet, \.json, but got .* {remedy}"):
        export_run(at(run), at(tmp_path / "out.xlsx"))
    with pytest.raises(DataError, match="but got feature vectors; say --format json"):
        export_run(at(run), at(tmp_path / "out.json"))
    assert not (tmp_path / "out.json").exists()
    with pytest.raises(ConfigError, match=r"another ending than \.xml, .*/out\.xml; name it \.json"):
        export_run(at(make_run(tmp_path / "images", images=True)), at(tmp_path / "out.xml"), form="label-studio")
    with pytest.raises(DataError, match="FiftyOne, but got feature vectors; export to"):
        export_run(at(run), at(tmp_path / "out"), form="fiftyone")
