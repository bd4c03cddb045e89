"""A finished run's directory made by hand: the files that `dynacor report` and its like read, without a training."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.decision.thresholds import FlagRule
from dynacor_ray.report.summary import RunResults, build_summary


@dataclass
class Counted:
    """Counts as `engine.cluster.Tally` has them."""

    originals: int
    flagged: int
    copies: int
    copies_flagged: int
    pairs: np.ndarray
    given: np.ndarray


def make_run(
    folder: Path,
    rows: int = 300,
    names: tuple[str, ...] = ("cat", "dog", "owl"),
    noise: float = 0.1,
    epochs: int = 6,
    images: bool = False,
    uris: list[str | None] | None = None,
    **changes: Any,
) -> Path:
    """Write a run of `rows` rows into `folder`; the last `noise` of a random order are wrong and flagged.

    Instance i has margin 2 where right and -2 where wrong, plus noise. changes: entries of `summary.json` to replace.
    """
    random = np.random.default_rng(0)
    classes = len(names)
    given = random.integers(0, classes, rows).astype(np.int32)
    wrong = random.permutation(rows) < round(noise * rows)
    other = (given + random.integers(1, classes, rows)) % classes
    predicted = np.where(wrong, other, given).astype(np.int32)
    copies = np.flatnonzero(random.random(rows) < 0.1)
    keys = np.concatenate([np.arange(rows) << 1, (copies << 1) | 1])
    sign = np.concatenate([np.where(wrong, -2.0, 2.0), np.full(len(copies), -2.0)])
    margins = (sign[:, None] + random.normal(size=(len(keys), epochs)) * 0.8).astype(np.float16)
    order = np.argsort(keys)
    share = np.where(wrong, 0.8, 1.0).astype(np.float32)
    dynamics = pa.table(
        {
            schema.KEY: keys[order],
            schema.MARGIN: schema.fixed_size_list(margins[order]),
            schema.PREDICTED_LABEL: np.concatenate([predicted, predicted[copies]])[order],
            schema.PREDICTED_SHARE: np.concatenate([share, share[copies]])[order],
            schema.LEAVE_ONE_OUT: np.zeros(len(order), np.float32),
        }
    )
    mean = margins[:rows].astype(np.float32).mean(axis=1)
    quality = np.where(wrong, 0.25, 0.75) + 0.2 * mean / (1 + np.abs(mean))
    quality = np.where(wrong, np.minimum(quality, 0.49), np.maximum(quality, 0.51))
    issues = pa.table(
        {
            schema.INSTANCE_ID: np.arange(rows),
            schema.URI: pa.array(uris or [f"images/{i:07d}.png" for i in range(rows)], pa.string()),
            schema.GIVEN_LABEL: given,
            schema.PREDICTED_LABEL: predicted,
            schema.IS_LABEL_ISSUE: wrong,
            schema.LABEL_QUALITY: quality,
            schema.NOISE_SCORE: (1 - quality).astype(np.float32),
            schema.MEAN_MARGIN: mean,
            schema.PREDICTED_SHARE: share,
        },
        schema=schema.issues_schema(),
    )
    folder.mkdir(parents=True)
    issues = issues.sort_by([(schema.LABEL_QUALITY, "ascending"), (schema.INSTANCE_ID, "ascending")])
    pq.write_table(issues, folder / "issues.parquet", row_group_size=100_000)
    pq.write_table(dynamics.cast(schema.dynamics_schema(epochs)), folder / "dynamics.parquet", row_group_size=100_000)
    pairs = np.zeros((classes, classes), np.int64)
    np.add.at(pairs, (given[wrong], predicted[wrong]), 1)
    counts = Counted(
        rows, int(wrong.sum()), len(copies), len(copies), pairs, np.bincount(given, minlength=classes).astype(np.int64)
    )
    manifest = _pack(folder / "cache" / "dataset", given, names, images)
    flag_rule: FlagRule = "noise_rate" if epochs > 1 else "paper"
    config = asdict(DetectConfig(data="/data/animals.parquet", epochs=epochs, flag_rule=flag_rule))
    records = [{"epoch": i, "validation_metric": 0.2 + 0.05 * i, "davies_bouldin": None} for i in range(3)]
    facts = RunResults(
        config,
        {"dynacor_ray": "0.1.0", "ray": "2.60"},
        manifest,
        "pixels@8",
        counts,
        records,
        2,
        None,
        {"value": noise, "low": 0.9 * noise, "high": 1.1 * noise},
        [noise] * classes,
        packed="cache/dataset",
        cluster={"nodes": 1, "cpus": 4.0, "gpus": 0.0},
    )
    seconds = {"start": 1.0, "ingest": 2.5, "train": 30.25, "total": 34.0}
    summary = build_summary(facts, seconds) | changes
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _pack(dataset: Path, given: np.ndarray, names: tuple[str, ...], images: bool) -> DatasetManifest:
    """A packed data set of plain colored images, one color per row; or a manifest of features only."""
    rows = len(given)
    manifest = DatasetManifest(
        source="parquet",
        uri="/data/animals.parquet",
        kind="image" if images else "feature",
        fingerprint="f",
        content_hash="c",
        payload_hash="p",
        num_rows=rows,
        class_names=names,
        class_counts=tuple(np.bincount(given, minlength=len(names)).tolist()),
        feature_dim=None if images else 2,
        parts=(DataFile("a1/part-000000.parquet", rows, 0, rows - 1),),
        quarantine="a1/quarantine.parquet",
        truth=None,
        allows_thumbnails=True,
        max_side=24 if images else None,
    )
    if images:
        (dataset / "a1").mkdir(parents=True)
        contents = [_png(i) for i in range(rows)]
        table = pa.table(
            {
                schema.INSTANCE_ID: np.arange(rows),
                schema.URI: pa.nulls(rows, pa.string()),
                schema.GIVEN_LABEL: given,
                schema.IMAGE: pa.array(contents, pa.binary()),
            },
            schema=schema.dataset_schema(None),
        )
        pq.write_table(table, dataset / "a1" / "part-000000.parquet", row_group_size=64)
        (dataset / "manifest.json").write_text(json.dumps(asdict(manifest)))
    return manifest


def _png(i: int) -> bytes:
    """24 x 16 pixels in a color that tells the row."""
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (i * 37 % 256, i * 59 % 256, i * 83 % 256)).save(stream, "PNG")
    return stream.getvalue()
