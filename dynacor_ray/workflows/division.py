"""The rows that DivideMix, DDyna-S or DDyna-L takes for wrong, as the table that `detect` writes (§5.5, Fig. 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import read_rows
from dynacor_ray.engine.data.training_rows import TrainingRows
from dynacor_ray.engine.dynamics.assemble import assemble
from dynacor_ray.engine.dynamics.clustering import (
    assign,
    count_flags,
    find_threshold,
    fit_clusters,
    judged_rows,
    sample_for_fit,
    write_issues,
)
from dynacor_ray.engine.runtime.blocks import Blocks
from dynacor_ray.engine.training.recorded_signals import RecordedSignals
from dynacor_ray.engine.training.signal_files import CLEAN
from dynacor_ray.ground_truth.metrics import evaluate_issues
from dynacor_ray.robust.dividemix import THRESHOLD
from dynacor_ray.runs.directory import ISSUES
from dynacor_ray.workflows.prepare import clustering_config


def write_division(
    config: DetectConfig,
    method: str,
    rows: TrainingRows,
    signals: RecordedSignals,
    best: int | None,
    run: Location,
    progress: Progress,
) -> dict[str, Any]:
    """Write `issues.parquet`; returns what the summary says of it.

    Args:
        config: The options of corruption and clustering.
        method: DDyna-L is judged by §4.4 on all dynamics, the others by how they divided the rows in one epoch.
        rows: What was trained on; other rows are not judged, and judged are the labels that were learned.
        signals: What was recorded.
        best: The epoch, from 0, with the best test accuracy; None without test rows: the last.
        run: Where to.
        progress: Where the rows done are shown.
    """
    dataset, corruption = rows.dataset, rows.facts.corruption
    dynamics, duplicates = assemble(dataset, signals, corruption, progress), dataset.duplicates()
    if method == "ddyna_l":
        sample = sample_for_fit(dynamics, rows.facts.total, config.clustering_sample, config.seed)
        fitted = fit_clusters(sample, clustering_config(config, None), progress)
        cut = find_threshold(sample, fitted, config.effective_flag_rule, config.effective_ranking_score)
        assigned = assign(dynamics, fitted, cut, duplicates)
        chosen: dict[str, Any] = {"by": "dynamics", "clustering_epoch": fitted.epoch}
    else:
        epoch = len(signals.files) - 1 if best is None else best
        assigned = _divided(dynamics, signals, epoch, duplicates)
        chosen = {"by": "division", "epoch": epoch + 1, "epoch_by": "last" if best is None else "test accuracy"}
    write_issues(assigned, run / ISSUES)
    counts = count_flags(assigned, dataset.num_classes)
    chosen["num_flagged"] = counts.flagged
    columns = [schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.IS_LABEL_ISSUE, schema.LABEL_QUALITY]
    found = read_rows(run / ISSUES, columns)
    return chosen | {"evaluation": evaluate_issues(found, dataset.truth.read_table()) if dataset.truth else None}


def _divided(dynamics: Blocks, signals: RecordedSignals, epoch: int, duplicates: Duplicates | None) -> Blocks:
    """Rows by the probability that their label is right, as one epoch divided them."""

    def work(block: pa.Table, equal: Duplicates | None) -> pa.Table:
        clean = signals.columns(epoch, block[schema.KEY].to_numpy(), [CLEAN])[CLEAN].astype(np.float64)
        return judged_rows(block, clean < THRESHOLD, clean, (1.0 - clean).astype(np.float32), equal)

    return dynamics.map(work, duplicates).materialize()
