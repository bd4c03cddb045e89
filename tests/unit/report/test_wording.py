"""Sentences of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dynacor_ray.report import wording
from dynacor_ray.report.page_model import Suspect
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import summary_of


def suspect(**changes: Any) -> Suspect:
    values: dict[str, Any] = {
        **{"instance_id": 1, "uri": None, "rank": 1, "given_label": 0, "predicted_label": 1, "is_label_issue": True},
        **{
            "audit_place": None,
            "label_quality": 0.1,
            "noise_score": 0.9,
            "mean_margin": -1.0,
            "predicted_share": 0.75,
        },
    }
    return Suspect(**values | changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "Seen as dog in 3 of 4 epochs."),
        ({"margins": (-1.0,) * 4}, "Seen as dog in 3 of 4 epochs; cat never came first."),
        (
            {"margins": (-1.0, -1.0, -1.0, 1.0)},
            "Seen as dog in 3 of 4 epochs; cat came first only from epoch 4 on: memorized.",
        ),
        ({"margins": (1.0, -1.0, -1.0, -1.0)}, "Seen as dog in 3 of 4 epochs; cat came first in 1."),
        ({"predicted_label": 0}, "Seen as cat in 3 of 4 epochs, uncertain."),
        ({"predicted_label": 0, "is_label_issue": False}, "Seen as cat in 3 of 4 epochs, as its label says."),
    ],
)
def test_why(changes: dict[str, Any], text: str) -> None:
    assert wording.explain_row(suspect(**changes), ["cat", "dog"], 4) == text


def told(**changes: Any) -> RunSummary:
    calm: dict[str, Any] = {"estimated_noise_rate": None, "noise_rate_range": None, "num_corrupted": 20}
    return summary_of(**calm | changes)


def test_notes_name_rare_classes() -> None:
    assert wording.warnings(told()) == []
    rare = [{"class": name, "rows": 29, "flagged": 0} for name in "abcdef"]
    (note,) = wording.warnings(told(classes=rare))
    assert note.startswith("6 classes have fewer than 30 rows, too few to be reliable: a, b, c, d, e and others.")


@pytest.mark.parametrize(("recall", "word"), [(0.95, "high"), (0.7, "fair"), (0.2, "low")])
def test_trust_in_a_word(recall: float, word: str) -> None:
    said = wording.trust(told(corrupted_recall=recall))
    assert said["word"] == word
    assert said["text"].startswith("of the 20 errors")


@pytest.mark.parametrize(
    ("changes", "word", "why"),
    [
        ({"flagged_share": 0.93, "corrupted_recall": 0.96}, "low", "93% of all rows finds that share of them"),
        ({"flagged_share": 0.0002}, "fair", "Next to nothing is flagged: the labels agree"),
        ({"estimated_noise_rate": 0.02, "noise_rate_range": [0.0, 0.2]}, "fair", "is open"),
        ({"flagged_share": 0.0, "corrupted_recall": 0.15}, "fair", "flagged, so few of them are: the labels agree"),
        (
            {
                "flagged_share": 0.0,
                "corrupted_recall": 0.15,
                "estimated_noise_rate": 0.0,
                "noise_rate_range": [0.0, 1.0],
            },
            "low",
            "will be missed",
        ),
        ({"label_noise": {"found_recall": 0.7}}, "fair", "Weighted by class pair as the errors in the data: 70%"),
        ({"label_noise": {"found_recall": 0.97}}, "high", "Weighted by class pair as the errors in the data: 97%"),
    ],
)
def test_trust_is_high_only_where_it_is_earned(changes: dict[str, Any], word: str, why: str) -> None:
    said = wording.trust(told(**{"corrupted_recall": 0.97} | changes))
    assert said["word"] == word
    assert why in said["text"]


def test_headline_says_when_the_answer_is_open() -> None:
    assert wording.headline(told(num_flagged=0)) == "None of 1,000,000 labels looks wrong"
    open_range = told(num_flagged=3, estimated_noise_rate=0.001, noise_rate_range=[0.0, 0.18])
    assert wording.headline(open_range) == "3 of 1,000,000 labels look wrong; between 0% and 18% may be"
    none = replace(open_range, num_flagged=0)
    assert wording.headline(none) == "None of 1,000,000 labels looks wrong; up to 18% may be"


def test_remarks_on_classes() -> None:
    assert wording.class_remark({"rows": 0, "flagged": 0}) == "no rows"
    assert wording.class_remark({"rows": 29, "flagged": 29}) == "rare"
    assert wording.class_remark({"rows": 30, "flagged": 16}) == "more than half flagged"
    assert wording.class_remark({"rows": 30, "flagged": 15}) == ""


def test_a_row_that_is_the_same_as_another() -> None:
    assert wording.twin_note(suspect()) == ""
    assert wording.twin_note(suspect(duplicate_of=3)) == " The same as row 3."
    assert wording.twin_note(suspect(duplicate_of=1)) == " Other rows are the same."
