"""An analysis of signals: one training records all, resumed, extended and bounded by the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dynacor_ray.workflows.analyze_signals as analysis
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, RunDirectoryError, TrainingError
from dynacor_ray.core.progress import Progress
from dynacor_ray.ground_truth import supervised_bound
from dynacor_ray.method.signals import SIGNALS
from dynacor_ray.report.signal_analysis import UNSUPERVISED
from dynacor_ray.workflows.analyze_signals import analyze_signals
from dynacor_ray.workflows.compare import compare
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow

QUICK: dict[str, Any] = {"epochs": 3, "clustering_epochs": 1, "quiet": True, "cluster": "none"}


def manifests(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/signals/manifest.json")}


def test_signals_and_rates_are_learned_once_and_extended(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = str(feature_set(601)), tmp_path / "run"
    result = analyze_signals(data, out=str(out), **QUICK)
    table = result.to_pandas()
    assert len(table) == len(SIGNALS) * len(supervised_bound.READERS) + len(UNSUPERVISED)
    assert result.summary["failures"] == []
    assert set(table["signal"].dropna()) == set(SIGNALS)
    assert (table["auroc"] > 0.6).all(), "every signal tells something, in its own direction"
    assert (out / "signal_analysis.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / "signal_analysis.md").read_text().startswith("| reader | given |")
    assert len(manifests(out)) == 1, "one training for all signals"

    # The detectors are those of a comparison: recording more changes nothing.
    names = list(UNSUPERVISED)
    other = compare(data, out=str(tmp_path / "compare"), detectors=names, **QUICK).to_pandas().set_index("detector")
    mine = table.set_index("detector").loc[names]
    assert mine["f1"].tolist() == other["f1"].loc[names].tolist()

    # A second call has nothing to do; another rate trains for it alone, another choice of signals not at all.
    monkeypatch.setattr("dynacor_ray.workflows.experiment_grid.ray_session", forbidden)
    assert analyze_signals(data, out=str(out), **QUICK).summary == result.summary
    monkeypatch.undo()
    before = manifests(out)
    rates = analyze_signals(data, out=str(out), gammas=[0.1, 0.4], signals=["margin_sign"], **QUICK)
    after = manifests(out)
    assert len(after) == 2
    assert {path: after[path] for path in before} == before
    assert rates.summary["noises"] == ["given @ 0.1", "given @ 0.4"]
    assert rates.to_pandas()["gamma"].value_counts().to_dict() == {0.1: 4, 0.4: 4}
    with pytest.raises(RunDirectoryError, match="epochs=3 there, 4 here"):
        analyze_signals(data, out=str(out), **QUICK | {"epochs": 4})


def test_a_rate_at_which_the_training_diverges_does_not_end_the_others(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = analysis.gather_dynamics

    def gather(flow: DynamicsFlow, progress: Progress) -> dict[str, Any]:
        if flow.config.gamma == 0.1:
            raise TrainingError("training has diverged")
        return plain(flow, progress)

    monkeypatch.setattr(analysis, "gather_dynamics", gather)
    more: dict[str, Any] = {"gammas": [0.1, 0.4], "signals": ["margin_sign"]}
    result = analyze_signals(str(feature_set(300)), out=str(tmp_path / "run"), **more, **QUICK)
    assert {one["message"] for one in result.summary["failures"]} == {"training has diverged"}
    assert result.to_pandas().groupby("gamma")["f1"].count().to_dict() == {0.1: 0, 0.4: 4}


def forbidden(*_: Any) -> None:
    raise AssertionError("nothing is to be done")


@pytest.mark.slow
def test_truth_bounds_and_does_not_reach_a_detector(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    """With permuted truth the bound is at chance, the detectors flag what they flagged, and without any it is told."""
    data = feature_set(601)
    table = pq.read_table(data)
    column = table.schema.get_field_index(schema.TRUE_LABEL)
    shuffled = table[schema.TRUE_LABEL].take(pa.array(np.random.default_rng(0).permutation(601)))
    other = tmp_path / "permuted.parquet"
    pq.write_table(table.set_column(column, schema.TRUE_LABEL, shuffled), other)
    found = []
    for number, source in enumerate((data, other)):
        result = analyze_signals(str(source), out=str(tmp_path / f"run{number}"), signals=["margin"], **QUICK)
        found.append(result.to_pandas().set_index("detector"))
    flagged = [one["flagged_share"].loc[list(UNSUPERVISED)].tolist() for one in found]
    assert flagged[0] == flagged[1]
    auroc = [one["auroc"].loc["margin-dynamics"] for one in found]
    assert auroc[0] > 0.7
    assert abs(auroc[1] - 0.5) < 0.15
    bare = tmp_path / "bare.parquet"
    pq.write_table(table.drop_columns([schema.TRUE_LABEL]), bare)
    with pytest.raises(ConfigError, match="true labels to judge by"):
        analyze_signals(str(bare), out=str(tmp_path / "none"), **QUICK)
    assert not (tmp_path / "none").exists()
    clean = tmp_path / "clean.parquet"
    given = table[schema.TRUE_LABEL].cast(table.schema.field(schema.GIVEN_LABEL).type)
    pq.write_table(table.set_column(table.schema.get_field_index(schema.GIVEN_LABEL), schema.GIVEN_LABEL, given), clean)
    result = analyze_signals(str(clean), out=str(tmp_path / "clean"), signals=["margin"], **QUICK)
    told = {failure["message"] for failure in result.summary["failures"]}
    assert len(told) == 1
    assert "wrong and right labels to learn a bound from, but got 0 wrong of" in told.pop()
