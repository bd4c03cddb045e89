"""What a sweep leaves: a record per trial, which of them each rule chooses, and all of them as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dynacor_ray.core.redaction import redact_all
from dynacor_ray.method.selection import EPOCH_CHOICES, RUN_RULES, EpochRecord, choose_epoch, score
from dynacor_ray.runs.records import SHARES


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished clustering trial; shares and metrics are those of the epoch that it kept.

    Attributes:
        options: What was varied.
        training: Name of the training.
        epoch: The epoch of the clustering that was kept.
        noise_rate: What the training estimates, if it was long enough.
        evaluation: `ground_truth.metrics.detection_metrics`, empty without true labels.
        epochs: One record per epoch of the clustering (`EpochRecord`), with its F1 where the truth is known.
        seconds: That the clustering took.
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


def choose_trial(trials: Sequence[Trial], rule: str) -> Trial:
    """The trial that the rule likes best; of equally good ones the first. Sees no truth."""
    return max(trials, key=lambda trial: trial.score(rule))


def build_sweep_summary(
    trials: Sequence[Trial],
    failed: Sequence[dict[str, Any]],
    *,
    select: str,
    default: dict[str, Any],
    trainings: int,
    config: dict[str, Any],
    versions: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of a sweep's summary.json.

    With known truth: F1 of the trial that each rule chooses, of the default trial, and of the best (oracle).
    """
    chosen = choose_trial(trials, select)
    known = next((trial for trial in trials if trial.options == default), None)
    return {
        "versions": versions,
        "config": redact_all(config),
        "select": select,
        "num_trials": len(trials),
        "num_trainings": trainings,
        "failed": list(failed),
        "chosen": _named(chosen, chosen.epoch),
        # As `detect` alone would do it: the epoch by Eq. 9.
        "default": _named(known, known.epoch_by("validation_metric")) if known else None,
        "best": _named(best := max(trials, key=lambda t: t.f1 or 0.0), best.epoch) if chosen.f1 is not None else None,
        "rules": {rule: _by_rule(trials, rule) for rule in chosen.rules},
        "seconds": seconds,
    }


def _by_rule(trials: Sequence[Trial], rule: str) -> dict[str, Any]:
    """Trial and epoch that a rule would choose among all epochs of all trials."""
    epochs = [(trial, trial.epoch_by(rule)) for trial in trials]
    trial, epoch = max(epochs, key=lambda pair: pair[0].at(pair[1])[rule])
    return _named(trial, epoch)


def _named(trial: Trial, epoch: int) -> dict[str, Any]:
    facts = {"options": trial.options, "training": trial.training, **trial.at(epoch)}
    return facts | {"f1_by_epoch_choice": trial.f1_by_epoch_choice()}


def trials_table(trials: Sequence[Trial], failed: Sequence[dict[str, Any]], summary: dict[str, Any]) -> pa.Table:
    """`trials.parquet`: one row per trial, finished or failed, best score first and failed ones last."""
    rule, names = summary["select"], list(summary["chosen"]["options"])
    ordered = sorted(trials, key=lambda trial: -trial.score(rule))
    rows = []
    for trial in ordered:
        is_default = summary["default"] is not None and trial.options == summary["default"]["options"]
        rows.append(
            trial.options
            | {"status": "finished", "message": None, "training": trial.training}
            | trial.at(trial.epoch)
            | {name: trial.evaluation.get(name) for name in SHARES}
            | {"true_noise_rate": trial.evaluation.get("noise_rate")}  # `noise_rate` is what that rule says
            | {f"f1_by_{rule}": value for rule, value in trial.f1_by_epoch_choice().items()}
            | {"is_chosen": trial.options == summary["chosen"]["options"], "is_default": is_default}
            | {"seconds": trial.seconds}
        )
    blank = dict.fromkeys(rows[0])
    for failure in failed:
        mine = {name: failure["options"].get(name) for name in names}
        lost = {"status": "failed", "message": failure["message"], "is_chosen": False, "is_default": False}
        rows.append(blank | mine | lost)
    columns = {name: _column([row[name] for row in rows]) for name in blank}
    return pa.table(columns)


def _column(values: list[Any]) -> pa.Array[Any]:
    known = [value for value in values if value is not None]
    # A column without any value has no type of its own; all such columns are metrics.
    return pa.array(values) if known else pa.array(values, pa.float64())
