"""What one trial of a sweep does, on a cluster in a process of its own: a training, or a clustering of a stored one."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.decision.thresholds import assignment_quality
from dynacor_ray.engine.dynamics.clustering import fit_sample
from dynacor_ray.engine.runtime.session import silence_ray
from dynacor_ray.engine.runtime.tune import SCORE, report
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.ground_truth.metrics import evaluate_issues
from dynacor_ray.method.selection import EpochRecord, choose_epoch, score
from dynacor_ray.runs.sweep_records import Trial
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow
from dynacor_ray.workflows.prepare import clustering_config

SAMPLE = "sample.parquet"
"""Dynamics of at most `clustering_sample` rows, which every clustering reads; the last file of a training."""


def run_training_trial(flow: DynamicsFlow) -> None:
    """Train, or resume; leave the signals and a sample of the dynamics (Eq. 1)."""
    silence_ray()
    _, dynamics = flow.record(Progress(quiet=True))
    (flow.run / SAMPLE).write_table(flow.sample(dynamics), compression="zstd")
    report({"rows": flow.rows.facts.total, "epochs": flow.config.epochs})


def record_name(config: DetectConfig) -> str:
    """File name of a trial's record: the same for all that gives the same result."""
    return f"{digest(config.result_options())}.json"


def run_clustering_trial(
    flow: DynamicsFlow, training: str, options: dict[str, Any], rule: str, records: Location
) -> None:
    """Cluster a training's dynamics (§4.4) and write the trial's record, unless it is there already.

    Shares and metrics are those of the sample that was fitted, which is all rows up to `clustering_sample`.

    Args:
        flow: The training, with the options of this clustering.
        training: Its name.
        options: What the sweep varies.
        rule: What the trial's score is by.
        records: Where the records are kept.
    """
    import torch

    torch.set_num_threads(1)
    place = records / record_name(flow.config)
    if place.exists():
        report({SCORE: Trial(**place.read_json()).score(rule)})
        return
    start = time.monotonic()
    sample, signals = (flow.run / SAMPLE).read_table(), RecordedSignals.read(flow.run)
    assert signals is not None
    judge = _Judge(sample, flow.dataset.truth)
    config = clustering_config(flow.config, flow.estimate(signals, sample))
    known: list[EpochRecord] = []

    def on_epoch(record: EpochRecord, q_noisy: np.ndarray) -> None:
        known.append(record)
        judge.look(q_noisy)
        chosen = known[choose_epoch(known, config.epoch_choice, config.noise_rate)]
        report({SCORE: score(chosen, rule, config.noise_rate), **_epoch(record, judge.metrics[-1])})

    fitted = fit_sample(sample, config, on_epoch)
    epochs = [_epoch(record, metrics) for record, metrics in zip(known, judge.metrics, strict=True)]
    trial = Trial(
        options=options,
        training=training,
        epoch=fitted.epoch,
        noise_rate=config.noise_rate,
        evaluation=judge.metrics[fitted.epoch],
        epochs=epochs,
        seconds=round(time.monotonic() - start, 3),
    )
    place.write_json(dataclasses.asdict(trial))


def _epoch(record: EpochRecord, metrics: dict[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(record) | {"f1": metrics.get("f1")}


class _Judge:
    """Scores every epoch against the truth, where it is known; nothing of it reaches the detector."""

    def __init__(self, sample: pa.Table, truth: Location | None) -> None:
        ids, is_copy = schema.decode_key(sample[schema.KEY].to_numpy())
        self._originals = ~is_copy
        self.metrics: list[dict[str, Any]] = []
        self._truth = None
        if truth is not None:
            wanted = pc.field(schema.INSTANCE_ID).isin(pa.array(ids[self._originals]))
            self._truth = pq.read_table(truth.path, filesystem=truth.filesystem, filters=wanted, partitioning=None)
            self._mean = schema.matrix(sample[schema.MARGIN].combine_chunks()).astype(np.float32).mean(axis=1)
            self._issues = pa.table(
                {
                    schema.INSTANCE_ID: pa.array(ids[self._originals]),
                    schema.GIVEN_LABEL: sample[schema.GIVEN_LABEL].filter(pa.array(self._originals)),
                }
            )

    def look(self, q_noisy: np.ndarray) -> None:
        """Score one epoch. q_noisy: float32 (n,), in the order of the sample."""
        if self._truth is None:
            self.metrics.append({})
            return
        noisy, mean = q_noisy[self._originals], self._mean[self._originals]
        issues = self._issues.append_column(schema.IS_LABEL_ISSUE, pa.array(noisy > 0.5))
        issues = issues.append_column(schema.LABEL_QUALITY, pa.array(assignment_quality(noisy, mean)))
        self.metrics.append(evaluate_issues(issues, self._truth))
