"""What runs, trials, detectors and readers of signals leave as JSON records in a run directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynacor_ray.core.errors import RunDirectoryError, expected_got
from dynacor_ray.core.manifest import DatasetManifest
from dynacor_ray.core.storage import Location
from dynacor_ray.method.selection import EPOCH_CHOICES, RUN_RULES, EpochRecord, choose_epoch, score
from dynacor_ray.runs.directory import SUMMARY

SHARES = ("f1", "precision", "recall", "auroc", "average_precision", "oracle_f1")
AVERAGED = (*SHARES, "flagged_share", "seconds")
EXAMPLES = 10
"""Quarantined rows that `summary.json` shows."""


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
    training_waited_for_rows: float | None = None
    """Share of the training's time spent waiting for rows."""
    cluster: dict[str, float] | None = None
    """What the cluster had: nodes, cpus, gpus."""

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

    def as_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> RunSummary:
        """Inverse of `as_json`; keys of other versions are left out.

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
        (run / SUMMARY).write_json(self.as_json())

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

    noise: "given", or kind and rate, "symmetric:0.6". detector: its name in the registry; title: the one for people.
    metrics: `evaluation.detection_metrics`, or empty. seconds: what the detector needed, its evidence included.
    message: why it failed, None when it did not; a failed one counts in no mean.
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

    def as_json(self) -> dict[str, Any]:
        """All fields; `Judgment(**judgment.as_json())` is the same judgment."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished clustering trial; shares and metrics are those of the epoch that it kept.

    options: what was varied. evaluation: `evaluation.detection_metrics`, empty without true labels. epochs: one record
    per epoch of the clustering (`EpochRecord`), with its F1 where the truth is known.
    """

    options: dict[str, Any]
    training: str
    epoch: int
    noise_rate: float | None
    evaluation: dict[str, Any]
    epochs: list[dict[str, Any]]
    seconds: float

    @property
    def rules(self) -> list[str]:
        """Rules that can judge this trial: without an estimate of the noise rate, all but the one that needs it."""
        return [rule for rule in RUN_RULES if rule != "noise_rate" or self.noise_rate is not None]

    @property
    def records(self) -> list[EpochRecord]:
        """What is known of each epoch without the truth."""
        names = [field.name for field in dataclasses.fields(EpochRecord)]
        return [EpochRecord(**{name: epoch[name] for name in names}) for epoch in self.epochs]

    def at(self, epoch: int) -> dict[str, Any]:
        """Scores, shares and F1 of one epoch, under the names of the table's columns."""
        record = self.records[epoch]
        return {
            "epoch": epoch,
            **{rule: score(record, rule, self.noise_rate) for rule in self.rules},
            "estimated_noise_rate": self.noise_rate,
            "corrupted_recall": record.flagged_corrupted,
            "flagged_share": record.flagged_originals,
            "f1": self.epochs[epoch]["f1"],
        }

    def epoch_by(self, rule: str) -> int:
        """The epoch that another rule would have kept."""
        return choose_epoch(self.records, rule, self.noise_rate)

    def score(self, rule: str) -> float:
        """What `rule` says of the epoch that was kept; larger is better."""
        return score(self.records[self.epoch], rule, self.noise_rate)

    @property
    def f1(self) -> float | None:
        """F1 of the flags, where the truth is known."""
        return self.evaluation.get("f1")

    def f1_by_epoch_choice(self) -> dict[str, float | None]:
        """Table 3 for one trial: F1 by rule of choosing the epoch, and of the best epoch, which needs the truth."""
        known = [epoch["f1"] for epoch in self.epochs if epoch["f1"] is not None]
        choices = [rule for rule in EPOCH_CHOICES if rule in self.rules or rule not in RUN_RULES]
        chosen = {rule: self.epochs[self.epoch_by(rule)]["f1"] for rule in choices}
        return {**chosen, "oracle": max(known, default=None)}

    def as_json(self) -> dict[str, Any]:
        """All fields; `Trial(**trial.as_json())` is the same trial."""
        return dataclasses.asdict(self)


def choose_trial(trials: Sequence[Trial], rule: str) -> Trial:
    """The trial that the rule likes best; of equally good ones the first. Sees no truth."""
    return max(trials, key=lambda trial: trial.score(rule))


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

    def as_json(self) -> dict[str, Any]:
        """All fields; the inverse of `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, held: dict[str, Any]) -> Finding:
        """The same finding."""
        return cls(**held | {"judgment": Judgment(**held["judgment"])})
