"""A finished run, training or sweep as MLflow runs: options as parameters, results as metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from dynacor_ray.core.progress import Progress
from dynacor_ray.core.redaction import redact, redact_all
from dynacor_ray.engine.runtime.mlflow_client import EXPERIMENT, TrackedRun, log_runs
from dynacor_ray.runs.records import RunSummary

_HEADLINE = ("num_rows", "num_flagged", "flagged_share", "estimated_noise_rate", "num_corrupted", "corrupted_recall")


def tracked_run(run: str, summary: RunSummary) -> TrackedRun:
    """The MLflow run of a run. run: its directory; summary: its `summary.json`."""
    metrics = {name: getattr(summary, name) for name in _HEADLINE}
    if summary.noise_rate_range:
        metrics |= dict(zip(("noise_rate_low", "noise_rate_high"), summary.noise_rate_range, strict=True))
    metrics |= {f"seconds_{name}": value for name, value in summary.seconds.items()}
    metrics |= summary.evaluation or {}
    return TrackedRun(
        name=_name(run),
        params=redact_all(summary.config),
        metrics=_numbers(metrics),
        series={"validation_metric": summary.validation_metric},
        tags={"dynacor.run": redact(run), "dynacor.version": summary.versions["dynacor_ray"]},
    )


def tracked_training(run: str, summary: dict[str, Any]) -> TrackedRun:
    """The MLflow run of a training: figures per epoch, and of the rows that a method takes for wrong."""
    found = summary["detection"] or {}
    metrics = {name: summary[name] for name in ("num_learned", "num_flagged", "num_tested")}
    if summary["best"] is not None:
        metrics |= {"best_test_accuracy": summary["best"]["test_accuracy"], "best_epoch": summary["best"]["epoch"]}
    metrics |= {f"detection_{name}": value for name, value in (found.get("evaluation") or {}).items()}
    metrics |= {f"seconds_{name}": value for name, value in summary["seconds"].items()}
    epochs = summary["epochs"]
    return TrackedRun(
        name=_name(run),
        params=redact_all(summary["config"]),
        metrics=_numbers(metrics),
        series={name: [row[name] for row in epochs] for name, value in epochs[0].items() if value is not None},
        tags={"dynacor.run": redact(run), "dynacor.version": summary["versions"]["dynacor_ray"]},
    )


def tracked_trials(run: str, trials: list[dict[str, Any]], names: list[str]) -> Iterator[TrackedRun]:
    """The MLflow runs of a sweep's finished trials. trials: rows of `trials.parquet`; names: options that vary."""
    for trial in trials:
        if trial["status"] != "finished":
            continue
        options = {name: trial[name] for name in names}
        text = " ".join(f"{name}={value}" for name, value in options.items())
        metrics = _numbers({name: value for name, value in trial.items() if name not in options})
        chosen = {"dynacor.chosen": str(trial["is_chosen"]).lower()}
        yield TrackedRun(name=text, params=options, metrics=metrics, tags={"dynacor.run": redact(run)} | chosen)


def track(uri: str | None, runs: list[TrackedRun], progress: Progress) -> None:
    """Log what is finished to MLflow; uri: tracking server or store, None for nothing.

    A failure costs a warning only, since the results are saved.
    """
    if uri is None:
        return
    try:
        log_runs(uri, runs)
    except Exception as error:  # whatever the store of that kind raises
        progress.say(f"Warning: MLflow at {uri} failed: {type(error).__name__}: {error}")
    else:
        progress.say(f"MLflow: {len(runs)} run(s) in the experiment '{EXPERIMENT}' at {uri}")


def _name(run: str) -> str:
    return redact(run.partition("?")[0].rstrip("/").rpartition("/")[2])


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """Values that MLflow takes as metrics: finite numbers."""
    kept = {n: v for n, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {name: float(value) for name, value in kept.items() if math.isfinite(value)}
