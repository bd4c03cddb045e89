"""A finished run's directory made by hand: the files that `dynacor report` and its like read, without a training."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy import sparse

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.manifest import DataFile, DatasetManifest
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.decision.noise_rate import NoiseRate
from dynacor_ray.decision.thresholds import FlagRule
from dynacor_ray.method.selection import EpochRecord
from dynacor_ray.report.summary import FlagCounts, build_summary
from dynacor_ray.runs.records import DataSummary, RunSummary
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.registry import open_source

NAMES = ("cat", "dog", "owl")


def counts_of(pairs: Any, given: np.ndarray, copies: int, copies_flagged: int) -> FlagCounts:
    """Flags by class as a run counts them. pairs: int64 (C, C) [given, predicted], maybe sparse; given: int64 (C,)."""
    counts = FlagCounts(len(given), int(given.sum()), int(pairs.sum()), copies, copies_flagged)
    counts.pairs, counts.given = sparse.csr_array(pairs), given
    return counts


def summary_of(names: tuple[str, ...] = NAMES, **changes: Any) -> RunSummary:
    """The summary of a large run; the class at place i has 100 rows, i of them flagged."""
    data: dict[str, Any] = {
        **{"source": "parquet", "uri": "/data", "kind": "feature", "fingerprint": "f", "content_hash": "c"},
        **{"payload_hash": "p", "num_rows": 1_000_000, "class_names": names, "feature_dim": 2, "quarantine": "q"},
        **{"truth": None, "allows_thumbnails": True, "max_side": None, "gray": False, "quarantined": 0},
        **{"quarantine_reasons": {}, "quarantine_examples": []},
    }
    classes = [
        {"class": name, "rows": 100, "flagged": i, "flagged_share": i / 100, "estimated_noise_rate": None}
        for i, name in enumerate(names)
    ]
    values: dict[str, Any] = {
        **{"versions": {"dynacor_ray": "0.1.0"}, "config": {}, "seed": 0, "encoder": "features"},
        **{"num_rows": 1_000_000, "num_classes": len(names), "num_flagged": 123_456, "flagged_share": 0.123456},
        **{"estimated_noise_rate": 0.1, "noise_rate_range": [0.08, 0.12]},
        **{"num_corrupted": 100_000, "corrupted_recall": 0.9, "classes": classes, "pairs": []},
        **{"transition_matrix": None, "validation": {"chosen_epoch": 0, "epochs": []}, "evaluation": None},
        **{"warnings": [], "seconds": {"ingest": 2.0, "train": 30.25, "total": 32.5}},
    }
    return RunSummary(data=DataSummary(**data | changes.pop("data", {})), **values | changes)


def make_run(
    folder: Path,
    rows: int = 300,
    names: tuple[str, ...] = NAMES,
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
            schema.DUPLICATE_OF: pa.nulls(rows, pa.int64()),
        },
        schema=schema.issues_schema(),
    )
    folder.mkdir(parents=True)
    issues = issues.sort_by([(schema.LABEL_QUALITY, "ascending"), (schema.INSTANCE_ID, "ascending")])
    pq.write_table(issues, folder / "issues.parquet", row_group_size=100_000)
    pq.write_table(dynamics.cast(schema.dynamics_schema(epochs)), folder / "dynamics.parquet", row_group_size=100_000)
    places = (given[wrong], predicted[wrong])
    pairs = sparse.coo_array((np.ones(wrong.sum(), np.int64), places), (classes, classes)).tocsr()
    counts = counts_of(pairs, np.bincount(given, minlength=classes).astype(np.int64), len(copies), len(copies))
    manifest = _pack(folder / "cache" / "dataset", given, names, images)
    flag_rule: FlagRule = "noise_rate" if epochs > 1 else "paper"
    config = asdict(DetectConfig(data="/data/animals.parquet", epochs=epochs, flag_rule=flag_rule))
    same = {"davies_bouldin": None, "flagged_originals": noise, "flagged_corrupted": 1.0}
    summary = build_summary(
        config,
        manifest,
        counts,
        versions={"dynacor_ray": "0.1.0", "ray": "2.60"},
        encoder="pixels@8",
        epochs=[EpochRecord(epoch=i, validation_metric=0.2 + 0.05 * i, **same) for i in range(3)],
        chosen_epoch=2,
        noise_rate=NoiseRate(noise, 0.9 * noise, 1.1 * noise, noise),
        class_noise_rates=[noise] * classes,
        seconds={"start": 1.0, "ingest": 2.5, "train": 30.25, "total": 34.0},
        packed="cache/dataset",
        cluster={"nodes": 1, "cpus": 4.0, "gpus": 0.0},
    )
    (folder / "summary.json").write_text(json.dumps(asdict(summary) | changes))
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


def at(path: Path) -> Location:
    return locate(str(path))


def issues(run: Path) -> list[dict[str, Any]]:
    """All rows of a run, the most suspicious first."""
    rows: list[dict[str, Any]] = pq.read_table(run / "issues.parquet").to_pylist()
    return rows


def lines(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_of_data(
    tmp_path: Path, data: Path, source: str, ids: list[int] | None = None
) -> tuple[Path, list[dict[str, Any]]]:
    """A run of `data`, whose given labels are those of `make_run`; and its flagged rows."""
    run = tmp_path / "run"
    config = DetectConfig(data=str(data), epochs=6)
    summary = json.loads((run / "summary.json").read_text())
    summary["config"] = vars(config)
    summary["data"]["source"] = source
    (run / "summary.json").write_text(json.dumps(summary))
    found = open_source(str(data), SourceOptions.of(vars(config))).fingerprint()
    (run / "config.json").write_text(json.dumps({"identity": {"options": {}, "data": found}}))
    if ids is not None:
        table = pq.read_table(run / "issues.parquet")
        own = pa.array([ids[i] for i in table["instance_id"].to_pylist()], pa.int64())
        pq.write_table(table.set_column(0, "instance_id", own), run / "issues.parquet")
    return run, [row for row in issues(run) if row["is_label_issue"]]


def given_labels(run: Path) -> np.ndarray:
    """Given labels in the order of the ids."""
    table = pq.read_table(run / "issues.parquet").sort_by("instance_id")
    labels: np.ndarray = table["given_label"].to_numpy()
    return labels
