"""The label noise model on blocks of dynamics: fitted on a sample, applied to all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from scipy import sparse

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import TwinLabels
from dynacor_ray.core.progress import Progress
from dynacor_ray.decision.fitted_decision import FittedDecision, ScoredRows, fit_decision
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.engine.dynamics.assemble import HAS_COPY
from dynacor_ray.engine.runtime.blocks import Blocks
from dynacor_ray.engine.runtime.tasks import run_task
from dynacor_ray.method.corruption import corrupted_label


def fit_label_noise(
    sample: pa.Table,
    num_classes: int,
    seed: int,
    surest: NoiseRate | None,
    progress: Progress,
    twins: TwinLabels | None = None,
) -> FittedDecision | None:
    """Fit on a sample of blocks, in one task; None where no class scores were recorded.

    seed: that of the corruption, which decides the copies' labels; twins: the labels of equal rows.
    """
    if schema.ALL_CLASS_SCORES not in sample.column_names:
        return None

    def work(rows: pa.Table) -> FittedDecision:
        return fit_decision(scored_rows(rows, num_classes, seed, twins), surest)

    with progress.stage("label noise", None, "rows"):
        return run_task(work, sample)


def scored_rows(block: pa.Table, num_classes: int, seed: int, twins: TwinLabels | None = None) -> ScoredRows:
    """What the model reads of a block of dynamics."""
    ids, is_copy = schema.decode_key(block[schema.KEY].to_numpy())
    given = block[schema.GIVEN_LABEL].to_numpy().astype(np.int64)
    has_copy = block[HAS_COPY].to_numpy()
    corrupted = corrupted_label(given, ids, num_classes, seed).astype(np.int64)
    scores = schema.matrix(block[schema.ALL_CLASS_SCORES]).reshape(len(ids), len(schema.CLASS_SCORES), -1)
    return ScoredRows(
        scores=np.moveaxis(scores, 1, 0),
        classes=schema.matrix(block[schema.LIKELY_CLASSES]).astype(np.int64),
        other_labels=np.where(is_copy, given, np.where(has_copy, corrupted, -1)),
        is_copy=is_copy,
        num_classes=num_classes,
        twins=None if twins is None else _twins(ids, given, num_classes, twins),
    )


def _twins(ids: np.ndarray, given: np.ndarray, num_classes: int, twins: TwinLabels) -> sparse.csr_array:
    """Labels of the other rows of each row's group, or of a copy's original's, (n, C)."""
    row, label, count = twins.cells(ids)
    others = count - (label == given[row])
    return sparse.csr_array((others.astype(np.float64), (row, label)), shape=(len(ids), num_classes))


def with_log_odds(
    block: pa.Table, fitted: FittedDecision, num_classes: int, seed: int, twins: TwinLabels | None = None
) -> pa.Table:
    """The block with log odds, and the model's most probable class where it has a predicted one; without scores."""
    rows = scored_rows(block, num_classes, seed, twins)
    block = block.drop([schema.LIKELY_CLASSES, schema.ALL_CLASS_SCORES])
    block = block.append_column(schema.LOG_ODDS, pa.array(fitted.log_odds(rows)))
    if schema.PREDICTED_LABEL not in block.column_names:
        return block
    place = block.column_names.index(schema.PREDICTED_LABEL)
    return block.set_column(place, schema.PREDICTED_LABEL, pa.array(fitted.suggested(rows)))


def score_rows(
    dynamics: Blocks, fitted: FittedDecision, num_classes: int, seed: int, twins: TwinLabels | None = None
) -> Blocks:
    """`with_log_odds` of every block."""

    def work(block: pa.Table, shared: tuple[FittedDecision, TwinLabels | None]) -> pa.Table:
        known, others = shared
        return with_log_odds(block, known, num_classes, seed, others)

    return dynamics.map(work, (fitted, twins))
