"""A data set for FiftyOne, with the images or the places where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, StorageError
from dynacor_ray.export.tables import export_run
from tests.made_runs import NAMES, at, issues, make_run


def fiftyone_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """What FiftyOne reads: the documented keys of `labels.json`, and of `data.json` a file for each of them."""
    labels, places = json.loads((folder / "labels.json").read_text()), json.loads((folder / "data.json").read_text())
    assert set(labels) == {"classes", "labels"}
    assert list(labels["labels"]) == list(places)
    rows: dict[str, dict[str, Any]] = labels["labels"]
    for key, row in rows.items():
        assert set(row) == {"label", "confidence", "attributes"}
        assert row["label"] in labels["classes"]
        assert Path(places[key]).is_file()
        row["file"] = Path(places[key])
    return rows


def test_fiftyone_gets_the_images_that_the_data_hold(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", images=True), tmp_path / "fiftyone"
    assert export_run(at(run), at(out), flagged=True, form="fiftyone") == 30
    rows, known = fiftyone_rows(out), issues(run)
    assert list(rows) == [str(row["instance_id"]) for row in known[:30]]
    packed = {row["instance_id"]: row["image"] for row in pq.read_table(run / "cache/dataset/a1").to_pylist()}
    for row, same in zip(rows.values(), known, strict=False):
        assert row["file"].read_bytes() == packed[same["instance_id"]]
        assert row["file"].name == f"{same['instance_id']}.png"
        assert row["label"] == NAMES[same["given_label"]]
        assert row["confidence"] == same["label_quality"]
        assert row["attributes"]["predicted_label"] == NAMES[same["predicted_label"]]
        assert row["attributes"]["is_label_issue"] is True
        assert set(row["attributes"]) == set(schema.issues_schema().names) - {"given_label"}
    with pytest.raises(StorageError, match="a new folder for FiftyOne"):
        export_run(at(run), at(out), form="fiftyone")


@pytest.mark.parametrize(("source", "name"), [("folder", ""), ("table", "table.csv"), ("table", "")])
def test_fiftyone_reads_images_of_their_own_where_they_are(source: str, name: str, tmp_path: Path) -> None:
    """Relative paths start at the folder of a table, or at a folder of tables itself."""
    run, out = make_run(tmp_path / "run", rows=60, images=True), tmp_path / "fiftyone"
    summary = json.loads((run / "summary.json").read_text())
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for i in range(1, 60):  # the first is gone: its packed copy stands in
        (data / "images" / f"{i:07d}.png").write_bytes(b"image")
    uri = str(data / name)
    (run / "summary.json").write_text(json.dumps(summary | {"data": summary["data"] | {"source": source, "uri": uri}}))
    assert export_run(at(run), at(out), form="fiftyone") == 60
    rows = fiftyone_rows(out)
    assert rows["0"]["file"].read_bytes().startswith(b"\x89PNG")
    assert all(rows[str(i)]["file"] == data / "images" / f"{i:07d}.png" for i in range(1, 60))


def test_fiftyone_without_images(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", images=True), tmp_path / "fiftyone"
    (run / "cache/dataset/manifest.json").unlink()
    with pytest.raises(DataError, match="the packed images that the run read are gone; pass --data with their place"):
        export_run(at(run), at(out), form="fiftyone")
    assert not out.exists()
