"""Finished runs whose data were moved: what needs the data finds them by --data, and no other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynacor_ray.cli import main
from dynacor_ray.core.progress import Progress
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from tests.made_runs import NAMES, at, given_labels, make_run, run_of_data
from tests.opened_sources import png, write


def called(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a table with images, whose data have moved to `now/` and whose packed images are gone."""
    run = make_run(tmp_path / "run", rows=40, images=True)
    labels = [NAMES[code] for code in given_labels(run)]
    (tmp_path / "then").mkdir()
    data = tmp_path / "then" / "t.parquet"
    pq.write_table(pa.table({"image": [png(shade) for shade in range(40)], "label": labels}), data)
    run_of_data(tmp_path, data, "parquet")
    shutil.rmtree(run / "cache")
    packed = ingest(open_source(str(data), SourceOptions()), at(run) / "cache/dataset", 0.0, Progress(quiet=True))
    summary = json.loads((run / "summary.json").read_text())
    summary["data"]["content_hash"] = packed.manifest.content_hash
    (run / "summary.json").write_text(json.dumps(summary))
    shutil.rmtree(run / "cache")
    (tmp_path / "then").rename(tmp_path / "now")
    return run


def test_pictures_come_back_from_where_the_data_are_now(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called("report", run) == 0
    assert "data:image" not in (run / "report.html").read_text()
    assert called("report", run, "--data", tmp_path / "now" / "t.parquet") == 0
    assert "data:image" in (run / "report.html").read_text()
    shutil.rmtree(run / "cache")
    assert called("review", run, "--sample", 5, "--data", tmp_path / "now" / "t.parquet") == 0
    assert "data:image" in (run / "audit_tasks.json").read_text()
    shutil.rmtree(run / "cache")
    assert called("export", run, tmp_path / "f", "--format", "fiftyone") == 2
    assert "the packed images that the run read are gone; pass --data" in capsys.readouterr().err.replace("\n", " ")
    assert called("export", run, tmp_path / "f", "--format", "fiftyone", "--data", tmp_path / "now" / "t.parquet") == 0
    assert len(list((tmp_path / "f" / "images").iterdir())) == 40


@pytest.mark.parametrize(
    "command", [("report",), ("review", "--sample", 5), ("export", "e.csv"), ("clean", "c", "--drop")]
)
def test_other_data_are_refused(
    tmp_path: Path, run: Path, command: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "now" / "t.parquet"
    pq.write_table(pq.read_table(other).slice(1), other)
    words = [tmp_path / word if word in ("e.csv", "c") else word for word in command[1:]]
    assert called(command[0], run, *words, "--data", other) == 2
    assert "Expected the data that the run read, but got other files or times of change" in capsys.readouterr().err
    assert not (tmp_path / "e.csv").exists()


def test_images_of_a_folder_are_named_where_they_are_now(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=20, images=True)
    codes = given_labels(run)
    uris = [f"{NAMES[code]}/{row:03d}.png" for row, code in enumerate(codes)]
    order = sorted(range(20), key=lambda row: uris[row])
    shutil.rmtree(run)
    run = make_run(tmp_path / "run", rows=20, images=True, uris=[uris[row] for row in order])
    for uri in uris:
        write(tmp_path / "then" / uri, png())
    run_of_data(tmp_path, tmp_path / "then", "folder")
    (tmp_path / "then").rename(tmp_path / "now")
    assert called("export", run, tmp_path / "f", "--format", "fiftyone", "--data", tmp_path / "now") == 0
    places = json.loads((tmp_path / "f" / "data.json").read_text())
    assert {Path(place).parents[1] for place in places.values()} == {tmp_path / "now"}
