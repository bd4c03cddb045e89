"""What one trial of a sweep does, in a process of its own: a training, or a clustering of a stored training."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.decision.thresholds import assignment_quality
from dynacor_ray.engine.data.labels import LabelTable
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.dynamics.assemble import assemble
from dynacor_ray.engine.dynamics.clustering import fit_sample, sample_for_fit, settle_noise_rate
from dynacor_ray.engine.runtime.session import connect
from dynacor_ray.engine.runtime.tune import SCORE, report
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.job import TrainConfig, TrainPlan
from dynacor_ray.engine.training.signal_files import SIGNALS, read_noise_rate
from dynacor_ray.ground_truth.metrics import evaluate_issues
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.method.selection import EpochRecord, choose_epoch, score
from dynacor_ray.runs.records import Trial
from dynacor_ray.workflows.open_data import Opened
from dynacor_ray.workflows.prepare import Prepared, clustering_config, with_noise_rate

SAMPLE = "sample.parquet"
"""Dynamics of at most `clustering_sample` rows, which every clustering reads; the last file of a training."""


@dataclass(frozen=True)
class TrainingTrial:
    """All that a training needs to know."""

    place: Location
    rows: TrainingRows
    training: TrainConfig
    plan: TrainPlan
    dataset: Location
    manifest: DatasetManifest
    corruption: CorruptionConfig
    labels: LabelTable
    clustering_sample: int

    @classmethod
    def of(cls, prepared: Prepared, opened: Opened, plan: TrainPlan) -> TrainingTrial:
        """The training of a prepared run."""
        return cls(
            place=prepared.run,
            rows=opened.rows,
            training=prepared.training,
            plan=plan,
            dataset=opened.dataset,
            manifest=opened.manifest,
            corruption=prepared.corruption,
            labels=opened.labels,
            clustering_sample=prepared.config.clustering_sample,
        )

    @property
    def truth(self) -> Location | None:
        """Where the true labels are, if they are known."""
        return self.dataset / self.manifest.truth if self.manifest.truth else None


def run_training_trial(task: TrainingTrial) -> None:
    """Train, or resume; leave the signals and a sample of the dynamics (Eq. 1)."""
    connect()
    silent = Progress(quiet=True)
    files = train(task.rows, task.training, task.plan, task.place, silent)
    signals = task.place / SIGNALS
    dynamics = assemble(task.dataset, task.manifest, signals, files, task.corruption, task.labels, silent)
    sample = sample_for_fit(dynamics, task.rows.facts.total, task.clustering_sample, task.training.seed)
    (task.place / SAMPLE).write_table(sample, compression="zstd")
    report({"rows": task.rows.facts.total, "epochs": task.training.epochs})


@dataclass(frozen=True)
class ClusteringTrial:
    """All that a clustering needs to know."""

    config: DetectConfig
    options: dict[str, Any]
    training: str
    place: Location
    truth: Location | None
    num_classes: int
    select: str


def record_name(config: DetectConfig) -> str:
    """File name of a trial's record: the same for all that gives the same result."""
    return f"{digest(config.result_options())}.json"


def run_clustering_trial(task: ClusteringTrial, records: Location) -> None:
    """Cluster a training's dynamics (§4.4) and write the trial's record, unless it is there already.

    Shares and metrics are those of the sample that was fitted, which is all rows up to `clustering_sample`.
    """
    import torch

    torch.set_num_threads(1)
    place = records / record_name(task.config)
    if place.exists():
        report({SCORE: Trial(**place.read_json()).score(task.select)})
        return
    start = time.monotonic()
    sample = (task.place / SAMPLE).read_table()
    judge = _Judge(sample, task.truth)
    first = read_noise_rate(task.place / SIGNALS, task.config.epochs, task.config.batch_size)
    estimate = settle_noise_rate(first, sample, task.config.margin_score, task.num_classes)
    config = with_noise_rate(clustering_config(task.config), estimate)
    known: list[EpochRecord] = []

    def on_epoch(record: EpochRecord, q_noisy: np.ndarray) -> None:
        known.append(record)
        judge.look(q_noisy)
        chosen = known[choose_epoch(known, config.epoch_choice, config.noise_rate)]
        report({SCORE: score(chosen, task.select, config.noise_rate), **_epoch(record, judge.metrics[-1])})

    fitted = fit_sample(sample, config, on_epoch)
    epochs = [_epoch(record, metrics) for record, metrics in zip(known, judge.metrics, strict=True)]
    trial = Trial(
        options=task.options,
        training=task.training,
        epoch=fitted.epoch,
        noise_rate=config.noise_rate,
        evaluation=judge.metrics[fitted.epoch],
        epochs=epochs,
        seconds=round(time.monotonic() - start, 3),
    )
    place.write_json(trial.as_json())


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
