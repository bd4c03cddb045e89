"""A person's marks measure precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.report.build import make_report
from dynacor_ray.report.page_reader import SAMPLE, flagged_ids, random_sample
from dynacor_ray.report.reviews import review_run, review_sentences, wilson_interval
from tests.made_runs import at, issues, make_run


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
