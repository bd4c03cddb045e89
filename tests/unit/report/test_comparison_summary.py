"""A comparison's numbers against NumPy, its table of judgments, its headings."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.ground_truth.metrics import detection_metrics
from dynacor_ray.report.comparison_summary import build_comparison, comparison_table, noise_headings
from dynacor_ray.runs.records import AVERAGED
from tests.judgments import DETECTORS, NOISES, failed, judged, many, row_of


def test_means_and_deviations_are_those_of_numpy() -> None:
    judgments = many(NOISES, DETECTORS, 3)
    summary = build_comparison(judgments)
    assert [row["title"] for row in summary["detectors"]] == list(DETECTORS), "in the order given"
    assert summary["noises"] == list(NOISES)
    for row in summary["detectors"]:
        means = []
        for noise in NOISES:
            mine = [j for j in judgments if j.detector == row["detector"] and j.noise == noise]
            f1 = [j.metrics["f1"] for j in mine]
            cell = row["noises"][noise]
            assert cell["f1"] == pytest.approx({"mean": np.mean(f1), "std": np.std(f1, ddof=1), "seeds": 3})
            assert cell["seconds"] == pytest.approx({"mean": 3.0, "std": 1.0, "seeds": 3})
            assert cell["flagged_share"]["mean"] == pytest.approx(0.25)
            assert (cell["seeds"], cell["failed"]) == (3, 0)
            means.append(np.mean(f1))
        assert row["average"]["f1"] == pytest.approx(np.mean(means))
        assert set(row["average"]) == set(AVERAGED)


def test_the_best_per_noise_has_the_highest_mean_and_ties_are_all_named() -> None:
    judgments = [judged(0.5, title="A"), judged(0.75, title="B"), judged(0.75, title="C")]
    judgments += [judged(0.9, title="A", noise="x"), judged(0.8, title="B", noise="x")]
    summary = build_comparison(judgments)
    assert summary["best"] == {"given": ["b", "c"], "x": ["a"]}
    assert summary["best_average"] == ["b"], "c has no value for x, and no average"


def test_one_seed_has_no_deviation() -> None:
    assert row_of(build_comparison([judged(0.5)]), "aum")["noises"]["given"]["f1"] == {
        "mean": 0.5,
        "std": None,
        "seeds": 1,
    }


def test_a_missing_cell_leaves_no_average_over_the_others() -> None:
    judgments = [judged(0.9), judged(0.5, title="CL"), judged(0.7, title="CL", noise="x")]
    summary = build_comparison(judgments)
    missing = row_of(summary, "aum")["noises"]["x"]
    assert missing["f1"] == {"mean": None, "std": None, "seeds": 0}
    assert (missing["seeds"], missing["failed"]) == (0, 0)
    assert set(row_of(summary, "aum")["average"].values()) == {None}
    assert row_of(summary, "cl")["average"]["f1"] == pytest.approx(0.6)


def test_undefined_metrics_are_left_out_one_by_one() -> None:
    whole = judged(0.5)
    partly = judged(0.7, seed=1, metrics=whole.metrics | {"precision": None, "auroc": float("nan")})
    cell = row_of(build_comparison([whole, partly]), "aum")["noises"]["given"]
    assert cell["precision"] == {"mean": 0.5, "std": None, "seeds": 1}
    assert cell["auroc"] == {"mean": 0.5, "std": None, "seeds": 1}
    assert cell["f1"]["seeds"] == cell["seeds"] == 2


def test_failures_are_listed_and_count_in_no_mean() -> None:
    lost = failed("no memory", seed=1, flagged_share=0.0, seconds=1000.0)
    summary = build_comparison([judged(0.5), lost])
    assert summary["failures"] == [
        {"detector": "aum", "title": "AUM", "noise": "given", "seed": 1, "message": "no memory"}
    ]
    cell = row_of(summary, "aum")["noises"]["given"]
    assert (cell["seeds"], cell["failed"]) == (1, 1)
    assert cell["seconds"]["mean"] == 2.0
    assert cell["flagged_share"]["mean"] == 0.25


def test_a_detector_that_only_failed_keeps_its_row() -> None:
    summary = build_comparison([failed("no memory"), judged(0.5, title="CL")])
    assert [row["detector"] for row in summary["detectors"]] == ["aum", "cl"]
    assert summary["best"] == {"given": ["cl"]}


def test_two_judgments_of_one_cell_are_refused() -> None:
    with pytest.raises(DataError, match="two of 'aum' for noise 'given' and seed 0; keep one"):
        build_comparison([judged(0.5), judged(0.6)])


def test_the_summary_is_valid_json_and_keeps_what_it_is_given() -> None:
    judgments = [*many(NOISES[:2], DETECTORS[:2], 2), failed("disk", title="CL")]
    summary = build_comparison(judgments, config={"a": 1}, versions={"b": "2"}, seconds={"total": 3.0})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["config"], summary["versions"], summary["seconds"]) == ({"a": 1}, {"b": "2"}, {"total": 3.0})
    assert summary["seeds"] == {"given": [0, 1], "symmetric:0.6": [0, 1]}


def test_the_metrics_of_the_evaluation_are_read_under_their_names() -> None:
    flags, quality = np.array([True, False, False]), np.array([0.1, 0.2, 0.9])
    metrics = detection_metrics(flags, quality, np.array([True, True, False]))
    row = comparison_table([judged(None, metrics=metrics)]).to_pylist()[0]
    assert {name: row[name] for name in metrics} == metrics


def test_the_table_has_a_row_per_judgment_and_the_same_types_when_nothing_is_known() -> None:
    judgments = [judged(0.5), failed("disk", seed=1, flagged_share=0.0)]
    table = comparison_table(judgments)
    assert table["f1"].to_pylist() == [0.5, None]
    assert table["flagged_share"].to_pylist() == [0.25, None]
    assert table["n"].to_pylist() == [100, None]
    assert table["seconds"].to_pylist() == [2.0, 3.0], "time that was lost is still told"
    assert table["message"].to_pylist() == [None, "disk"]
    for other in (judgments[:1], judgments[1:], []):
        assert comparison_table(other).schema == table.schema
    assert table.schema.field("f1").type == pa.float64()


def test_headings_are_short_harmless_and_never_alike() -> None:
    assert noise_headings(NOISES) == ["given", "sym .6", "asym .3", "inst .4", "worse_label"]
    assert noise_headings(["symmetric:1.0", "symmetric:0", "asymmetric:cat", "a\x1bb"]) == [
        "sym 1",
        "sym 0",
        "asym cat",
        "a?b",
    ]
    alike = ["instance:0.4", "instance_dependent:0.4", "symmetric:0.4"]
    assert noise_headings(alike) == [*alike[:2], "sym .4"]
