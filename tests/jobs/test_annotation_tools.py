"""What the importers of other tools read of our exports, each in an environment of its own.

Datumaro 1.13 and FiftyOne 1.22 need other versions of pandas, Pillow and NumPy than this package is tested with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.export.tables import export_run
from dynacor_ray.report.answer_files import read_answer_file
from tests.made_runs import NAMES, at, issues, make_run

DATUMARO = """
import json, sys
from datumaro import AnnotationType, Dataset
folder, out = sys.argv[1:]
found = Dataset.import_from(folder, "datumaro")
names = [label.name for label in found.categories()[AnnotationType.label]]
rows = [
    {"id": item.id, "shape": item.media.data.shape, "label": names[item.annotations[0].label],
     "attributes": dict(item.annotations[0].attributes)}
    for item in found
]
first = next(iter(found))
label = first.annotations[0]
found.put(first.wrap(annotations=[label.wrap(label=(label.label + 1) % len(names))]))
found.export(out, "datumaro", save_media=False)
print(json.dumps(rows))
"""
FIFTYONE = """
import json, sys
from fiftyone.utils.data.importers import FiftyOneImageClassificationDatasetImporter
reader = FiftyOneImageClassificationDatasetImporter(dataset_dir=sys.argv[1], data_path="data.json")
with reader:
    rows = [
        {"file": path, "label": label.label, "confidence": label.confidence, "id": label["instance_id"]}
        for path, _, label in reader
    ]
print(json.dumps(rows))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def told(script: str, package: str, home: Path, *words: Path) -> list[dict[str, Any]]:
    """What a script prints that runs in a new environment with one package; skips where that cannot be had."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HOME": str(home), "FIFTYONE_DO_NOT_TRACK": "true"}
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    python = home / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    if subprocess.run(pip, env=environment, check=False).returncode:
        pytest.skip(f"{package} cannot be installed")
    done = subprocess.run(
        [python, "-c", script, *words], env=environment, capture_output=True, text=True, check=False, cwd=home
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def test_datumaro_reads_its_format_and_changed_classes_come_back(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", rows=60, images=True), tmp_path / "set"
    export_run(at(run), at(out), flagged=True, form="datumaro")
    rows = told(DATUMARO, "datumaro>=1.13", tmp_path, out, tmp_path / "changed")
    known = {row["instance_id"]: row for row in issues(run)}
    assert len(rows) == 6
    for row in rows:
        same = known[int(row["id"])]
        assert row["label"] == NAMES[same["given_label"]]
        assert row["shape"] == [16, 24, 3]
        assert row["attributes"]["label_quality"] == pytest.approx(same["label_quality"])
    answers = {one.row: one.label for one in read_answer_file(at(tmp_path / "changed/annotations/default.json"))}
    given = {row: NAMES[known[row]["given_label"]] for row in answers if row is not None}
    assert sum(answers[row] != label for row, label in given.items()) == 1


def test_fiftyone_reads_its_format(tmp_path: Path) -> None:
    """Its importer needs no database."""
    run, out = make_run(tmp_path / "run", rows=60, images=True), tmp_path / "set"
    export_run(at(run), at(out), flagged=True, form="fiftyone")
    rows = told(FIFTYONE, "fiftyone>=1.22", tmp_path, out)
    known = {row["instance_id"]: row for row in issues(run)}
    assert len(rows) == 6
    for row in rows:
        same = known[row["id"]]
        assert Path(row["file"]).is_file()
        assert row["label"] == NAMES[same["given_label"]]
        assert row["confidence"] == pytest.approx(same["label_quality"])
