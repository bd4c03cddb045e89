"""A person's answers read from files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.report.reviews import Answers, read_answers, read_marks, same_name
from tests.made_runs import at


def test_answers_of_a_csv(tmp_path: Path) -> None:
    place = tmp_path / "marks.csv"
    place.write_text(
        'note,instance_id,mark,given_label\nx,1,Wrong ,cat\ny,2,,dog\nz,3,right,"a ""b"", c"\nz,3,right,\n'
    )
    assert read_answers(at(place)) == Answers({1: "wrong", 3: "right"}, {1: "cat", 3: 'a "b", c'})
    assert read_marks(at(place)) == {1: "wrong", 3: "right"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,mark\n1,wrong\n", "columns instance_id and mark"),
        ("instance_id,mark\nx,wrong\n", "columns instance_id and mark"),
        ("instance_id,mark\n1,bad\n", "one of wrong, right, unsure as mark of instance_id 1, but got 'bad'"),
        ("instance_id,mark\n,wrong\n", "as mark of instance_id None"),
        ("instance_id,mark\n1,wrong\n1,right\n", "'wrong' and 'right' for instance_id 1; keep one"),
        ("", "columns instance_id and mark"),
    ],
)
def test_bad_marks(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_answers(at(tmp_path / "marks.csv"))


def task(row: int, given: str, *choices: str, cancelled: bool = False) -> dict[str, object]:
    results = [[{"type": "choices", "value": {"choices": [choice]}}] for choice in choices]
    annotations = [{"result": result, "was_cancelled": cancelled} for result in results]
    return {"data": {"instance_id": row, "given_label": given}, "annotations": annotations}


def test_answers_of_label_studio(tmp_path: Path) -> None:
    """The last annotation counts; a choice other than the given label says wrong, and what is right."""
    tasks = [task(4, "cat", "dog", "owl"), task(5, "cat", "cat"), task(6, "cat"), task(7, "cat", "dog", cancelled=True)]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    answers = read_answers(at(tmp_path / "export.json"))
    assert answers.marks == {4: "wrong", 5: "right"}
    assert answers.labels == {4: "owl"}
    assert answers.given == {4: "cat", 5: "cat"}


@pytest.mark.parametrize(
    "text", ["[", "{}x", "[1]", '[{"annotations": [{"result": [{"value": {"choices": ["a"]}}]}]}]']
)
def test_another_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(DataError, match=r"Label Studio's export in .*export the annotated tasks"):
        read_answers(at(tmp_path / "export.json"))


def test_names_are_the_same_in_spite_of_what_makes_them_safe() -> None:
    assert same_name("'=cmd", "=cmd")
    assert same_name("a\x1b", "a?")
    assert not same_name("cat", "dog")
