"""The page of a training: what it says, and that nothing from data is markup."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dynacor_ray.report.training_page import chart, headline, training_page
from dynacor_ray.report.training_summary import best_epoch, detection_text, learned_text, print_training
from tests.pages import read


def summary_of(name: str = "cat", tested: bool = True, **changes: Any) -> dict[str, Any]:
    accuracy = [0.5, 0.75, 0.6] if tested else [None] * 3
    epochs = [
        {"epoch": at + 1, "loss": 2.0 - at / 2, "train_agreement": 0.4 + at / 10, "test_accuracy": value}
        for at, value in enumerate(accuracy)
    ]
    return {
        **{"versions": {"dynacor_ray": "0.1.0"}, "config": {"data": name, "loss": "gce"}, "encoder": name},
        "loss": {"name": "gce", "gce_q": 0.7, "gce_truncate_from": None, "sce_alpha": 0.1},
        **{"method": None, "detection": None},
        "data": {"uri": name, "num_rows": 1200, "class_names": [name, "dog"], "quarantined": 3},
        **{"action": "drop", "num_flagged": 200, "num_learned": 1000, "num_tested": 400, "judged_by": "true labels"},
        **{"epochs": epochs, "best": {"epoch": 2, "test_accuracy": 0.75} if tested else None},
        **{"last": {"epoch": 3, "test_accuracy": accuracy[-1]}, "seconds": {"train": 2.0, "total": 3.0}},
    } | changes


def test_it_says_what_was_measured_and_how() -> None:
    page = training_page(summary_of())
    for text in (
        "60.0% of the test rows",
        "75.0%",
        "Epoch 2. It is chosen by the test rows",
        "1,000 rows; 200 flagged",
    ):
        assert text in page
    assert "GCE, gce q 0.7</bdi>" in page
    assert "sce alpha" not in page, "settings of the other losses are not read"


DIVIDED: dict[str, Any] = {
    "action": None,
    "method": {"name": "ddyna_s", "warm_up": 5, "penalize_confidence": False, "by_dynamics": True},
    "detection": {
        **{"by": "division", "epoch": 2, "epoch_by": "test accuracy", "num_flagged": 1234},
        "evaluation": {"f1": 0.875},
    },
}


def test_a_method_says_what_it_takes_for_wrong_and_who_chose() -> None:
    said = "1,234 rows, as divided in epoch 2, chosen by the test rows; F1 87.5%"
    page = training_page(summary_of(**DIVIDED))
    assert said in page
    assert "DDyna-S, warm up 5, penalize confidence no</bdi>" in page
    told = {"by": "dynamics", "clustering_epoch": 3, "num_flagged": 10, "evaluation": None}
    assert detection_text(summary_of(**DIVIDED | {"detection": told})) == "10 rows, by its dynamics (Eq. 9)"
    stream = io.StringIO()
    print_training(summary_of(**DIVIDED), "runs/a", Console(file=stream, width=200))
    assert said in stream.getvalue()
    assert "issues.parquet" in stream.getvalue()


def test_the_best_epoch_is_the_first_of_equals() -> None:
    assert best_epoch([{"test_accuracy": value} for value in (0.5, 0.7, 0.7)]) == 1
    assert best_epoch([{"epoch": 1}]) is None


def test_without_test_rows_it_says_so() -> None:
    summary = summary_of(tested=False)
    assert headline(summary) == "A classifier of 2 classes, not tested"
    assert "Best epoch" not in training_page(summary)


@pytest.mark.parametrize("evil", ["<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "' onmouseover='alert(3)\" x=\""])
def test_text_from_data_is_never_markup(evil: str) -> None:
    tame, wild = (read(training_page(summary_of(name))).elements for name in ("cat", evil))
    assert [(tag, sorted(attributes)) for tag, attributes in wild] == [(t, sorted(a)) for t, a in tame]


def test_it_has_no_script_and_allows_none() -> None:
    page = training_page(summary_of())
    assert "script-src &#39;none&#39;" in page
    assert "<script" not in page


def test_lines_of_the_chart_lie_inside_it() -> None:
    drawn = chart({"a": [0.0, 1.0, 0.5], "b": [0.2, 0.2, 0.2]})
    assert [line["name"] for line in drawn["lines"]] == ["a", "b"]
    points = [point for line in drawn["lines"] for point in line["path"][1:].split(" L")]
    assert all(40 <= float(x) <= 392 and 10 <= float(y) <= 196 for x, y in (point.split() for point in points))
    assert [number for _, number in drawn["columns"]] == [1, 2, 3]


def test_one_epoch_is_a_point() -> None:
    (line,) = chart({"a": [0.3]})["lines"]
    assert line["path"] == f"M{line['end'][0]} {line['end'][1]}"


@pytest.mark.parametrize("action", [None, "drop", "relabel", "weigh"])
def test_every_action_has_words(action: str | None) -> None:
    assert learned_text(summary_of(action=action)).startswith("1,000 rows")


def test_the_terminal_shows_last_and_best() -> None:
    told = io.StringIO()
    print_training(summary_of(), "runs/a", Console(file=told, width=120))
    assert "60.0%" in told.getvalue()
    assert "75.0% (epoch 2)" in told.getvalue()
    assert "predictions.parquet" in told.getvalue()
