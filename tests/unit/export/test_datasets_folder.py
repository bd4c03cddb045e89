"""A folder for Hugging Face's `datasets`, read by `datasets` itself."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core.errors import StorageError
from dynacor_ray.export.images import image_files
from dynacor_ray.export.tables import export_run
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import NAMES, at, issues, make_run


def loaded(folder: Path, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_datasets_reads_images_and_names_of_classes(tmp_path: Path) -> None:
    names = (*NAMES, "never seen")
    run, out = make_run(tmp_path / "run", rows=60, names=names, images=True), tmp_path / "folder"
    summary = json.loads((run / "summary.json").read_text())
    summary["data"] |= {"source": "table", "uri": str(tmp_path / "table.csv")}
    (run / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "images").mkdir()
    own = tmp_path / "images" / "0000007.png"
    assert export_run(at(run), at(out), form="datasets") == 60
    found, known = loaded(out, tmp_path / "cache"), issues(run)
    assert found.features["given_label"].names == list(names)
    assert found["instance_id"][:] == [row["instance_id"] for row in known]
    for name in ("given_label", "predicted_label", "is_label_issue", "label_quality"):
        assert found[name][:] == [row[name] for row in known]
    first = known[0]["instance_id"]
    assert found[0]["image"].getpixel((0, 0)) == (first * 37 % 256, first * 59 % 256, first * 83 % 256)
    found[0]["image"].save(own)
    uris: dict[int, str | None] = {7: "images/0000007.png", 8: "images/0000008.png", 9: None}
    assert image_files(at(run), RunSummary.read(at(run)).data, uris) == {7: str(own)}
    with pytest.raises(StorageError, match="a new folder for datasets"):
        export_run(at(run), at(out), form="datasets")


def test_without_images(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", rows=60), tmp_path / "folder"
    assert export_run(at(run), at(out), flagged=True, form="datasets") == 6
    assert loaded(out, tmp_path / "cache").column_names == list(issues(run)[0])
