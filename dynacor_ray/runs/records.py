"""What trials, detectors and readers leave as records in a run directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynacor_ray.method.selection import EPOCH_CHOICES, RUN_RULES, EpochRecord, choose_epoch, score

SHARES = ("f1", "precision", "recall", "auroc", "average_precision", "oracle_f1")


AVERAGED = (*SHARES, "flagged_share", "seconds")


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
