"""A data set for Datumaro, in its documented format; `tests/jobs/test_annotation_tools.py` has Datumaro read it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynacor_ray.core.errors import DataError, StorageError
from dynacor_ray.export.tables import export_run
from dynacor_ray.report.answer_files import FileAnswer, read_answer_file
from tests.made_runs import NAMES, at, issues, make_run


def test_datumaro_gets_images_labels_and_results(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", rows=60, images=True), tmp_path / "set"
    summary = json.loads((run / "summary.json").read_text())
    summary["data"] |= {"source": "table", "uri": str(tmp_path / "table.csv")}
    (run / "summary.json").write_text(json.dumps(summary))
    known = issues(run)[:6]
    own = known[0]["instance_id"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"{own:07d}.png").write_bytes(b"of its own")
    assert export_run(at(run), at(out), flagged=True, form="datumaro") == 6
    held = json.loads((out / "annotations/default.json").read_text())
    assert [label["name"] for label in held["categories"]["label"]["labels"]] == list(NAMES)
    assert [item["id"] for item in held["items"]] == [str(row["instance_id"]) for row in known]
    packed = {row["instance_id"]: row["image"] for row in pq.read_table(run / "cache/dataset/a1").to_pylist()}
    packed[own] = b"of its own"
    for item, row in zip(held["items"], known, strict=True):
        (label,) = item["annotations"]
        assert (out / "images/default" / item["image"]["path"]).read_bytes() == packed[row["instance_id"]]
        assert label["label_id"] == row["given_label"]
        assert label["attributes"]["predicted_label"] == NAMES[row["predicted_label"]]
        assert label["attributes"]["label_quality"] == row["label_quality"]
    answers = read_answer_file(at(out / "annotations/default.json"))
    assert answers == [FileAnswer(r["instance_id"], label=NAMES[r["given_label"]], by_person=False) for r in known]
    with pytest.raises(StorageError, match="a new folder for Datumaro"):
        export_run(at(run), at(out), form="datumaro")


def test_datumaro_needs_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images to show in Datumaro"):
        export_run(at(make_run(tmp_path / "run", rows=60)), at(tmp_path / "set"), form="datumaro")
    assert not (tmp_path / "set").exists()
