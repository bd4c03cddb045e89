"""Fit the dynamics encoder on a sample, assign all rows, rank the originals (§4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.core.storage import Location
from dynacor_ray.decision.corrupted_copy_rate import with_corrupted_copies
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.decision.thresholds import DecisionThreshold, RowSignals, choose_threshold, common_unit, row_score
from dynacor_ray.engine.dynamics.assemble import HAS_COPY
from dynacor_ray.engine.runtime.session import remote_errors
from dynacor_ray.method.clustering import ClusteringConfig, FittedClustering, fit
from dynacor_ray.method.selection import EpochRecord
from dynacor_ray.report.summary import FlagCounts


def sample_for_fit(dynamics: ray.data.Dataset, total: int, clustering_sample: int, seed: int) -> pa.Table:
    """At most about `clustering_sample` rows (key, margins, has_copy, given_label), copies with their instances."""
    share = clustering_sample / total

    def choose(block: pa.Table) -> pa.Table:
        ids, _ = schema.decode_key(block[schema.KEY].to_numpy())
        names = [schema.KEY, schema.MARGIN, schema.LEAVE_ONE_OUT, HAS_COPY, schema.GIVEN_LABEL, schema.ALL_CLASS_SCORES]
        rows = block.select([name for name in names if name in block.column_names])
        return rows if share >= 1 else rows.filter(pa.array(keyed_uniform(seed, Purpose.FIT_SAMPLE, ids) < share))

    chosen = dynamics.map_batches(choose, batch_format="pyarrow", batch_size=None)
    with remote_errors():
        blocks = list(chosen.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    return pa.concat_tables(blocks).sort_by(schema.KEY)


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
    """Fit on a sample, in one Ray task (the data are small: N x E numbers, sampled)."""

    @ray.remote(num_cpus=1)
    def work(rows: pa.Table) -> FittedClustering:
        import torch

        # Its steps are too small to share: two threads are no faster alone, and many times slower on a busy machine.
        torch.set_num_threads(1)
        return fit_sample(rows, config)

    with progress.stage("cluster", None, "rows"), remote_errors():
        result: FittedClustering = ray.get(work.remote(sample))
    return result


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
    dynamics: ray.data.Dataset, fitted: FittedClustering, cut: DecisionThreshold, duplicates: Duplicates | None = None
) -> ray.data.Dataset:
    """q_noisy (Eq. 3) and flag of every row, with `issues.parquet`'s columns and key; materialized."""
    shared = ray.put((fitted, duplicates))

    def work(block: pa.Table) -> pa.Table:
        clustering, equal = ray.get(shared)
        signals = row_signals(block, clustering)
        flags, quality = cut.apply(signals)
        ids, _ = schema.decode_key(block[schema.KEY].to_numpy())
        columns = {
            schema.KEY: block[schema.KEY],
            schema.INSTANCE_ID: pa.array(ids),
            schema.URI: block[schema.URI],
            schema.GIVEN_LABEL: block[schema.GIVEN_LABEL],
            schema.PREDICTED_LABEL: block[schema.PREDICTED_LABEL],
            schema.IS_LABEL_ISSUE: pa.array(flags),
            schema.LABEL_QUALITY: pa.array(quality),
            schema.NOISE_SCORE: pa.array(signals.q_noisy),
            schema.MEAN_MARGIN: pa.array(signals.margins.astype(np.float32).mean(axis=1)),
            schema.PREDICTED_SHARE: block[schema.PREDICTED_SHARE],
            schema.DUPLICATE_OF: _duplicate_of(ids, equal),
        }
        return pa.table(columns)

    with remote_errors():
        return dynamics.map_batches(work, batch_format="pyarrow", batch_size=None).materialize()


def _duplicate_of(ids: np.ndarray, duplicates: Duplicates | None) -> pa.Array:
    """The smallest id of each row's group, null without a twin."""
    if duplicates is None:
        return pa.nulls(len(ids), pa.int64())
    return pa.array(duplicates.first_of(ids), mask=~duplicates.has_twin(ids))


def count_flags(assigned: ray.data.Dataset, num_classes: int) -> FlagCounts:
    """Count flags by class over all rows."""
    counts = FlagCounts(num_classes)
    for block in _blocks(assigned):
        counts.add(block)
    return counts


def write_issues(assigned: ray.data.Dataset, place: Location) -> None:
    """Write `issues.parquet`: the originals, most suspicious first, whole or not at all."""
    wanted = schema.issues_schema()

    def originals(block: pa.Table) -> pa.Table:
        _, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
        return block.filter(pa.array(~is_copy)).select(wanted.names)

    chosen = assigned.map_batches(originals, batch_format="pyarrow", batch_size=None)
    ranked = chosen.sort([schema.LABEL_QUALITY, schema.INSTANCE_ID])

    def write(part: Location) -> None:
        with pq.ParquetWriter(part.path, wanted, filesystem=part.filesystem) as writer:
            for block in _blocks(ranked):
                writer.write_table(block.cast(wanted))

    place.write_atomically(write)


def _blocks(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    with remote_errors():
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
