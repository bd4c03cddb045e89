"""A sweep's choices, summary and table."""

from __future__ import annotations

import pytest

from dynacor_ray.report.figures import heat_map
from dynacor_ray.runs.sweep_records import choose_trial, trials_table
from tests.judgments import FAILED, TRIALS, sweep_summary_of, trial


def test_each_rule_chooses_by_its_own_score_and_never_by_the_truth() -> None:
    assert choose_trial(TRIALS, "validation_metric") is TRIALS[1]
    assert choose_trial(TRIALS, "noise_rate") is TRIALS[0]
    assert choose_trial([TRIALS[0], TRIALS[0]], "noise_rate") is TRIALS[0]


def test_the_summary_compares_the_choice_with_the_default_and_the_oracle() -> None:
    summary = sweep_summary_of(TRIALS)
    assert summary["chosen"]["options"] == {"gamma": 0.1, "alpha": 5.0}
    assert summary["default"]["f1"] == 0.7
    assert summary["best"]["f1"] == 0.8
    found = {rule: (named["options"]["alpha"], named["epoch"]) for rule, named in summary["rules"].items()}
    assert found == {"validation_metric": (5.0, 1), "noise_rate": (0.5, 0)}, "each with its own epoch"
    assert summary["chosen"]["noise_rate"] == pytest.approx(-0.2)
    assert summary["chosen"]["f1_by_epoch_choice"]["oracle"] == pytest.approx(0.7)
    assert summary["failed"] == FAILED
    assert sweep_summary_of(TRIALS, default={"gamma": 0.3, "alpha": 0.5})["default"] is None


def test_without_truth_there_is_no_oracle() -> None:
    trials = [trial(0.1, 0.5, 0.2, 0.1, None)]
    summary = sweep_summary_of(trials)
    assert summary["best"] is None
    table = trials_table(trials, [], summary)
    assert table["f1"].to_pylist() == [None]


def test_the_table_has_a_row_per_trial_best_first_and_failed_ones_last() -> None:
    table = trials_table(TRIALS, FAILED, sweep_summary_of(TRIALS))
    assert table["validation_metric"].to_pylist() == [0.3, 0.2, 0.1, None]
    assert table["status"].to_pylist() == ["finished"] * 3 + ["failed"]
    assert table["message"].to_pylist()[-1] == "disk\x1b full"
    assert table["is_chosen"].to_pylist() == [True, False, False, False]
    assert table["is_default"].to_pylist() == [False, True, False, False]
    assert table["f1_by_oracle"].to_pylist()[:3] == pytest.approx([0.7, 0.8, 0.9])


@pytest.mark.parametrize("f1", [None, 0.7])
def test_a_rule_s_score_is_not_taken_for_the_true_noise_rate(f1: float | None) -> None:
    trials = [trial(0.1, 0.5, 0.2, 0.1, f1)]
    table = trials_table(trials, [], sweep_summary_of(trials, select="noise_rate"))
    assert table["noise_rate"].to_pylist() == [pytest.approx(-0.1)], "|0.2 flagged - 0.1 estimated|"
    assert table["true_noise_rate"].to_pylist() == [None if f1 is None else 0.4]
    assert heat_map(table.to_pylist(), "noise_rate")
