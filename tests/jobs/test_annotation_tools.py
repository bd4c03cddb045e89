"""What the libraries of other tools read of our exports, each in an environment of its own.

Datumaro 1.13, FiftyOne 1.22 and Label Studio's SDK 2.1 need other versions of pandas, Pillow and NumPy than this
package is tested with. Each has hundreds of megabytes to fetch: what takes too long is skipped.
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

LABEL_STUDIO = """
import json, sys
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface
folder = sys.argv[1]
tasks, config = json.load(open(folder + "/tasks.json")), open(folder + "/tasks.xml").read()
interface = LabelInterface(config)
for number, task in enumerate(tasks, 1):
    assert interface.validate_task({"data": task["data"]})
    assert interface.validate_prediction(task["predictions"][0])
    chosen = task["predictions"][0]["result"]
    task |= {"id": number, "annotations": [{"id": number, "completed_by": {"email": "a@b"}, "result": chosen}]}
json.dump(tasks, open(folder + "/export.json", "w"))
converter = Converter(config=config, project_dir=None, download_resources=False)
for form in ("JSON_MIN", "CSV"):
    converter.convert(folder + "/export.json", folder + "/" + form, form, is_dir=False)
print(json.dumps([{"tasks": len(tasks)}]))
"""
INSTALL_SECONDS, RUN_SECONDS = 420, 180

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS + 60)]


def told(script: str, package: str, home: Path, *words: Path) -> list[dict[str, Any]]:
    """What a script prints that runs in a new environment with one package; skips where that cannot be had."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home / "venv"], check=True)
    python = home / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    try:  # in the user's home, whose cache spares the next time most of it
        subprocess.run([*pip, "install", "--no-compile", package], env=environment, check=True, timeout=INSTALL_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{package} cannot be installed: {error}")
    environment |= {"HOME": str(home), "FIFTYONE_DO_NOT_TRACK": "true", "FIFTYONE_DISABLE_SERVICES": "1"}
    said = home / "said.txt"
    with said.open("w") as output:  # a pipe would not end before every process that the tool leaves behind
        command = [python, "-c", script, *words]
        errors = subprocess.STDOUT
        done = subprocess.run(
            command, env=environment, cwd=home, stdout=output, stderr=errors, check=False, timeout=RUN_SECONDS
        )
    assert done.returncode == 0, said.read_text()[-3000:]
    answers = [line for line in said.read_text().splitlines() if line.startswith("[{")]
    rows: list[dict[str, Any]] = json.loads(answers[-1])
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


def test_label_studio_s_own_library_reads_tasks_and_its_exports_are_answers(tmp_path: Path) -> None:
    names = ("cat", 'a "b" <dog>', "owl")
    run, out = make_run(tmp_path / "run", names=names, images=True), tmp_path / "tasks.json"
    export_run(at(run), at(out), limit=3)
    assert told(LABEL_STUDIO, "label-studio-sdk>=2.1", tmp_path, tmp_path) == [{"tasks": 3}]
    known = {row["instance_id"]: names[row["predicted_label"]] for row in issues(run)[:3]}
    for form in ("JSON_MIN", "CSV"):
        (made,) = [path for path in (tmp_path / form).rglob("*") if path.is_file()]
        assert {one.row: one.label for one in read_answer_file(at(made))} == known
