"""From a finished run to other tools and back: exports, a person's marks, cleaned copies."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dynacor_ray import cli
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.export.cleaned_copy import apply_run
from dynacor_ray.export.tables import export_run
from dynacor_ray.report.build import make_report
from dynacor_ray.report.page_reader import SAMPLE, flagged_ids, random_sample
from dynacor_ray.report.reviews import read_marks, review_run, review_sentences, wilson_interval
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source
from dynacor_ray.workflows.results import DetectResult, load
from tests.made_runs import make_run

NAMES = ("cat", "dog", "owl")


def at(path: Path) -> Location:
    return locate(str(path))


def issues(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "issues.parquet").to_pylist()
    return rows


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------------------- export


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


def test_label_studio_tasks(tmp_path: Path) -> None:
    names = ("cat", 'a "quoted" <dog>', "owl")
    run, out = make_run(tmp_path / "run", names=names, images=True), tmp_path / "tasks.json"
    assert export_run(at(run), at(out)) == 30
    tasks, known = json.loads(out.read_text()), issues(run)
    for task, row in zip(tasks, known[:30], strict=True):
        assert task["data"]["instance_id"] == row["instance_id"]
        assert task["data"]["given_label"] == names[row["given_label"]]
        assert task["data"]["image"].startswith("data:image/jpeg;base64,"), "the data hold the images"
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert result["value"] == {"choices": [names[row["predicted_label"]]]}
        assert 0.5 < prediction["score"] <= 1
    config = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    image, choices = config.find("Image"), config.find("Choices")
    assert image is not None
    assert choices is not None
    assert (result["to_name"], result["from_name"]) == (image.get("name"), choices.get("name"))
    assert image.get("value") == "$image"
    assert [choice.get("value") for choice in choices] == list(names)


def test_label_studio_reads_images_of_their_own_by_path(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", images=True), tmp_path / "tasks.json"
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"data": summary["data"] | {"source": "folder"}}))
    assert export_run(at(run), at(out), limit=2, prefix="/data/local-files/?d=") == 2
    first = json.loads(out.read_text())[0]["data"]
    assert first["image"] == f"/data/local-files/?d={first['uri']}"


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
    with pytest.raises(DataError, match="the packed images that the run read are gone; run the same dynacor detect"):
        export_run(at(run), at(out), form="fiftyone")
    assert not out.exists()


# --------------------------------------------------------------------------------------------------------------- review


def test_wilson_s_interval() -> None:
    """Against published values: 0 of 10, 10 of 10, 50 of 100."""
    assert np.round(wilson_interval(0, 10), 4).tolist() == [0.0, 0.2775]
    assert np.round(wilson_interval(10, 10), 4).tolist() == [0.7225, 1.0]
    assert np.round(wilson_interval(50, 100), 4).tolist() == [0.4038, 0.5962]


def test_marks_measure_precision(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=3000)
    flagged = flagged_ids(at(run) / "issues.parquet")
    sample = random_sample(flagged, 0)
    assert len(sample) == SAMPLE
    others = [i for i in flagged.tolist() if i not in sample][:10]
    unflagged = [i for i in range(3000) if i not in flagged][:4]
    marks = [(i, "wrong" if place < 35 else "right") for place, i in enumerate(sample[:40].tolist())]
    marks += [(int(sample[50]), "unsure"), *((i, "Wrong ") for i in others), *((i, "right") for i in unflagged)]
    path = tmp_path / "reviewed.csv"
    text = "".join(f"{i},{mark}\n" for i, mark in marks)
    path.write_text(f"instance_id,mark\n{text}{int(sample[60])},\n")
    review = review_run(at(run), at(path))
    low, high = wilson_interval(35, 40)
    assert review["sampled"] == {"rows": 40, "wrong": 35, "share": 0.875, "low": low, "high": high}
    assert (review["flagged"]["rows"], review["flagged"]["wrong"]) == (50, 45)
    assert (review["not_flagged"]["rows"], review["not_flagged"]["wrong"]) == (4, 0)
    assert review["marked"] == {"wrong": 45, "right": 9, "unsure": 1}
    assert json.loads((run / "review.json").read_text()) == review
    said = review_sentences(review)
    assert "Precision, by the random sample of the flagged: 35 of 40, 87.5% (95%: 73.9% to 94.5%)." in said
    page = Path(make_report(at(run)).path).read_text()
    assert "35 of 40 rows of a random sample of the flagged were really wrong: between 73.9% and 94.5%" in page


def test_marks_outside_the_sample_say_less(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=3000)
    sample = random_sample(flagged_ids(at(run) / "issues.parquet"), 0)
    other = next(row["instance_id"] for row in issues(run) if row["instance_id"] not in sample)
    (tmp_path / "marks.csv").write_text(f"mark,note,instance_id\nwrong,=1,{other}\n")
    review = review_run(at(run), at(tmp_path / "marks.csv"))
    assert review["sampled"] is None
    assert "which alone is representative of all flagged rows" in review_sentences(review)[-1]
    assert "not a random choice" in Path(make_report(at(run)).path).read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,mark\n1,wrong\n", "columns instance_id and mark"),
        ("instance_id,mark\nx,wrong\n", "columns instance_id and mark"),
        ("instance_id,mark\n1,bad\n", "one of wrong, right, unsure as mark of instance_id 1, but got 'bad'"),
        ("instance_id,mark\n1,wrong\n1,right\n", "'wrong' and 'right' for instance_id 1"),
        ("instance_id,mark\n99999,wrong\n88888,wrong\n", "instance_id 88888 and 1 more"),
        ("", "columns instance_id and mark"),
    ],
)
def test_bad_marks(text: str, message: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        review_run(at(run), at(tmp_path / "marks.csv"))
    assert not (run / "review.json").exists()


# ---------------------------------------------------------------------------------------------------------------- apply


def made(tmp_path: Path, data: Path, source: str, ids: list[int] | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """A run of `data`, whose given labels are those of `make_run`; and its flagged rows."""
    run = tmp_path / "run"
    config = DetectConfig(data=str(data))
    summary = json.loads((run / "summary.json").read_text())
    summary["config"] = vars(config)
    summary["data"]["source"] = source
    (run / "summary.json").write_text(json.dumps(summary))
    found = open_source(str(data), SourceOptions.of(vars(config))).fingerprint()
    (run / "config.json").write_text(json.dumps({"identity": {"options": {}, "data": found}}))
    if ids is not None:
        table = pq.read_table(run / "issues.parquet")
        own = pa.array([ids[i] for i in table["instance_id"].to_pylist()], pa.int64())
        pq.write_table(table.set_column(0, "instance_id", own), run / "issues.parquet")
    return run, [row for row in issues(run) if row["is_label_issue"]]


def given_labels(run: Path) -> np.ndarray:
    table = pq.read_table(run / "issues.parquet").sort_by("instance_id")
    labels: np.ndarray = table["given_label"].to_numpy()
    return labels


LABELS = {
    "text": lambda codes: pa.array([NAMES[c] for c in codes]),
    "dictionary": lambda codes: pa.array([NAMES[c] for c in codes]).dictionary_encode(),
    "integer": lambda codes: pa.array(codes, pa.int8()),
    "float": lambda codes: pa.array(codes, pa.float32()),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("action", ["drop", "relabel"])
def test_a_cleaned_parquet_file(kind: str, action: Any, tmp_path: Path) -> None:
    names = NAMES if kind in ("text", "dictionary") else ("0", "1", "2")
    make_run(tmp_path / "run", rows=1500, names=names)
    codes = given_labels(tmp_path / "run")
    features = schema.fixed_size_list(np.arange(3000, dtype=np.float32).reshape(1500, 2))
    table = pa.table({"feature": features, "label": LABELS[kind](codes), "note": [f"n{i}" for i in range(1500)]})
    table = table.replace_schema_metadata({"kept": "yes"})
    data, out = tmp_path / "data.parquet", tmp_path / "clean.parquet"
    pq.write_table(table, data, row_group_size=400)
    before = data.read_bytes()
    run, flagged = made(tmp_path, data, "parquet")
    done = apply_run(at(run), at(out), action)
    assert (done.changed, done.left) == (150, 0)
    assert data.read_bytes() == before
    clean = pq.read_table(out)
    assert clean.schema.equals(table.schema, check_metadata=False)
    assert clean.schema.metadata[b"kept"] == b"yes"
    wanted = {row["instance_id"]: row["predicted_label"] for row in flagged}
    if action == "drop":
        assert clean.equals(table.filter(pa.array([i not in wanted for i in range(1500)])))
    else:
        new = [wanted.get(i, code) for i, code in enumerate(codes.tolist())]
        assert clean["label"].to_pylist() == LABELS[kind](new).to_pylist()
        assert clean.drop_columns("label").equals(table.drop_columns("label"))
    log = lines(Path(str(done.log)))
    assert [int(row["instance_id"]) for row in log] == sorted(wanted)
    assert {row["action"] for row in log} == {action}
    assert all(
        row["new_label"] == (names[wanted[int(row["instance_id"])]] if action == "relabel" else "") for row in log
    )


def test_a_cleaned_folder_with_ids_of_its_own_and_marks(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=600)
    codes = given_labels(tmp_path / "run")
    ids = np.random.default_rng(1).choice(10**9, 600, replace=False)
    data = tmp_path / "data"
    data.mkdir()
    for part in range(2):
        mine = slice(300 * part, 300 * (part + 1))
        features = schema.fixed_size_list(np.zeros((300, 2), np.float32))
        columns = {"instance_id": ids[mine], "feature": features, "label": [NAMES[c] for c in codes[mine]]}
        pq.write_table(pa.table(columns), data / f"part-{part}.parquet")
    run, flagged = made(tmp_path, data, "parquet", ids.tolist())
    marks = {
        flagged[0]["instance_id"]: "right",
        flagged[1]["instance_id"]: "unsure",
        flagged[2]["instance_id"]: "wrong",
    }
    done = apply_run(at(run), at(tmp_path / "clean"), "drop", marks)
    assert (done.changed, done.left) == (58, 2)
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == ["part-0.parquet", "part-1.parquet"]
    kept = set(pq.read_table(tmp_path / "clean")["instance_id"].to_pylist())
    assert kept == set(ids.tolist()) - {row["instance_id"] for row in flagged[2:]}


@pytest.mark.parametrize("action", ["drop", "relabel"])
def test_a_cleaned_csv(action: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run")
    rows = [[f"images/{i}.png", NAMES[code], 'odd, "text"\nin two lines'] for i, code in enumerate(codes.tolist())]
    data, out = tmp_path / "data.csv", tmp_path / "clean.csv"
    with data.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "note"])
        writer.writerows(rows[:20])
        file.write("\r\nonly one field\r\n")
        writer.writerows(rows[20:])
    run, flagged = made(tmp_path, data, "table")
    apply_run(at(run), at(out), action)
    wanted = {row["instance_id"]: NAMES[row["predicted_label"]] for row in flagged}
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found[0] == ["uri", "label", "note"]
    new = [[uri, wanted.get(i, label), note] for i, (uri, label, note) in enumerate(rows)]
    kept = [row for i, row in enumerate(new) if action == "relabel" or i not in wanted]
    assert [row for row in found[1:] if len(row) == 3] == kept
    assert ["only one field"] in found
    with pytest.raises(StorageError, match=r"beside the table, but got .* relative paths such as 'images/"):
        apply_run(at(run), at(tmp_path / "elsewhere" / "clean.csv"), action)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path, list[dict[str, Any]], list[str]]:
    """A run of an image folder, its data, flagged rows, and the paths of all rows in their order."""
    make_run(tmp_path / "run", rows=60)
    codes, data = given_labels(tmp_path / "run"), tmp_path / "data"
    paths = sorted(f"{NAMES[code]}/{'deep/' * (i % 2)}{i // 20}-{i % 20}.png" for i, code in enumerate(codes.tolist()))
    for path in paths:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text(path)
    (data / "notes.txt").write_text("no row")
    table = pq.read_table(tmp_path / "run" / "issues.parquet")
    given = np.array([NAMES.index(path.partition("/")[0]) for path in paths])[table["instance_id"].to_numpy()]
    suggested = np.where(table["is_label_issue"].to_numpy(), (given + 1) % 3, given)
    uris = [paths[i] for i in table["instance_id"].to_pylist()]
    for name, values in {"given_label": given, "predicted_label": suggested}.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values.astype(np.int32)))
    table = table.set_column(table.schema.get_field_index("uri"), "uri", pa.array(uris))
    pq.write_table(table, tmp_path / "run" / "issues.parquet")
    run, flagged = made(tmp_path, data, "folder")
    return run, data, flagged, paths


def images_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hard_links", [False, True])
def test_a_folder_of_images_without_the_flagged(pictures: Any, hard_links: bool, tmp_path: Path) -> None:
    run, data, flagged, paths = pictures
    before, out = images_in(data), tmp_path / "clean"
    done = apply_run(at(run), at(out), "drop", {flagged[0]["instance_id"]: "right"}, hard_links)
    assert (done.changed, done.left) == (5, 1)
    gone = {row["uri"] for row in flagged[1:]}
    assert images_in(out) == {path: path for path in paths if path not in gone}
    assert images_in(data) == before
    assert all((out / path).samefile(data / path) == hard_links for path in images_in(out))
    log = lines(tmp_path / "clean.changes.csv")
    assert {row["uri"] for row in log} == gone
    assert {(row["action"], row["new_label"], row["new_uri"]) for row in log} == {("drop", "", "")}


def test_relabeled_images_move_to_the_other_class_and_replace_none(pictures: Any, tmp_path: Path) -> None:
    run, data, flagged, paths = pictures
    row = flagged[0]
    wanted = NAMES[row["predicted_label"]] + "/" + row["uri"].partition("/")[2]
    (data / wanted).write_text("another image of that name")
    ids = {path: i for i, path in enumerate(sorted([*paths, wanted]))}
    table = pq.read_table(run / "issues.parquet")
    moved_ids = pa.array([ids[uri] for uri in table["uri"].to_pylist()], pa.int64())
    pq.write_table(table.set_column(0, "instance_id", moved_ids), run / "issues.parquet")
    run, flagged = made(tmp_path, data, "folder")
    done = apply_run(at(run), at(tmp_path / "clean"), "relabel")
    assert (done.changed, done.left) == (6, 0)
    found = images_in(tmp_path / "clean")
    assert len(found) == 61
    assert found[wanted] == "another image of that name"
    for change in lines(tmp_path / "clean.changes.csv"):
        assert change["new_uri"].startswith(f"{change['new_label']}/")
        assert change["uri"] not in found
        assert found[change["new_uri"]] == change["uri"], "the image itself is as it was"
    assert wanted.replace(".png", "-2.png") in found


def test_a_folder_that_cannot_be_copied(pictures: Any, tmp_path: Path) -> None:
    run, data, _, paths = pictures
    with pytest.raises(StorageError, match=r"a place outside of .*/data, but got .*/data/clean"):
        apply_run(at(run), at(data / "clean"), "drop")
    remote = locate("memory://clean")
    with pytest.raises(StorageError, match=r"on this machine for --hard-links, but got folder data from .*memory"):
        apply_run(at(run), remote, "drop", hard_links=True)
    assert apply_run(at(run), remote, "drop").changed == 6
    copied = remote.filesystem.get_file_info(pafs.FileSelector(remote.path, recursive=True))
    assert sum(info.is_file for info in copied) == 54
    (data / paths[0]).unlink()
    with pytest.raises(DataError, match="the data that the run read, but got other files"):
        apply_run(at(run), at(tmp_path / "clean"), "drop")
    assert not (tmp_path / "clean").exists()


def test_a_folder_of_parquet_files_that_cannot_be_copied(tmp_path: Path) -> None:
    """Paths in its tables start at the folder itself; and what lies in it would be read as data."""
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run")
    data = tmp_path / "data"
    data.mkdir()
    columns = {"uri": [f"images/{i}.png" for i in range(60)], "label": [NAMES[code] for code in codes]}
    pq.write_table(pa.table(columns), data / "part.parquet")
    run, _ = made(tmp_path, data, "table")
    with pytest.raises(StorageError, match=r"a place outside of .*/data, but got .*/data/clean"):
        apply_run(at(run), at(data / "clean"), "drop")
    with pytest.raises(StorageError, match=r"absolute paths or URIs in a folder of tables, but got .*'images/"):
        apply_run(at(run), at(tmp_path / "clean"), "drop")


def test_rows_that_suggest_no_other_class_stay(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=100)
    place = tmp_path / "run" / "issues.parquet"
    table = pq.read_table(place)
    predicted = table["predicted_label"].to_pylist()
    predicted[0] = table["given_label"][0].as_py()
    pq.write_table(table.set_column(3, "predicted_label", pa.array(predicted, pa.int32())), place)
    data = tmp_path / "data.parquet"
    features = schema.fixed_size_list(np.zeros((100, 2), np.float32))
    pq.write_table(pa.table({"feature": features, "label": [NAMES[c] for c in given_labels(tmp_path / "run")]}), data)
    run, _ = made(tmp_path, data, "parquet")
    done = apply_run(at(run), at(tmp_path / "a.parquet"), "relabel")
    assert (done.changed, done.left) == (9, 1)
    with pytest.raises(StorageError, match="which exists; choose another"):
        apply_run(at(run), at(tmp_path / "a.parquet"), "relabel")
    with pytest.raises(StorageError, match="which exists"):
        apply_run(at(run), at(data), "drop")


def test_other_data_than_the_run_read_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=100)
    codes, data = given_labels(tmp_path / "run"), tmp_path / "data.parquet"
    features = schema.fixed_size_list(np.zeros((100, 2), np.float32))
    labels = [NAMES[c] for c in codes]
    pq.write_table(pa.table({"feature": features, "label": labels[::-1]}), data)
    run, _ = made(tmp_path, data, "parquet")
    with pytest.raises(DataError, match="the labels of its rows are others now, but got '"):
        apply_run(at(run), at(tmp_path / "clean.parquet"), "drop")
    assert not (tmp_path / "clean.parquet").exists()
    pq.write_table(pa.table({"feature": features, "label": labels, "more": labels}), data)
    with pytest.raises(DataError, match="the data that the run read, but got other files"):
        apply_run(at(run), at(tmp_path / "clean.parquet"), "drop")
    summary = json.loads((run / "summary.json").read_text())
    summary["data"]["source"] = "demo"
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match="but got data of kind 'demo'; use dynacor export"):
        apply_run(at(run), at(tmp_path / "clean.parquet"), "drop")


# --------------------------------------------------------------------------------------------------------- command line


def status_of(*args: str) -> Any:
    with pytest.raises(SystemExit) as left:
        cli.main(args)
    return left.value.code


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", rows=100)
    data, out = tmp_path / "data.parquet", tmp_path / "clean.parquet"
    features = schema.fixed_size_list(np.zeros((100, 2), np.float32))
    pq.write_table(pa.table({"feature": features, "label": [NAMES[c] for c in given_labels(tmp_path / "run")]}), data)
    run, flagged = made(tmp_path, data, "parquet")
    assert status_of("export", str(run), str(tmp_path / "a.csv"), "--flagged") == 0
    assert capsys.readouterr().out == f"10 rows written to {tmp_path}/a.csv\n"
    assert status_of("export", str(run), str(tmp_path / "a"), "--format", "parquet", "--limit", "3") == 0
    assert capsys.readouterr().out == f"3 rows written to {tmp_path}/a\n"
    assert pq.read_table(tmp_path / "a").num_rows == 3
    marks = tmp_path / "marks.csv"
    marks.write_text(f"instance_id,mark\n{flagged[0]['instance_id']},right\n")
    assert status_of("review", str(run), str(marks)) == 0
    assert capsys.readouterr().out.startswith("1 rows marked: 0 wrong, 1 right, 0 unsure.\n")
    assert status_of("apply", str(run), str(out)) == 2
    assert "Expected --drop or --relabel, but got neither" in capsys.readouterr().err
    assert status_of("apply", str(run), str(out), "--drop", "--marks", str(marks)) == 0
    said = capsys.readouterr().out
    assert said == f"9 rows left out, 1 flagged rows stay: {out}\nChanges: {out}.changes.csv\n"
    assert pq.read_table(out).num_rows == 91
    assert read_marks(at(marks)) == {flagged[0]["instance_id"]: "right"}


# ------------------------------------------------------------------------------------------------------------- cleanlab


def test_cleanlab_trains_without_the_flagged_rows(tmp_path: Path) -> None:
    """The README's snippet: `CleanLearning` takes our rows as they are, and leaves the flagged ones out."""
    classification = pytest.importorskip("cleanlab.classification")
    from sklearn.linear_model import LogisticRegression

    run = at(make_run(tmp_path / "run"))
    result = DetectResult(run, (run / "summary.json").read_json())
    table = result.to_pandas().sort_values("instance_id", ignore_index=True)
    labels, features = table["given_label"].to_numpy(), np.random.default_rng(0).normal(size=(300, 2))
    learner = classification.CleanLearning(LogisticRegression())
    learner.fit(features, labels, label_issues=table)
    kept = ~table["is_label_issue"].to_numpy()
    alone = LogisticRegression().fit(features[kept], labels[kept])
    assert np.allclose(learner.clf.coef_, alone.coef_)


def test_datalab_has_the_same_label_issues(tmp_path: Path) -> None:
    """Rows in the order of their ids, whatever that of the file; a class that nobody gave can still be suggested."""
    pytest.importorskip("datasets")
    run = make_run(tmp_path / "run")
    table = pq.read_table(run / "issues.parquet")
    suggested = pa.array([3, *table["predicted_label"].to_pylist()[1:]], pa.int32())
    table = table.set_column(table.schema.get_field_index("predicted_label"), "predicted_label", suggested)
    pq.write_table(table, run / "issues.parquet")
    summary = json.loads((run / "summary.json").read_text())
    summary["classes"].append(summary["classes"][0] | {"class": "yak", "rows": 0})
    (run / "summary.json").write_text(json.dumps(summary))
    result = load(str(run))
    lab = result.to_datalab()
    found, known = lab.get_issues("label"), result.to_pandas().sort_values("instance_id", ignore_index=True)
    names = np.array([*NAMES, "yak"])
    assert found["is_label_issue"].tolist() == known["is_label_issue"].tolist()
    assert found["label_score"].tolist() == known["label_quality"].tolist()
    assert found["given_label"].tolist() == names[known["given_label"]].tolist()
    assert found["predicted_label"].tolist() == names[known["predicted_label"]].tolist()
    assert "yak" in found["predicted_label"].tolist()
    assert lab.get_issue_summary("label")["num_issues"].tolist() == [30]
    assert lab.data["instance_id"] == list(range(300))
