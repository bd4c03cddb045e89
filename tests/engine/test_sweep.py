"""A sweep: one training per corruption rate, resumed after a kill, failures named, the chosen run left complete."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ClusterError, ConfigError, RunDirectoryError, TrainingError
from dynacor_ray.workflows.detect import detect
from dynacor_ray.workflows.sweep import sweep
from tests.engine.conftest import FAST, ON_RAY


def stamps(out: Path, pattern: str) -> dict[str, int]:
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in out.glob(pattern)}


@pytest.mark.usefixtures("cluster")
def test_a_grid_costs_a_training_per_gamma_and_leaves_the_chosen_run(
    feature_set: Callable[..., Path], tmp_path: Path
) -> None:
    data, out = str(feature_set(601)), tmp_path / "sweep"
    options = ON_RAY | {"gammas": [0.1, 0.3], "clustering_learning_rate": 1e-3, "cache": str(tmp_path / "cache")}
    result = sweep(data, out=str(out), alphas=[5.0], **options)
    trained = stamps(out, "trainings/*/signals/manifest.json")
    assert len(trained) == 2, "two corruption rates, two trainings"
    assert result.summary["num_trainings"] == 2
    table = result.trials()
    assert sorted(zip(table["gamma"].to_pylist(), table["alpha"].to_pylist(), strict=True)) == [(0.1, 5.0), (0.3, 5.0)]
    assert sum(table["is_chosen"].to_pylist()) == 1
    assert table["noise_rate"].to_pylist() == sorted(table["noise_rate"].to_pylist(), reverse=True)
    assert table["f1"].null_count == 0
    assert list(out.glob("tune/*/*/events.out.tfevents.*")), "TensorBoard events"
    assert (out / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    chosen = result.summary["chosen"]
    assert repr(result) == f"<SweepResult {out}: 2 trials, chosen gamma={chosen['options']['gamma']}, alpha=" + (
        f"{chosen['options']['alpha']}>"
    )
    assert_same_run_as_detect(data, out / "best", tmp_path / "alone", options, chosen)

    done = stamps(out, "trials/grid/*.json")
    (out / "best" / "report.html").unlink()
    again = sweep(data, out=str(out), alphas=[5.0], **options)
    assert again.summary == result.summary, "nothing was done again"
    assert (out / "best" / "report.html").exists()
    more = sweep(data, out=str(out), alphas=[0.0, 5.0, 50.0], **options | {"cluster": "none"})
    combinations = [(gamma, alpha) for gamma in (0.1, 0.3) for alpha in (0.0, 5.0, 50.0)]
    table = more.trials()
    assert sorted(zip(table["gamma"].to_pylist(), table["alpha"].to_pylist(), strict=True)) == combinations
    assert stamps(out, "trainings/*/signals/manifest.json") == trained
    assert {name: stamp for name, stamp in stamps(out, "trials/grid/*.json").items() if name in done} == done
    with pytest.raises(RunDirectoryError, match="epochs=4 there, 5 here"):
        sweep(data, out=str(out), alphas=[0.0, 5.0], **options | {"epochs": 5})
    with pytest.raises(RunDirectoryError, match="choose another --out"):
        detect(data, out=str(out), **FAST)


def assert_same_run_as_detect(
    data: str, best: Path, alone: Path, options: dict[str, Any], chosen: dict[str, Any]
) -> None:
    """The chosen directory holds what `detect` with the trial's options makes; the trial told the truth about it."""
    shared = {name: value for name, value in options.items() if name != "gammas"} | {"cluster": "none"}
    detect(data, out=str(alone), flag_rule="paper", epoch_choice="noise_rate", **shared, **chosen["options"])
    mine, other = (pq.read_table(run / "issues.parquet").sort_by("instance_id") for run in (best, alone))
    assert mine["is_label_issue"].equals(other["is_label_issue"])
    assert np.allclose(mine["noise_score"].to_numpy(), other["noise_score"].to_numpy(), atol=1e-5)
    names = {path.name for path in alone.iterdir()} - {"train"}
    assert names <= {path.name for path in best.iterdir()}
    summary = json.loads((best / "summary.json").read_text())
    assert summary["flagged_share"] == pytest.approx(chosen["flagged_share"])
    assert summary["corrupted_recall"] == pytest.approx(chosen["corrupted_recall"])
    assert summary["evaluation"]["f1"] == pytest.approx(chosen["f1"])


def test_a_failing_training_ends_nothing_and_is_named(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that makes the loss infinite: its trials fail, the others are compared."""
    data, options = str(feature_set(601)), FAST | {"gammas": [0.2], "alphas": [0.0, 5.0]}
    result = sweep(data, out=str(tmp_path / "sweep"), vary=["learning_rate=0.02,1e30"], **options)
    table = result.trials()
    assert sorted(table["status"].to_pylist()) == ["failed", "failed", "finished", "finished"]
    assert {failure["options"]["learning_rate"] for failure in result.summary["failed"]} == {1e30}
    for failure in result.summary["failed"]:
        assert "Its training failed: Expected finite margins" in failure["message"]
    assert result.summary["chosen"]["options"]["learning_rate"] == 0.02
    monkeypatch.setattr(
        "dynacor_ray.workflows.sweep.run_listed", lambda trial, listed, *_: [(o, "no luck") for o in listed]
    )
    with pytest.raises(TrainingError, match="Its training failed: no luck"):
        sweep(data, out=str(tmp_path / "all"), **options)


KILLED = """
import sys
from dynacor_ray.workflows.sweep import sweep
sweep(sys.argv[1], out=sys.argv[2], gammas=[0.1, 0.3], alphas=[0.0, 5.0],
      epochs=4, clustering_epochs=2, quiet=True, batch_size=64)
"""


def test_a_killed_sweep_goes_on_without_repeating_trainings(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = feature_set(1001), tmp_path / "sweep"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(data), str(out)], start_new_session=True)
    deadline = time.monotonic() + 300
    while not stamps(out, "trainings/*/sample.parquet") and time.monotonic() < deadline:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = stamps(out, "trainings/*/sample.parquet")
    assert len(before) == 1
    assert not (out / "summary.json").exists()
    result = sweep(str(data), out=str(out), gammas=[0.1, 0.3], alphas=[0.0, 5.0], **FAST)
    after = stamps(out, "trainings/*/sample.parquet")
    assert len(after) == 2
    assert {name: after[name] for name in before} == before, "the finished training was not repeated"
    assert result.trials()["status"].to_pylist() == ["finished"] * 4
    for sample in out.glob("trainings/*/sample.parquet"):
        table = pq.read_table(sample)
        keys = table["key"].to_numpy()
        assert sorted(keys[keys & 1 == 0] >> 1) == list(range(1001))
        assert schema.matrix(table["margin"]).shape == (len(keys), 4)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_searcher_and_a_scheduler_of_tune_can_be_passed(feature_set: Callable[..., Path], tmp_path: Path) -> None:
    data, out = str(feature_set(601)), tmp_path / "sweep"
    options = ON_RAY | {"gammas": [0.2], "out": str(out)}
    found = sweep(data, search="optuna", num_samples=2, alphas=[0.1, 100], **options)
    alphas = found.trials()["alpha"].to_pylist()
    assert len(set(alphas)) == 2
    assert all(0.1 <= alpha <= 100 for alpha in alphas)
    again = sweep(data, search="optuna", num_samples=2, alphas=[0.1, 100], **options)
    assert sorted(again.trials()["alpha"].to_pylist()) == sorted(alphas), "resumed, not repeated"
    other = sweep(data, search="optuna", num_samples=2, alphas=[200, 300], **options)
    assert all(200 <= alpha <= 300 for alpha in other.trials()["alpha"].to_pylist()), "another space, another search"
    space = {"alpha": tune.choice([1.0, 2.0]), "clustering_epochs": tune.choice([2])}
    scheduler = AsyncHyperBandScheduler(max_t=100, grace_period=100)
    drawn = sweep(data, space=space, scheduler=scheduler, num_samples=2, **options)
    assert set(drawn.trials()["alpha"].to_pylist()) <= {1.0, 2.0}
    assert len(list((out / "trainings").iterdir())) == 1


@pytest.mark.usefixtures("cluster")
def test_wrong_input_is_refused_before_anything_runs(
    feature_set: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = str(feature_set(300)), tmp_path / "sweep"
    with pytest.raises(ClusterError, match="a CPU for each of 50 workers, but got 4 CPUs"):
        sweep(data, out=str(out), workers=50, **ON_RAY)
    with pytest.raises(ConfigError, match=r"space over alpha, .*, but got 'gamma'"):
        sweep(data, out=str(out), space={"gamma": tune.uniform(0.1, 0.2)}, **ON_RAY)
    with pytest.raises(ConfigError, match="--encoder features"):
        sweep(data, out=str(out), encoder="pixels", **FAST)
    assert not out.exists(), "free for the corrected command"
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'dynacor-ray\[optuna\]'"):
        sweep(data, out=str(out), search="optuna", **FAST)
    assert not out.exists()
