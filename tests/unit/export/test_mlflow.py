"""What MLflow is told of runs and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.config.compare import CompareConfig
from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.config.sweep import SweepConfig
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.progress import Progress
from dynacor_ray.engine.runtime.mlflow_client import TrackedRun
from dynacor_ray.export import mlflow as tracking
from dynacor_ray.export.mlflow import (
    track,
    tracked_run,
    tracked_training,
    tracked_trials,
)
from dynacor_ray.runs.records import RunSummary
from tests.made_runs import at, make_run

TRIALS: list[dict[str, Any]] = [
    {"gamma": 0.1, "alpha": 0.5, "status": "finished", "message": None, "is_chosen": True, "score": -0.01, "f1": None},
    {"gamma": 0.1, "alpha": 5.0, "status": "failed", "message": "lost", "is_chosen": False, "score": None, "f1": None},
    {"gamma": 0.1, "alpha": 50.0, "status": "finished", "message": None, "is_chosen": False, "score": -0.3, "f1": 0.5},
]


@pytest.fixture
def summary(tmp_path: Path) -> RunSummary:
    scores = {"noise_rate": 0.1, "f1": 0.9, "precision": None, "recall": 0.8, "auroc": float("nan")}
    return RunSummary.read(at(make_run(tmp_path / "demo", evaluation=scores)))


def test_a_run_is_its_options_and_its_summary(summary: RunSummary) -> None:
    run = tracked_run("/runs/demo/", summary)
    assert run.name == "demo"
    assert run.params == summary.config
    assert run.tags == {"dynacor.run": "/runs/demo/", "dynacor.version": "0.1.0"}
    assert run.metrics["num_flagged"] == 30
    assert run.metrics["f1"] == 0.9
    assert run.metrics["noise_rate_low"] == pytest.approx(0.09)
    assert run.metrics["seconds_train"] == 30.25
    assert not {"precision", "auroc"} & set(run.metrics), "what is unknown is no metric"
    assert run.series == {"validation_metric": pytest.approx([0.2, 0.25, 0.3])}


def test_a_sweep_is_a_run_per_finished_trial() -> None:
    first, second = tracked_trials("runs/sweep", TRIALS, ["gamma", "alpha"])
    assert first.name == "gamma=0.1 alpha=0.5"
    assert first.params == {"gamma": 0.1, "alpha": 0.5}
    assert first.metrics == {"score": -0.01}
    assert first.tags == {"dynacor.run": "runs/sweep", "dynacor.chosen": "true"}
    assert second.metrics == {"score": -0.3, "f1": 0.5}
    assert second.tags["dynacor.chosen"] == "false"


TRAINING: dict[str, Any] = {
    "config": {"loss": "ce", "epochs": 2},
    "versions": {"dynacor_ray": "0.1.0"},
    "detection": {"evaluation": {"f1": 0.8, "precision": None}},
    "num_learned": 90,
    "num_flagged": 10,
    "num_tested": 40,
    "best": {"epoch": 1, "test_accuracy": 0.7},
    "epochs": [
        {"epoch": 1, "loss": 1.5, "train_agreement": 0.5, "test_accuracy": 0.7},
        {"epoch": 2, "loss": 1.25, "train_agreement": 0.75, "test_accuracy": 0.65},
    ],
    "seconds": {"train": 3.5},
}


def test_a_training_is_its_options_and_its_figures_per_epoch() -> None:
    run = tracked_training("runs/elr", TRAINING)
    assert (run.name, run.params) == ("elr", TRAINING["config"])
    assert run.series == {
        "epoch": [1, 2],
        "loss": [1.5, 1.25],
        "train_agreement": [0.5, 0.75],
        "test_accuracy": [0.7, 0.65],
    }
    numbers = {"num_learned": 90, "num_flagged": 10, "num_tested": 40, "best_test_accuracy": 0.7, "best_epoch": 1}
    assert run.metrics == numbers | {"detection_f1": 0.8, "seconds_train": 3.5}
    epochs = [row | {"test_accuracy": None} for row in TRAINING["epochs"]]
    bare = tracked_training("runs/elr", TRAINING | {"best": None, "num_tested": None, "epochs": epochs})
    assert not {"best_test_accuracy", "num_tested"} & set(bare.metrics)
    assert "test_accuracy" not in bare.series


def test_nothing_is_told_unless_asked(summary: RunSummary, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[TrackedRun] = []
    monkeypatch.setattr(tracking, "log_runs", lambda _, runs: told.extend(runs))
    track(None, [tracked_run("runs/demo", summary)], Progress())
    assert not told


def test_a_run_is_finished_also_when_mlflow_is_gone(
    summary: RunSummary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(tracking, "log_runs", fail)
    track("http://gone", [tracked_run("runs/demo", summary)], Progress())
    assert capsys.readouterr().err == "Warning: MLflow at http://gone failed: ConnectionError: no route\n"


def test_comparisons_are_not_tracked() -> None:
    with pytest.raises(
        ConfigError, match=r"--mlflow-uri with detect, sweep or train, but got --mlflow-uri sqlite:///x\.db"
    ):
        CompareConfig(detect=DetectConfig(data="demo", mlflow_uri="sqlite:///x.db"))
    sweep = SweepConfig(detect=DetectConfig(data="demo", mlflow_uri="sqlite:///x.db"))
    assert sweep.trial({"alpha": 1.0}).mlflow_uri is None, "the sweep tells of its trials itself"
