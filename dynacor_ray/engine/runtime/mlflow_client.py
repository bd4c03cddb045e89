"""What is finished, as runs of an MLflow experiment, through Ray's integration."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dynacor_ray.core.errors import ConfigError, expected_got, first_line
from dynacor_ray.core.redaction import redacted

EXPERIMENT = "dynacor"


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run as MLflow has it. series: values per step, by name of the metric."""

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    series: dict[str, list[float]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def check_tracking(uri: str | None) -> None:
    """Find out before the work that MLflow is installed and answers. Raises ConfigError otherwise."""
    if uri is None:
        return
    if importlib.util.find_spec("mlflow") is None:
        remedy = "pip install 'dynacor-ray[mlflow]', or leave --mlflow-uri out"
        raise ConfigError(expected_got("MLflow to be installed for --mlflow-uri", "none", remedy))
    _be_quiet()
    from mlflow import MlflowClient

    _check_none_active()
    try:
        MlflowClient(uri).get_experiment_by_name(EXPERIMENT)
    except Exception as error:  # whatever the store of that kind raises
        got = f"'{first_line(error)}'"
        remedy = "start it, or give a database such as sqlite:///mlflow.db"
        raise ConfigError(expected_got(f"MLflow to answer at {uri}", got, remedy)) from redacted(error)


def log_runs(uri: str, runs: Iterable[TrackedRun]) -> None:
    """Add runs to the experiment `EXPERIMENT`, which is made where it is missing.

    Raises ConfigError when a run of the user's own is active, and whatever the store of that kind raises.
    """
    _be_quiet()
    from mlflow import end_run
    from ray.air.integrations.mlflow import setup_mlflow

    _check_none_active()
    for run in runs:
        status = "FAILED"
        try:
            mlflow: Any = setup_mlflow(
                run.params,
                tracking_uri=uri,
                experiment_name=EXPERIMENT,
                create_experiment_if_not_exists=True,
                run_name=run.name,
                tags=run.tags,
            )
            mlflow.log_metrics(run.metrics)
            for name, values in run.series.items():
                for step, value in enumerate(values):
                    mlflow.log_metric(name, value, step=step)
            status = "FINISHED"
        finally:  # left active, it would be taken for the next run
            end_run(status)


def _check_none_active() -> None:
    """Ray's integration writes into an active run instead of a new one, and we would end it."""
    from mlflow import active_run

    active = active_run()
    if active is not None:
        got = f"{active.info.run_id!r}, which is active"
        raise ConfigError(
            expected_got("no MLflow run in this process for --mlflow-uri", got, "call mlflow.end_run() before")
        )


def _be_quiet() -> None:
    """MLflow sends nothing about its use, gives up soon where no server answers, and says only what went wrong."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
