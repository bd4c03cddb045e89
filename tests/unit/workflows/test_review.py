"""`dynacor review` from the questions to the reviewed rows, with the truth as the person."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import dynacor_ray
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, RunDirectoryError
from dynacor_ray.export.tables import export_run
from dynacor_ray.report.build import make_report
from dynacor_ray.runs.audit import open_round, read_review
from dynacor_ray.runs.records import ASK_FOR_REVIEW, RunSummary
from tests.made_runs import at, issues, lines, make_run
from tests.pages import read

ROWS, FLAGGED, WRONG = 3000, 300, 500
"""Of the rows the run flags the first 300; the first 500 are wrong."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", rows=ROWS)


def wrong_ids(run: Path) -> set[int]:
    return {row["instance_id"] for row in issues(run)[:WRONG]}


def answer(run: Path, unsure: int = 0) -> Path:
    """Fill in the questions: the first `unsure` as such, the others by the truth."""
    wrong, rows = wrong_ids(run), lines(run / "audit.csv")
    for place, row in enumerate(rows):
        row["mark"] = "unsure" if place < unsure else "wrong" if int(row["instance_id"]) in wrong else "right"
    place = run.parent / "answers.csv"
    with place.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return place


def reviewed(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "reviewed_issues.parquet").to_pylist()
    return rows


def page_of(run: Path) -> tuple[str, dict[str, Any]]:
    reader = read((run / "report.html").read_text())
    return " ".join(reader.text.split()), json.loads(reader.raw["script"][0])


def audit_order(run: Path) -> list[int]:
    """The ids of the page's audit sample in its order."""
    rows = [row for row in page_of(run)[1]["rows"] if row["audit"] is not None]
    return [int(row["id"]) for row in sorted(rows, key=lambda row: row["audit"])]


def test_the_same_draw_in_report_csv_and_tasks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=400, images=True)
    shown = open_round(at(run), RunSummary.read(at(run))).ids
    make_report(at(run))
    assert audit_order(run) == shown, "also before anybody asked for a sample"
    result = dynacor_ray.review(str(run), sample=100)
    assert result.drawn is not None
    assert result.drawn.ids == shown == result.questions()["instance_id"].to_pylist() == audit_order(run)
    assert result.sentences()[-1] == f"Then: dynacor review {run} ANSWERED_FILE"
    questions = lines(run / "audit.csv")
    assert [int(row["instance_id"]) for row in questions] == shown
    assert list(questions[0]) == ["instance_id", "uri", "given_label", "predicted_label", "mark"]
    assert {row["mark"] for row in questions} == {""}
    held = {row["instance_id"]: row for row in issues(run)}
    names = ("cat", "dog", "owl")
    assert [row["given_label"] for row in questions] == [names[held[row]["given_label"]] for row in shown]
    tasks = json.loads((run / "audit_tasks.json").read_text())
    assert [task["data"]["instance_id"] for task in tasks] == shown
    other = dynacor_ray.review(str(run), sample=50, seed=9).drawn
    assert other is not None
    assert len(other.ids) == 50
    assert other.ids == audit_order(run) != shown[:50], "a round that nobody answered is drawn anew"


def test_answers_move_the_cut_and_leave_the_run_as_it_was(run: Path) -> None:
    before = (run / "issues.parquet").read_bytes()
    dynacor_ray.review(str(run), sample=100)
    result = dynacor_ray.review(str(run), str(answer(run)))
    found = result.review
    assert found is not None
    assert found.rate is not None
    assert found.rate[1] <= WRONG / ROWS <= found.rate[2]
    rows, wrong = reviewed(run), wrong_ids(run)
    flags = {row["instance_id"] for row in rows if row["is_label_issue"]}
    assert len(flags) == found.num_flagged == sum(found.flagged_by_class)
    f1 = 2 * len(flags & wrong) / (len(flags) + len(wrong))
    assert f1 > 0.9 > 0.75 == 2 * FLAGGED / (FLAGGED + WRONG)
    assert (run / "issues.parquet").read_bytes() == before
    said = "\n".join(result.sentences())
    assert "Noise rate: " in said
    assert f"Flagged: 300 rows before, {found.num_flagged} now." in said
    assert found == read_review(at(run))


def test_the_reviewed_rows_are_ranked_and_say_what_was_answered(run: Path) -> None:
    dynacor_ray.review(str(run), sample=100)
    path = answer(run, unsure=3)
    dynacor_ray.review(str(run), str(path))
    rows, marks = reviewed(run), {int(row["instance_id"]): row["mark"] for row in lines(path)}
    assert pq.read_schema(run / "reviewed_issues.parquet").equals(schema.reviewed_schema())
    assert sorted(row["instance_id"] for row in rows) == list(range(ROWS))
    quality = [row["label_quality"] for row in rows]
    assert quality == sorted(quality)
    assert [row["label_quality"] < 0.5 for row in rows] == [row["is_label_issue"] for row in rows]
    for row in rows:
        mark = marks.get(row["instance_id"])
        assert row["mark"] == mark
        assert mark is None or row["is_label_issue"] == (mark == "wrong")
        assert row["wrong_probability"] == {"wrong": 1.0, "right": 0.0}.get(str(mark), row["wrong_probability"])
    kept = [row["instance_id"] for row in rows if row["mark"] is None]
    assert kept == [row["instance_id"] for row in issues(run) if row["instance_id"] not in marks], "the run's order"
    chance = np.array([row["wrong_probability"] for row in rows])
    assert abs(chance.mean() - WRONG / ROWS) < 0.05


def test_report_and_export_use_the_reviewed_rows(tmp_path: Path) -> None:
    asks = f"A person's answers decide it: {ASK_FOR_REVIEW} --sample 100."
    run = make_run(tmp_path / "run", rows=ROWS, warnings=[asks, "One class is rare."])
    dynacor_ray.review(str(run), sample=100)
    assert asks in page_of(run)[0]
    result = dynacor_ray.review(str(run), str(answer(run)))
    assert result.review is not None
    flagged = result.review.num_flagged
    text, data = page_of(run)
    assert f"{flagged} of 3,000 labels look wrong" in text
    assert "by a person's answers (95%)" in text
    assert "by 100 rows marked" in text
    assert "One class is rare." in text
    assert asks not in text
    assert sum(data["histogram"][0]) == flagged
    assert export_run(at(run), at(tmp_path / "rows.csv"), flagged=True) == flagged
    exported = lines(tmp_path / "rows.csv")
    assert {row["mark"] for row in exported} == {"wrong", ""}
    assert export_run(at(run), at(tmp_path / "rows.parquet"), limit=5) == 5


def test_a_second_round_asks_about_other_rows_and_adds_up(run: Path) -> None:
    first = dynacor_ray.review(str(run), sample=100).drawn
    one = dynacor_ray.review(str(run), str(answer(run))).review
    second = dynacor_ray.review(str(run), sample=100).drawn
    assert first is not None
    assert second is not None
    assert not set(first.ids) & set(second.ids)
    assert audit_order(run) == list(second.ids)
    two = dynacor_ray.review(str(run), str(answer(run))).review
    assert one is not None
    assert two is not None
    assert (one.num_audited, two.num_audited) == (100, 200)
    assert one.rate is not None
    assert two.rate is not None
    assert two.rate[2] - two.rate[1] < one.rate[2] - one.rate[1]


def test_marks_outside_the_sample_count_for_their_rows_only(run: Path, tmp_path: Path) -> None:
    asked = open_round(at(run), RunSummary.read(at(run))).ids
    others = [row for row in issues(run) if row["instance_id"] not in asked]
    right, wrong = others[0]["instance_id"], others[-1]["instance_id"]
    (tmp_path / "marks.csv").write_text(f"instance_id,mark\n{right},right\n{wrong},wrong\n")
    result = dynacor_ray.review(str(run), str(tmp_path / "marks.csv"))
    assert result.review is not None
    assert result.review.rate is None
    assert result.review.cut == result.review.num_flagged == FLAGGED
    flags = {row["instance_id"] for row in reviewed(run) if row["is_label_issue"]}
    assert right not in flags
    assert wrong in flags
    assert "2 rows marked, none of the audit sample" in page_of(run)[0]
    assert any("dynacor review RUN --sample 100" in line for line in result.sentences())


def test_a_person_s_class_is_suggested(run: Path, tmp_path: Path) -> None:
    row = issues(run)[0]
    names = ("cat", "dog", "owl")
    chosen = next(name for name in names if names.index(name) not in (row["given_label"], row["predicted_label"]))
    task = {
        "data": {"instance_id": row["instance_id"], "given_label": names[row["given_label"]]},
        "annotations": [{"result": [{"value": {"choices": [chosen]}}]}],
    }
    (tmp_path / "export.json").write_text(json.dumps([task]))
    dynacor_ray.review(str(run), str(tmp_path / "export.json"))
    assert names[reviewed(run)[0]["predicted_label"]] == chosen
    task["annotations"] = [{"result": [{"value": {"choices": ["emu"]}}]}]
    (tmp_path / "export.json").write_text(json.dumps([task]))
    with pytest.raises(DataError, match=r"classes of .* but got 'emu'"):
        dynacor_ray.review(str(run), str(tmp_path / "export.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instance_id,mark\n99999,wrong\n88888,wrong\n", "instance_id 88888 and 1 more; review the rows of this run"),
        ("instance_id,mark\n1,\n", "answers in .*, but got none; fill in the column mark"),
        (
            "instance_id,mark,given_label\n1,wrong,emu\n",
            "instance_id 1 with given label 'emu', which is '(cat|dog|owl)'",
        ),
    ],
)
def test_answers_that_fit_no_row(text: str, message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        dynacor_ray.review(str(run), str(tmp_path / "marks.csv"))
    assert not (run / "review.json").exists()
    assert not (run / "reviewed_issues.parquet").exists()


def test_a_review_of_other_rows_is_refused(run: Path, tmp_path: Path) -> None:
    """`detect` again with another answer: nobody uses flags that a person gave to other rows."""
    dynacor_ray.review(str(run), sample=100)
    dynacor_ray.review(str(run), str(answer(run)))
    table = pq.read_table(run / "issues.parquet")
    pq.write_table(table.slice(0, ROWS - 1), run / "issues.parquet")
    for use in (
        lambda: make_report(at(run)),
        lambda: export_run(at(run), at(tmp_path / "rows.csv")),
        lambda: dynacor_ray.review(str(run), sample=100),
    ):
        with pytest.raises(RunDirectoryError, match=r"review of the issues\.parquet in .*, but got a .* of other rows"):
            use()


def test_what_is_asked_for_must_be_said(run: Path) -> None:
    with pytest.raises(ConfigError, match="MARKS or --sample, but got neither"):
        dynacor_ray.review(str(run))
    with pytest.raises(ConfigError, match="--sample of at least 1"):
        dynacor_ray.review(str(run), sample=0)
    with pytest.raises(ConfigError, match="--sample for --seed"):
        dynacor_ray.review(str(run), "marks.csv", seed=1)
    with pytest.raises(RunDirectoryError, match="directory of a finished run"):
        dynacor_ray.review(str(run.parent), sample=10)
