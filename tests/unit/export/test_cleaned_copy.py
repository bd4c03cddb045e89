"""Cleaned copies of data: the flagged rows left out or relabeled, all else as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from dynacor_ray.core.storage import locate
from dynacor_ray.export.cleaned_copy import clean_run
from dynacor_ray.report.answers import Answers
from dynacor_ray.workflows.review import review
from tests.made_runs import NAMES, at, given_labels, issues, lines, make_run, run_of_data

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
    run, flagged = run_of_data(tmp_path, data, "parquet")
    done = clean_run(at(run), at(out), action, all_flagged=True)
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
    run, flagged = run_of_data(tmp_path, data, "parquet", ids.tolist())
    marks = {
        flagged[0]["instance_id"]: "right",
        flagged[1]["instance_id"]: "unsure",
        flagged[2]["instance_id"]: "wrong",
    }
    done = clean_run(at(run), at(tmp_path / "clean"), "drop", Answers(marks))
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
        file.write("\r\n")
        writer.writerows(rows[20:])
        file.write("only one field\r\n")
    run, flagged = run_of_data(tmp_path, data, "table")
    clean_run(at(run), at(out), action, all_flagged=True)
    wanted = {row["instance_id"]: NAMES[row["predicted_label"]] for row in flagged}
    content = out.read_bytes()
    assert content.startswith(b"\xef\xbb\xbfuri,")
    assert content.count(b"\n") == content.count(b"\r\n") + content.count(b'text""\n')
    if action == "relabel":
        changed = zip(data.read_bytes().splitlines(), content.splitlines(), strict=True)
        assert sum(one != other for one, other in changed) == len(wanted)
    else:
        assert set(content.splitlines(keepends=True)) <= set(data.read_bytes().splitlines(keepends=True))
    with out.open(newline="", encoding="utf-8-sig") as file:
        found = list(csv.reader(file))
    assert found[0] == ["uri", "label", "note"]
    new = [[uri, wanted.get(i, label), note] for i, (uri, label, note) in enumerate(rows)]
    kept = [row for i, row in enumerate(new) if action == "relabel" or i not in wanted]
    assert [row for row in found[1:] if len(row) == 3] == kept
    assert ["only one field"] in found
    with pytest.raises(StorageError, match=r"beside the table, but got .* relative paths such as 'images/"):
        clean_run(at(run), at(tmp_path / "elsewhere" / "clean.csv"), action, all_flagged=True)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_keeps_encoding_ends_of_lines_and_quotes(encoding: str, end: str, tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run").tolist()
    text = end.join(['uri,"label",note', *(f'a/{i}.png,"{NAMES[code]}",ü "x"' for i, code in enumerate(codes)), ""])
    data, out = tmp_path / "data.csv", tmp_path / "clean.csv"
    data.write_bytes(text.encode(encoding))
    run, flagged = run_of_data(tmp_path, data, "table")
    clean_run(at(run), at(out), "relabel", all_flagged=True)
    new = codes.copy()
    for row in flagged:
        new[row["instance_id"]] = row["predicted_label"]
    wanted = end.join(['uri,"label",note', *(f'a/{i}.png,"{NAMES[code]}",ü "x"' for i, code in enumerate(new)), ""])
    assert out.read_bytes() == wanted.encode(encoding)


def test_a_cleaned_table_of_features(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run")
    lines = [f"{i};{i};{i};{i},5;{NAMES[code]}" for i, code in enumerate(codes.tolist())]
    data = tmp_path / "data.csv"
    data.write_text("f0;f1;f2;f3;label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    run, flagged = run_of_data(tmp_path, data, "parquet")
    clean_run(at(run), at(tmp_path / "clean.csv"), "drop")
    dropped = {row["instance_id"] for row in flagged}
    kept = [line for i, line in enumerate(lines) if i not in dropped]
    assert (tmp_path / "clean.csv").read_text().splitlines() == ["f0;f1;f2;f3;label", *kept]
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(f'{{"path": "{i}.png", "label": "{NAMES[code]}"}}\n' for i, code in enumerate(codes.tolist()))
    )
    run, _ = run_of_data(tmp_path, data, "table")
    with pytest.raises(DataError, match=r"a table in text or parquet files, but got JSON; use dynacor export"):
        clean_run(at(run), at(tmp_path / "clean.jsonl"), "drop")
    data = tmp_path / "tasks.csv"
    tasks = "".join(f"{i},1,{i}.png,{NAMES[code]},{i}\n" for i, code in enumerate(codes.tolist()))
    data.write_text("annotation_id,annotator,image,choice,id\n" + tasks)
    run, _ = run_of_data(tmp_path, data, "table")
    with pytest.raises(DataError, match=r"a table in text or parquet files, but got an export of Label Studio"):
        clean_run(at(run), at(tmp_path / "clean2.csv"), "drop")


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
    run, flagged = run_of_data(tmp_path, data, "folder")
    return run, data, flagged, paths


def images_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("hard_links", [False, True])
def test_a_folder_of_images_without_the_flagged(pictures: Any, hard_links: bool, tmp_path: Path) -> None:
    run, data, flagged, paths = pictures
    before, out = images_in(data), tmp_path / "clean"
    done = clean_run(at(run), at(out), "drop", Answers({flagged[0]["instance_id"]: "right"}), hard_links)
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
    run, flagged = run_of_data(tmp_path, data, "folder")
    done = clean_run(at(run), at(tmp_path / "clean"), "relabel", all_flagged=True)
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
        clean_run(at(run), at(data / "clean"), "drop")
    remote = locate("memory://clean")
    with pytest.raises(StorageError, match=r"on this machine for --hard-links, but got folder data from .*memory"):
        clean_run(at(run), remote, "drop", hard_links=True)
    assert clean_run(at(run), remote, "drop").changed == 6
    copied = remote.filesystem.get_file_info(pafs.FileSelector(remote.path, recursive=True))
    assert sum(info.is_file for info in copied) == 54
    (data / paths[0]).unlink()
    with pytest.raises(DataError, match="the data that the run read, but got other files"):
        clean_run(at(run), at(tmp_path / "clean"), "drop")
    assert not (tmp_path / "clean").exists()


def test_a_folder_of_parquet_files_that_cannot_be_copied(tmp_path: Path) -> None:
    """Paths in its tables start at the folder itself; and what lies in it would be read as data."""
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run")
    data = tmp_path / "data"
    data.mkdir()
    columns = {"uri": [f"images/{i}.png" for i in range(60)], "label": [NAMES[code] for code in codes]}
    pq.write_table(pa.table(columns), data / "part.parquet")
    run, _ = run_of_data(tmp_path, data, "table")
    with pytest.raises(StorageError, match=r"a place outside of .*/data, but got .*/data/clean"):
        clean_run(at(run), at(data / "clean"), "drop")
    with pytest.raises(StorageError, match=r"absolute paths or URIs in a folder of tables, but got .*'images/"):
        clean_run(at(run), at(tmp_path / "clean"), "drop")


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
    run, _ = run_of_data(tmp_path, data, "parquet")
    done = clean_run(at(run), at(tmp_path / "a.parquet"), "relabel", all_flagged=True)
    assert (done.changed, done.left) == (9, 1)
    with pytest.raises(StorageError, match="which exists; choose another"):
        clean_run(at(run), at(tmp_path / "a.parquet"), "relabel", all_flagged=True)
    with pytest.raises(StorageError, match="which exists"):
        clean_run(at(run), at(data), "drop")


def test_other_data_than_the_run_read_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=100)
    codes, data = given_labels(tmp_path / "run"), tmp_path / "data.parquet"
    features = schema.fixed_size_list(np.zeros((100, 2), np.float32))
    labels = [NAMES[c] for c in codes]
    pq.write_table(pa.table({"feature": features, "label": labels[::-1]}), data)
    run, _ = run_of_data(tmp_path, data, "parquet")
    with pytest.raises(DataError, match="the labels of its rows are others now, but got '"):
        clean_run(at(run), at(tmp_path / "clean.parquet"), "drop")
    assert not (tmp_path / "clean.parquet").exists()
    pq.write_table(pa.table({"feature": features, "label": labels, "more": labels}), data)
    with pytest.raises(DataError, match="the data that the run read, but got other files"):
        clean_run(at(run), at(tmp_path / "clean.parquet"), "drop")
    summary = json.loads((run / "summary.json").read_text())
    summary["data"]["source"] = "demo"
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(DataError, match="but got data of kind 'demo'; use dynacor export"):
        clean_run(at(run), at(tmp_path / "clean.parquet"), "drop")


def test_only_confirmed_rows_are_relabeled_and_with_the_person_s_class(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run").tolist()
    features = schema.fixed_size_list(np.zeros((60, 2), np.float32))
    data, out = tmp_path / "data.parquet", tmp_path / "clean.parquet"
    pq.write_table(pa.table({"feature": features, "label": [NAMES[code] for code in codes]}), data)
    run, flagged = run_of_data(tmp_path, data, "parquet")
    with pytest.raises(ConfigError, match="rows that a person confirmed to be wrong, but got none; review them"):
        clean_run(at(run), at(out), "relabel")
    own, suggested, right = flagged[:3]
    (unflagged,) = [row for row in issues(run) if not row["is_label_issue"]][:1]
    chosen = next(i for i in range(3) if i not in (own["given_label"], own["predicted_label"]))
    other = (unflagged["given_label"] + 1) % 3
    answers = {own["instance_id"]: "wrong", suggested["instance_id"]: "wrong", right["instance_id"]: "right"}
    labels = {own["instance_id"]: NAMES[chosen], unflagged["instance_id"]: NAMES[other]}
    answers |= {unflagged["instance_id"]: "wrong"}
    done = clean_run(at(run), at(out), "relabel", Answers(answers, labels))
    assert (done.changed, done.left) == (3, 4)
    new = {own["instance_id"]: chosen, unflagged["instance_id"]: other}
    new |= {suggested["instance_id"]: suggested["predicted_label"]}
    assert pq.read_table(out)["label"].to_pylist() == [NAMES[new.get(i, code)] for i, code in enumerate(codes)]


def test_answers_of_a_review_are_used(tmp_path: Path) -> None:
    make_run(tmp_path / "run", rows=60)
    codes = given_labels(tmp_path / "run").tolist()
    features = schema.fixed_size_list(np.zeros((60, 2), np.float32))
    data, out = tmp_path / "data.parquet", tmp_path / "clean.parquet"
    pq.write_table(pa.table({"feature": features, "label": [NAMES[code] for code in codes]}), data)
    run, flagged = run_of_data(tmp_path, data, "parquet")
    row = flagged[0]
    chosen = next(i for i in range(3) if i not in (row["given_label"], row["predicted_label"]))
    (tmp_path / "marks.csv").write_text(f"instance_id;mark;label\n{row['instance_id']};wrong;{NAMES[chosen]}\n")
    review(str(run), str(tmp_path / "marks.csv"))
    assert clean_run(at(run), at(out), "relabel").changed == 1
    assert pq.read_table(out)["label"][row["instance_id"]].as_py() == NAMES[chosen]


def test_moved_data_are_named_by_their_new_place(pictures: Any, tmp_path: Path) -> None:
    run, data, flagged, paths = pictures
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"but got nothing at .*data; say where they are by --data"):
        clean_run(at(run), at(tmp_path / "clean"), "drop")
    done = clean_run(at(run), at(tmp_path / "clean"), "drop", data=str(tmp_path / "elsewhere"))
    assert images_in(tmp_path / "clean") == {
        path: path for path in paths if path not in {row["uri"] for row in flagged}
    }
    assert done.changed == len(flagged)
    (tmp_path / "elsewhere" / paths[0]).write_text("another image")
    with pytest.raises(DataError, match=r"the data that the run read, but got other files .* at .*elsewhere"):
        clean_run(at(run), at(tmp_path / "again"), "drop", data=str(tmp_path / "elsewhere"))
