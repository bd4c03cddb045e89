"""The benchmark of a person's answers on a ranking made here."""

from __future__ import annotations

from pathlib import Path

import bench_review
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit


def test_a_blind_run_is_measured_with_the_truth_as_the_person(tmp_path: Path) -> None:
    """Of 600 rows the first are wrong more often; the run flagged none. Answers help, and all figures are shares."""
    chance = expit(3.0 - np.arange(600) / 50.0)
    wrong = np.random.default_rng(0).random(600) < chance
    columns = {"probability": np.full(600, 0.01), "flagged": np.zeros(600, bool), "wrong": wrong}
    pq.write_table(pa.table(columns | {"family": pa.array(["rules"] * 600)}), tmp_path / "blind.parquet")
    options = bench_review.Options(rankings=(tmp_path / "blind.parquet",), draws=4)
    (ranking,) = bench_review.rankings(options)
    line = bench_review.measure(ranking, options)
    assert (line["set"], line["family"], line["before"]) == ("blind", "rules", 0.0)
    assert line["best"] == pytest.approx(max(2 * wrong[:k].sum() / (k + wrong.sum()) for k in range(1, 601)), abs=1e-4)
    first, second = line["after"]
    assert first["f1"] > line["best"] - 0.1
    assert second["f1_with_answers"] > line["best"]
    assert second["width"] < first["width"]
    said = bench_review.families([line], options.rounds)["rules"]
    assert said[0]["least gain"] == first["f1"]
    assert [part["rate covered"] for part in said] == [first["rate covered"], second["rate covered"]]
