"""What runs, detectors and readers of signals leave as JSON records in a run directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, expected_got
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.storage import Location
from dynacor_ray.runs.directory import SUMMARY

SHARES = ("f1", "precision", "recall", "auroc", "average_precision", "oracle_f1")
AVERAGED = (*SHARES, "flagged_share", "seconds")
EXAMPLES = 10
"""Quarantined rows that `summary.json` shows."""
ASK_FOR_REVIEW = "dynacor review RUN"
"""In a warning that answers of a person make pointless."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What `summary.json` says of the data: the manifest of the packed data without its files.

    packed: where the packed data are, seen from the run directory (`runs.directory.packed_place`).
    """

    source: str
    uri: str
    kind: str
    fingerprint: str
    content_hash: str
    payload_hash: str
    num_rows: int
    class_names: Sequence[str]
    feature_dim: int | None
    quarantine: str
    truth: str | None
    allows_thumbnails: bool
    max_side: int | None
    gray: bool
    quarantined: int
    quarantine_reasons: dict[str, int]
    quarantine_examples: Sequence[dict[str, Any]]
    packed: str = ""

    @classmethod
    def of(cls, manifest: DatasetManifest, packed: str) -> DataSummary:
        """The summary of a manifest, with at most `EXAMPLES` quarantined rows."""
        shared = {f.name: getattr(manifest, f.name) for f in dataclasses.fields(cls) if f.name != "packed"}
        return cls(**shared | {"packed": packed, "quarantine_examples": manifest.quarantine_examples[:EXAMPLES]})


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """`summary.json` of a detect run: its fields are the keys of the file.

    Shares and rates are in [0, 1]. seconds: wall time per stage.
    """

    versions: dict[str, str]
    config: dict[str, Any]
    """The options of the run (`DetectConfig`)."""
    seed: int
    encoder: str
    data: DataSummary
    num_rows: int
    num_classes: int
    num_flagged: int
    flagged_share: float
    estimated_noise_rate: float | None
    """Share of wrong labels that the training estimates; None when it was too short for an estimate."""
    noise_rate_range: Sequence[float] | None
    """Low and high end of that estimate."""
    num_corrupted: int
    """Corrupted copies (§4.2)."""
    corrupted_recall: float
    """Share of the corrupted copies that were flagged."""
    classes: Sequence[dict[str, Any]]
    """Per given class in class order: class (its name), rows, flagged, flagged_share, estimated_noise_rate."""
    pairs: Sequence[dict[str, Any]]
    """The most frequent pairs among flagged rows: given, predicted, flagged."""
    transition_matrix: Sequence[Sequence[float]] | None
    """Estimate of P(given = j | true = i), rows sum to 1; None for many classes."""
    validation: dict[str, Any]
    """chosen_epoch of the clustering, and the `EpochRecord` of each of its epochs."""
    evaluation: dict[str, Any] | None
    """`ground_truth.metrics.detection_metrics`, where the true labels are known."""
    warnings: Sequence[str]
    seconds: dict[str, float]
    notes: Sequence[str] = ()
    """What was taken for what in the data, where nothing is lost."""
    training_waited_for_rows: float | None = None
    """Share of the training's time spent waiting for rows."""
    duplicates: dict[str, Any] | None = None
    """Rows with the same image or feature, `report.summary.duplicate_table`; None without any."""
    cluster: dict[str, float] | None = None
    """What the cluster had: nodes, cpus, gpus."""
    quality_log_odds: Sequence[float] | None = None
    """log P(wrong) / P(right) of a row at the cut, and how much it falls per unit of distance d to it, where the label
    quality is 1/2 + d / (2 + 2 |d|); None where no label noise model made the quality."""
    label_noise: dict[str, Any] | None = None
    """What the label noise model says, `report.summary.label_noise_table`; None without one."""
    encoder_reason: str | None = None
    """Why this encoder, and what would make a better or quicker one; None where there is nothing to say."""
    embedding: dict[str, float] | None = None
    """Seconds of decoding and of encoding images, over all processors; None where this run embedded nothing."""

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in class order."""
        return [row["class"] for row in self.classes]

    @property
    def total_seconds(self) -> float:
        """Wall time of the whole run."""
        return self.seconds.get("total", sum(self.seconds.values()))

    @property
    def validation_metric(self) -> list[float]:
        """Eq. 9 in each epoch of the clustering."""
        return [float(record["validation_metric"]) for record in self.validation["epochs"]]

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> RunSummary:
        """The summary with this content; keys of other versions are left out.

        Raises:
            RunDirectoryError: A key is missing.
        """
        try:
            data = DataSummary(**_known(DataSummary, held["data"]))
            return cls(**_known(cls, held) | {"data": data})
        except (TypeError, KeyError, AttributeError) as error:
            got = f"one that does not fit ({error})"
            remedy = "run dynacor detect again with another --out"
            raise RunDirectoryError(expected_got(f"the {SUMMARY} of a detect run", got, remedy)) from error

    def write(self, run: Location) -> None:
        """Write `summary.json`, whose presence says that the run is complete."""
        (run / SUMMARY).write_json(dataclasses.asdict(self))

    @classmethod
    def read(cls, run: Location) -> RunSummary:
        """The summary of a finished run. Raises RunDirectoryError when it is another program's or version's."""
        return cls.from_json((run / SUMMARY).read_json())


def _known(kind: type[Any], held: dict[str, Any]) -> dict[str, Any]:
    """The entries that are fields of a dataclass."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: held[name] for name in names if name in held}


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What one detector made of one noise and seed.

    Attributes:
        noise: "given", or kind and rate, "symmetric:0.6".
        seed: Of noise, corruption and training.
        detector: Its name in the registry.
        title: Its name for people.
        flagged_share: In [0, 1]; None where it failed.
        metrics: `ground_truth.metrics.detection_metrics`, or empty.
        seconds: What the detector needed, its evidence included.
        message: Why it failed, None when it did not; a failed one counts in no mean.
    """

    noise: str
    seed: int
    detector: str
    title: str
    flagged_share: float | None
    metrics: dict[str, Any]
    seconds: float
    message: str | None = None

    def value(self, name: str) -> float | None:
        """One of `AVERAGED`; None where it is undefined or the detector failed."""
        if self.message is not None:
            return None
        value = getattr(self, name) if name in ("flagged_share", "seconds") else self.metrics.get(name)
        return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one reader made of one signal under one corruption rate.

    signal: a name of `method.signals.SIGNALS`, None for a detector; reader: one of SUPERVISED or UNSUPERVISED;
    judgment: what a comparison would say of it.
    """

    gamma: float
    signal: str | None
    reader: str
    judgment: Judgment

    @property
    def series(self) -> str:
        """The name of this row of the table."""
        return self.judgment.detector

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Finding:
        """Inverse of `dataclasses.asdict`."""
        return cls(**held | {"judgment": Judgment(**held["judgment"])})
