"""Fit the dynamics encoder on a sample, assign all rows, rank the originals (§4.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import write_rows
from dynacor_ray.decision.corrupted_copy_rate import with_corrupted_copies
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.decision.thresholds import DecisionThreshold, RowSignals, choose_threshold, common_unit, row_score
from dynacor_ray.engine.dynamics.assemble import HAS_COPY
from dynacor_ray.engine.runtime.blocks import Blocks
from dynacor_ray.engine.runtime.tasks import run_task
from dynacor_ray.method.clustering import ClusteringConfig, FittedClustering, fit
from dynacor_ray.method.selection import EpochRecord
from dynacor_ray.report.summary import FlagCounts


def sample_for_fit(dynamics: Blocks, total: int, clustering_sample: int, seed: int) -> pa.Table:
    """At most about `clustering_sample` rows (key, margins, has_copy, given_label), copies with their instances."""
    share = clustering_sample / total

    def choose(block: pa.Table, _shared: None) -> pa.Table:
        names = [schema.KEY, schema.MARGIN, schema.LEAVE_ONE_OUT, HAS_COPY, schema.GIVEN_LABEL]
        names += [schema.LIKELY_CLASSES, schema.ALL_CLASS_SCORES]
        return choose_rows(block.select([name for name in names if name in block.column_names]), share, seed)

    return pa.concat_tables(dynamics.map(choose)).sort_by(schema.KEY)


def choose_rows(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """About this share of all rows, copies with their instances. A smaller share is a part of a larger one."""
    if share >= 1:
        return rows
    ids, _ = schema.decode_key(rows[schema.KEY].to_numpy())
    return rows.filter(pa.array(keyed_uniform(seed, Purpose.FIT_SAMPLE, ids) < share))


def settle_noise_rate(first: NoiseRate | None, sample: pa.Table, score: str, num_classes: int) -> NoiseRate | None:
    """The estimate of the noise rate completed by a ranking of the rows that the clustering is fitted on.

    first: what sure predictions say; score: one of `thresholds.SCORES` that are made of margins.
    """
    if first is None:
        return None
    originals, copies = _both_sets(sample, None)
    weight = common_unit(originals)
    return with_corrupted_copies(
        first, row_score(score, originals, weight), row_score(score, copies, weight), num_classes
    )


def fit_clusters(sample: pa.Table, config: ClusteringConfig, progress: Progress) -> FittedClustering:
    """Fit on a sample, in one task (the data are small: N x E numbers, sampled)."""
    with progress.stage("cluster", None, "rows"):
        return run_task(fit_sample, sample, config)


def fit_sample(
    sample: pa.Table, config: ClusteringConfig, on_epoch: Callable[[EpochRecord, np.ndarray], None] | None = None
) -> FittedClustering:
    """`fit` on a table made by `sample_for_fit`, in this process."""
    _, is_corrupted = schema.decode_key(sample[schema.KEY].to_numpy())
    margins = schema.matrix(sample[schema.MARGIN].combine_chunks())
    return fit(margins, is_corrupted, sample[HAS_COPY].to_numpy() & ~is_corrupted, config, on_epoch)


def find_threshold(
    sample: pa.Table, fitted: FittedClustering, threshold: str, score: str, **more: Any
) -> DecisionThreshold:
    """Where the ranking is cut, from the rows that the clustering was fitted on.

    more: target_recall, most_recall and log_odds_cut, as in `thresholds.choose_threshold`.
    """
    originals, copies = _both_sets(sample, fitted)
    return choose_threshold(threshold, score, originals, copies, noise_rate=fitted.config.noise_rate, **more)


def _both_sets(sample: pa.Table, fitted: FittedClustering | None) -> tuple[RowSignals, RowSignals]:
    """The signals of the originals and of the copies."""
    _, is_corrupted = schema.decode_key(sample[schema.KEY].to_numpy())
    signals = row_signals(sample, fitted)
    return signals.of(~is_corrupted), signals.of(is_corrupted)


def row_signals(rows: pa.Table, fitted: FittedClustering | None) -> RowSignals:
    """What the cut looks at; without a fit q is 0. rows: with the columns margin and leave_one_out_margin."""
    margins = schema.matrix(rows[schema.MARGIN])
    q_noisy = np.zeros(len(rows)) if fitted is None else fitted.assign(margins)
    left_out = rows[schema.LEAVE_ONE_OUT].to_numpy()
    log_odds = rows[schema.LOG_ODDS].to_numpy() if schema.LOG_ODDS in rows.column_names else None
    q_noisy = q_noisy.astype(np.float32)
    return RowSignals(margins=margins, q_noisy=q_noisy, leave_one_out=left_out, log_odds=log_odds)


def assign(
    dynamics: Blocks, fitted: FittedClustering, cut: DecisionThreshold, duplicates: Duplicates | None = None
) -> Blocks:
    """q_noisy (Eq. 3) and flag of every row, with `issues.parquet`'s columns and key; materialized."""

    def work(block: pa.Table, shared: tuple[FittedClustering, Duplicates | None]) -> pa.Table:
        clustering, equal = shared
        signals = row_signals(block, clustering)
        flags, quality = cut.apply(signals)
        return judged_rows(block, flags, quality, signals.q_noisy, equal)

    return dynamics.map(work, (fitted, duplicates)).materialize()


def judged_rows(
    block: pa.Table, flags: np.ndarray, quality: np.ndarray, noise: np.ndarray, duplicates: Duplicates | None
) -> pa.Table:
    """Rows of dynamics as `assign` returns them. flags bool, quality float64, noise float32 (n,) each."""
    ids, _ = schema.decode_key(block[schema.KEY].to_numpy())
    columns = {
        schema.KEY: block[schema.KEY],
        schema.INSTANCE_ID: pa.array(ids),
        schema.URI: block[schema.URI],
        schema.GIVEN_LABEL: block[schema.GIVEN_LABEL],
        schema.PREDICTED_LABEL: block[schema.PREDICTED_LABEL],
        schema.IS_LABEL_ISSUE: pa.array(flags),
        schema.LABEL_QUALITY: pa.array(quality),
        schema.NOISE_SCORE: pa.array(noise),
        schema.MEAN_MARGIN: pa.array(schema.matrix(block[schema.MARGIN]).astype(np.float32).mean(axis=1)),
        schema.PREDICTED_SHARE: block[schema.PREDICTED_SHARE],
        schema.DUPLICATE_OF: _duplicate_of(ids, duplicates),
    }
    return pa.table(columns)


def _duplicate_of(ids: np.ndarray, duplicates: Duplicates | None) -> pa.Array:
    """The smallest id of each row's group, null without a twin."""
    if duplicates is None:
        return pa.nulls(len(ids), pa.int64())
    return pa.array(duplicates.first_of(ids), mask=~duplicates.has_twin(ids))


def count_flags(assigned: Blocks, num_classes: int) -> FlagCounts:
    """Count flags by class over all rows."""
    counts = FlagCounts(num_classes)
    for block in assigned:
        counts.add(block)
    return counts


def write_issues(assigned: Blocks, place: Location) -> None:
    """Write `issues.parquet`: the originals, most suspicious first, whole or not at all."""
    wanted = schema.issues_schema()

    def originals(block: pa.Table, _shared: None) -> pa.Table:
        _, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
        return block.filter(pa.array(~is_copy)).select(wanted.names)

    write_rows(place, wanted, assigned.map(originals).sort([schema.LABEL_QUALITY, schema.INSTANCE_ID]))
