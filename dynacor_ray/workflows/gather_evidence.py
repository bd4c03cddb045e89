"""Gathers what detectors learn from trainings (`baselines.base.Evidence`): one of DynaCor, one panel of classifiers.

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
from dynacor_ray.core.errors import CoverageError, expected_got
from dynacor_ray.core.manifest import MANIFEST, DatasetManifest
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.detectors.aum import threshold_samples
from dynacor_ray.detectors.baseline_classifiers import AUM, CORES, PROBABILITIES
from dynacor_ray.engine.data.labels import LabelTable
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.dynamics.assemble import assemble
from dynacor_ray.engine.dynamics.clustering import fit_clusters, sample_for_fit, settle_noise_rate
from dynacor_ray.engine.training.driver import train
from dynacor_ray.engine.training.job import TrainConfig, TrainPlan
from dynacor_ray.engine.training.signal_files import SIGNALS, SignalManifest, read_noise_rate
from dynacor_ray.method.clustering import ClusteringConfig, FittedClustering
from dynacor_ray.method.corruption import CorruptionConfig
from dynacor_ray.method.signals import COLUMNS

ABLATION_SECONDS = "ablation_seconds"


@dataclass(frozen=True)
class DetectionInputs:
    """The rows that all detectors of one comparison see."""

    dataset: Location
    manifest: DatasetManifest
    labels: LabelTable
    plan: TrainPlan
    progress: Progress


def gather_dynamics(
    ground: DetectionInputs,
    rows: TrainingRows,
    training: TrainConfig,
    corruption: CorruptionConfig,
    clustering: ClusteringConfig,
    clustering_sample: int,
    ablation: bool,
    place: Location,
) -> dict[str, Any]:
    """Margins and soft assignments of originals and copies, and the noise rate.

    With `ablation` also Table 4's assignments, and the seconds that they took, under ABLATION_SECONDS.
    """
    files = train(rows, training, ground.plan, place, ground.progress)
    signals = place / SIGNALS
    dynamics = assemble(ground.dataset, ground.manifest, signals, files, corruption, ground.labels, ground.progress)
    first = read_noise_rate(signals, training.epochs, training.batch_size)
    everything = sample_for_fit(dynamics, rows.facts.total, rows.facts.total, training.seed)
    fewer = rows.facts.total > clustering_sample
    sample = sample_for_fit(dynamics, rows.facts.total, clustering_sample, training.seed) if fewer else everything
    estimate = settle_noise_rate(first, sample, "combined_margin", ground.manifest.num_classes)
    clustering = replace(clustering, noise_rate=estimate.value if estimate else None)
    _, is_copy = schema.decode_key(everything[schema.KEY].to_numpy())
    margins = schema.matrix(everything[schema.MARGIN].combine_chunks())
    fitted = fit_clusters(sample, clustering, ground.progress)
    q_noisy = _assigned(fitted, margins)
    left_out = everything[schema.LEAVE_ONE_OUT].to_numpy()
    found = {
        "margins": margins[~is_copy],
        "copy_margins": margins[is_copy],
        "q_noisy": q_noisy[~is_copy],
        "copy_q_noisy": q_noisy[is_copy],
        "leave_one_out": left_out[~is_copy],
        "copy_leave_one_out": left_out[is_copy],
        "noise_rate": estimate.value if estimate else None,
    }
    if ablation:
        start = time.monotonic()
        for name, changed in (("q_untrained", {"epochs": 0}), ("q_clustering_only", {"alpha": 0.0})):
            other = fit_clusters(sample, replace(clustering, **changed), ground.progress)
            found[name] = _assigned(other, margins[~is_copy])
        found[ABLATION_SECONDS] = time.monotonic() - start
    return found


def read_signals(place: Location, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Dynamics of every recorded signal (Table 6) after `gather_dynamics` with `TrainConfig.signals`.

    ids: int64 (N,), all instances, increasing. Returns column -> float16 (N, E), originals in order of the ids.
    """
    signals = place / SIGNALS
    files: SignalManifest = (signals / MANIFEST).read_json()
    epochs = sorted(files, key=int)
    found = {name: np.empty((len(ids), len(epochs)), np.float16) for name in COLUMNS}
    for column, epoch in enumerate(epochs):
        for name, values in zip(COLUMNS, _columns(signals, files, epoch, ids, COLUMNS), strict=True):
            found[name][:, column] = values
    return found


def _assigned(fitted: FittedClustering, margins: np.ndarray) -> np.ndarray:
    q_noisy: np.ndarray = fitted.assign(margins).astype(np.float32)
    return q_noisy


def gather_panel(
    ground: DetectionInputs, rows: TrainingRows, training: TrainConfig, parts: Sequence[str], place: Location
) -> dict[str, Any]:
    """What the baselines' classifiers say, trained side by side on the originals. rows: without copies."""
    config = replace(training, panel=tuple(parts))
    files = train(rows, config, ground.plan, place, ground.progress)
    signals, ids = place / SIGNALS, ground.labels.read().ids
    last = str(training.epochs - 1)
    found: dict[str, Any] = {}
    if "aum" in parts:
        total = np.zeros((len(AUM), len(ids)))
        for epoch in files:
            total += np.stack(_columns(signals, files, epoch, ids, AUM))
        found["aum"] = total / training.epochs
        classes = ground.manifest.num_classes
        found["threshold_sample"] = np.stack(
            [threshold_samples(ids, classes, training.seed, run) for run in range(len(AUM))]
        )
    if "out_of_sample" in parts:
        (found["probabilities"],) = _columns(signals, files, last, ids, (PROBABILITIES,))
    if "cores" in parts:
        (found["cores"],) = _columns(signals, files, last, ids, (CORES,))
    return found


def _columns(
    signals: Location, files: SignalManifest, epoch: str, ids: np.ndarray, names: Sequence[str]
) -> list[np.ndarray]:
    """Recorded columns of one epoch, originals. Raises CoverageError unless each id is there exactly once."""
    table = pa.concat_tables([(signals / name).read_table([schema.KEY, *names]) for name in files[epoch]])
    number, is_copy = schema.decode_key(table[schema.KEY].to_numpy())
    table, number = table.filter(pa.array(~is_copy)), number[~is_copy]
    order = np.argsort(number, kind="stable")
    if not np.array_equal(number[order], ids):
        got = f"{len(number):,}"
        raise CoverageError(expected_got(f"one value per row in epoch {epoch}", got, "report this as a defect"))
    values = [table[name].combine_chunks() for name in names]
    return [(schema.matrix(v) if pa.types.is_fixed_size_list(v.type) else v.to_numpy())[order] for v in values]
