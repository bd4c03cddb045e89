"""What detectors learn from trainings (`detectors.evidence.Evidence`): from DynaCor's, and from all baselines' in one.

Every function returns fields of Evidence, rows in the order of increasing instance_id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.progress import Progress
from dynacor_ray.detectors.baseline_classifiers import BaselineTraining
from dynacor_ray.engine.dynamics.clustering import fit_clusters
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.method.signals import COLUMNS
from dynacor_ray.workflows.dynamics_flow import DynamicsFlow

ABLATION_SECONDS = "ablation_seconds"


def gather_dynamics(flow: DynamicsFlow, progress: Progress) -> dict[str, Any]:
    """What one training of DynaCor says.

    Args:
        flow: The training.
        progress: Where the stages are shown.

    Returns:
        Margins, soft assignments and leave-one-out margins of originals and copies, and the noise rate, by their names
        in Evidence.
    """
    signals, everything, sample = _recorded(flow, progress)
    estimate, fitted, decision = flow.cluster_and_decide(signals, sample, progress)
    _, is_copy = schema.decode_key(everything[schema.KEY].to_numpy())
    margins = schema.matrix(everything[schema.MARGIN].combine_chunks())
    rows = {"margins": margins, "q_noisy": fitted.assign(margins)}
    if flow.training.network is None:
        rows |= {"leave_one_out": everything[schema.LEAVE_ONE_OUT].to_numpy()}
    found: dict[str, Any] = {"noise_rate": estimate.value if estimate else None}
    if decision is not None:
        rows |= {"log_odds": flow.score_sample(everything, decision)[schema.LOG_ODDS].to_numpy()}
        found |= {"noise_rate": decision.decision.rate.value, "log_odds_cut": decision.log_odds_cut}
    for name, values in rows.items():
        found |= {name: values[~is_copy], f"copy_{name}": values[is_copy]}
    return found


def gather_published(flow: DynamicsFlow, ablation: bool, progress: Progress) -> dict[str, Any]:
    """What the training as printed says (Table 5).

    Args:
        flow: That training.
        ablation: Whether Table 4's assignments are wanted as well.
        progress: Where the stages are shown.

    Returns:
        Soft assignments and mean margins of the originals, by their names in Evidence; with `ablation` also the seconds
        that it took, under ABLATION_SECONDS.
    """
    signals, everything, sample = _recorded(flow, progress)
    _, fitted = flow.cluster(signals, sample, progress)
    _, is_copy = schema.decode_key(everything[schema.KEY].to_numpy())
    margins = schema.matrix(everything[schema.MARGIN].combine_chunks())[~is_copy]
    found: dict[str, Any] = {"published_margin": margins.astype(np.float32).mean(axis=1)}
    found |= {"q_published": fitted.assign(margins)}
    if ablation:
        start = time.monotonic()
        for name, changed in (("q_untrained", {"epochs": 0}), ("q_clustering_only", {"alpha": 0.0})):
            other = fit_clusters(sample, replace(fitted.config, **changed), progress)
            found[name] = other.assign(margins)
        found[ABLATION_SECONDS] = time.monotonic() - start
    return found


def _recorded(flow: DynamicsFlow, progress: Progress) -> tuple[RecordedSignals, pa.Table, pa.Table]:
    """The signals of a training, all its rows, and those that the clustering is fitted on."""
    signals, dynamics = flow.record(progress)
    everything = flow.sample(dynamics, flow.rows.facts.total)
    fewer = flow.rows.facts.total > flow.config.clustering_sample
    return signals, everything, flow.sample(dynamics) if fewer else everything


def read_signals(signals: RecordedSignals, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Dynamics of every recorded signal (Table 6).

    Args:
        signals: Of a training with `TrainConfig.signals`.
        ids: int64 (N,), all instances, increasing.

    Returns:
        Column -> float16 (N, E), the originals in the order of the ids.
    """
    found = {name: np.empty((len(ids), len(signals.epochs)), np.float16) for name in COLUMNS}
    for place, epoch in enumerate(signals.epochs):
        for name, values in signals.columns(epoch, ids << 1, COLUMNS, only_originals=True).items():
            found[name][:, place] = values
    return found


@dataclass(frozen=True)
class _Recorded:
    """`RecordedColumns` of a training."""

    signals: RecordedSignals
    ids: np.ndarray
    num_classes: int
    seed: int

    def mean(self, names: Sequence[str]) -> np.ndarray:
        total = np.zeros((len(names), len(self.ids)))
        for epoch in self.signals.epochs:
            total += np.stack([*self.signals.columns(epoch, self.ids << 1, names).values()])
        mean: np.ndarray = total / len(self.signals.epochs)
        return mean

    def last(self, name: str) -> np.ndarray:
        return self.signals.columns(self.signals.epochs[-1], self.ids << 1, [name])[name]


def gather_trained(
    flow: DynamicsFlow, trainings: Sequence[BaselineTraining], progress: Progress
) -> dict[str, np.ndarray]:
    """What the classifiers say that detectors declare, trained side by side.

    Args:
        flow: Whose rows are without copies.
        trainings: What the detectors declare.
        progress: Where the rows done are shown.

    Returns:
        Arrays for `Evidence.trained` by name.
    """
    with progress.timed("train"):
        training = replace(flow.training, baselines=tuple(trainings))
        signals = train(flow.rows, training, flow.plan, flow.run, progress)
    recorded = _Recorded(signals, flow.dataset.labels().ids, flow.dataset.num_classes, flow.config.seed)
    return {name: values for one in trainings for name, values in one.read(recorded).items()}
