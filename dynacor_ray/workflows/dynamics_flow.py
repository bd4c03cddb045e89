"""Train, assemble, sample, estimate the noise rate, fit the clustering (§4.3, §4.4): the one flow of all commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import TwinLabels
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.decision.fitted_decision import FittedDecision
from dynacor_ray.decision.noise_rate import NoiseRate, for_few_rows
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.dynamics.assemble import assemble
from dynacor_ray.engine.dynamics.clustering import choose_rows, fit_clusters, sample_for_fit, settle_noise_rate
from dynacor_ray.engine.dynamics.label_noise import fit_label_noise, score_rows, with_log_odds
from dynacor_ray.engine.runtime.blocks import Blocks
from dynacor_ray.engine.runtime.tasks import map_threads
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.job import TrainConfig, TrainPlan
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.method.clustering import FittedClustering
from dynacor_ray.workflows.prepare import clustering_config, corruption_config

BESIDE_THE_MODEL = 50_000
"""Most rows that the clustering is fitted to where the label noise model decides: then q is one column of the results,
and 200,000 rows would take longer than the model."""


@dataclass(frozen=True)
class DynamicsFlow:
    """One training of the classifier and what follows from it; small, so that it can be sent to a trial.

    Attributes:
        config: The options of corruption and clustering.
        training: What the training depends on.
        run: Directory that holds the training's state and its signals.
        dataset: The packed data, with the labels that are searched.
        rows: What is trained on: originals and corrupted copies.
        plan: How the training is spread over the cluster.
    """

    config: DetectConfig
    training: TrainConfig
    run: Location
    dataset: PackedDataset
    rows: TrainingRows
    plan: TrainPlan

    @property
    def twins(self) -> TwinLabels | None:
        """Labels of rows with the same image or feature, None without any."""
        return self.rows.facts.twins

    def record(self, progress: Progress) -> tuple[RecordedSignals, Blocks]:
        """Train, or resume, or read what is there: the signals, and the dynamics (Eq. 1) made of them."""
        with progress.timed("train"):
            signals = train(self.rows, self.training, self.plan, self.run, progress)
        with progress.timed("assemble"):
            return signals, assemble(self.dataset, signals, corruption_config(self.config), progress)

    def sample(self, dynamics: Blocks, most: int | None = None) -> pa.Table:
        """The rows that the clustering is fitted on, at most about `most`. Default: those of --clustering-sample."""
        return sample_for_fit(dynamics, self.rows.facts.total, most or self.config.clustering_sample, self.config.seed)

    def estimate(self, signals: RecordedSignals, sample: pa.Table) -> NoiseRate | None:
        """The share of wrong labels; None when the training was too short to tell."""
        first = signals.noise_rate(self.training.batch_size)
        return self._believed(settle_noise_rate(first, sample, self.config.margin_score, self.dataset.num_classes))

    def _believed(self, rate: NoiseRate | None) -> NoiseRate | None:
        """What counts of an estimate with so many rows per class; the published variants count all."""
        if rate is None or self.config.variant is not None:
            return rate
        return for_few_rows(rate, self.dataset.manifest.num_rows, self.dataset.num_classes)

    def cluster(
        self, signals: RecordedSignals, sample: pa.Table, progress: Progress
    ) -> tuple[NoiseRate | None, FittedClustering]:
        """The estimated noise rate, and the clustering that is fitted with it."""
        noise_rate, rows = self.estimate(signals, sample), sample
        if self.config.variant is None and schema.ALL_CLASS_SCORES in sample.column_names:
            rows = choose_rows(sample, BESIDE_THE_MODEL / self.rows.facts.total, self.config.seed)
        return noise_rate, fit_clusters(rows, clustering_config(self.config, noise_rate), progress)

    def decide(self, signals: RecordedSignals, sample: pa.Table, progress: Progress) -> FittedDecision | None:
        """The label noise model on the sample; None where the class scores that it reads were not recorded."""
        surest = signals.noise_rate(self.training.batch_size)
        if surest is not None and schema.ALL_CLASS_SCORES in sample.column_names:
            surest = self._believed(settle_noise_rate(surest, sample, "early_margin", self.dataset.num_classes))
        return fit_label_noise(sample, self.dataset.num_classes, self.config.seed, surest, progress, self.twins)

    def cluster_and_decide(
        self, signals: RecordedSignals, sample: pa.Table, progress: Progress
    ) -> tuple[NoiseRate | None, FittedClustering, FittedDecision | None]:
        """`cluster` and `decide` side by side: neither needs the other, and each has work for one processor."""
        hidden = Progress(quiet=True)  # a terminal has one bar at a time
        both: list[Callable[[], Any]] = [
            partial(self.cluster, signals, sample, progress),
            partial(self.decide, signals, sample, hidden),
        ]
        (noise_rate, fitted), decision = map_threads(lambda work: work(), both)
        return noise_rate, fitted, decision

    def score_sample(self, sample: pa.Table, decision: FittedDecision | None) -> pa.Table:
        """The sample with the model's log odds, where there is a model."""
        if decision is None:
            return sample
        return with_log_odds(sample, decision, self.dataset.num_classes, self.config.seed, self.twins)

    def score(self, dynamics: Blocks, decision: FittedDecision | None) -> Blocks:
        """All rows with the model's log odds, where there is a model."""
        if decision is None:
            return dynamics
        return score_rows(dynamics, decision, self.dataset.num_classes, self.config.seed, self.twins)
