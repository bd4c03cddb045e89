"""`summary.json`: everything that a script needs to know of a finished run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.manifest import DatasetManifest

PAIRS_KEPT = 50
MATRIX_CLASSES = 100


class Counts(Protocol):
    """Counts over all rows of a run."""

    originals: int
    flagged: int
    copies: int
    copies_flagged: int
    pairs: NDArray[np.int64]
    given: NDArray[np.int64]


@dataclass(frozen=True)
class RunResults:
    """What a run found, before it is put into words."""

    config: dict[str, Any]
    versions: dict[str, str]
    manifest: DatasetManifest
    encoder: str
    counts: Counts
    records: list[dict[str, Any]]
    chosen_epoch: int
    evaluation: dict[str, Any] | None
    noise_rate: dict[str, float] | None = None
    """Estimate of the training: value, low, high."""
    class_noise_rates: list[float | None] | None = None
    """The same per given class; a class's is None where nothing is known of it."""
    packed: str = ""
    """Where the packed data are, seen from the run directory."""
    waiting_share: float | None = None
    """Share of the training's time that went into waiting for rows."""
    cluster: dict[str, float] | None = None
    """What the cluster had: nodes, cpus, gpus."""


def build_summary(facts: RunResults, seconds: dict[str, float]) -> dict[str, Any]:
    """The content of summary.json. `seconds`: wall time per stage."""
    counts, manifest = facts.counts, facts.manifest
    warnings = list(manifest.warnings) + trust_warnings(counts, manifest) + rate_warnings(facts)
    return {
        "versions": facts.versions,
        "config": facts.config,
        "seed": facts.config["seed"],
        "encoder": facts.encoder,
        "data": _data(manifest) | {"packed": facts.packed},
        "num_rows": counts.originals,
        "num_classes": manifest.num_classes,
        "num_flagged": counts.flagged,
        "flagged_share": counts.flagged / counts.originals,
        "estimated_noise_rate": facts.noise_rate["value"] if facts.noise_rate else None,
        "noise_rate_range": [facts.noise_rate["low"], facts.noise_rate["high"]] if facts.noise_rate else None,
        "num_corrupted": counts.copies,
        "corrupted_recall": counts.copies_flagged / counts.copies,
        "classes": class_table(counts, manifest.class_names, facts.class_noise_rates),
        "pairs": pair_table(counts.pairs, manifest.class_names),
        "transition_matrix": transition_matrix(counts) if manifest.num_classes <= MATRIX_CLASSES else None,
        "validation": {"chosen_epoch": facts.chosen_epoch, "epochs": facts.records},
        "evaluation": facts.evaluation,
        "warnings": warnings,
        "seconds": seconds,
        "training_waited_for_rows": facts.waiting_share,
        "cluster": facts.cluster,
    }


def _data(manifest: DatasetManifest) -> dict[str, Any]:
    skip = {"parts", "stats", "class_counts", "warnings", "quarantine_examples"}
    return {k: v for k, v in asdict(manifest).items() if k not in skip} | {
        "quarantine_examples": list(manifest.quarantine_examples[:10])
    }


def class_table(
    counts: Counts, names: tuple[str, ...], noise_rates: list[float | None] | None = None
) -> list[dict[str, Any]]:
    """Rows, flagged rows, their share and the estimated noise rate per given class, in class order."""
    flagged, rates = counts.pairs.sum(axis=1), noise_rates or [None] * len(names)
    return [
        {
            "class": name,
            "rows": int(counts.given[c]),
            "flagged": int(flagged[c]),
            "flagged_share": float(flagged[c] / counts.given[c]) if counts.given[c] else 0.0,
            "estimated_noise_rate": rates[c],
        }
        for c, name in enumerate(names)
    ]


def pair_table(pairs: NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The most frequent (given, predicted) pairs among flagged rows, where the two differ."""
    off = pairs.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:PAIRS_KEPT]
    cells = [(int(i) // len(names), int(i) % len(names)) for i in order]
    return [{"given": names[i], "predicted": names[j], "flagged": int(off[i, j])} for i, j in cells if off[i, j]]


def transition_matrix(counts: Counts) -> list[list[float]]:
    """Estimate of P(given=j | true=i): a flagged row's true class is taken to be the predicted one. Rows sum to 1."""
    unflagged = counts.given - counts.pairs.sum(axis=1)
    joint = counts.pairs.T + np.diag(unflagged)
    total = joint.sum(axis=1, keepdims=True)
    identity = np.eye(len(joint))
    return np.where(total > 0, joint / np.maximum(total, 1), identity).tolist()  # type: ignore[no-any-return]


def rate_warnings(facts: RunResults) -> list[str]:
    """Says when fewer rows are flagged than the estimate asks for (`thresholds.choose_threshold`, most_recall)."""
    flagged, rate = facts.counts.flagged / facts.counts.originals, facts.noise_rate
    by_rate = facts.config["flag_rule"] == "noise_rate" or not (facts.config["flag_rule"] or facts.config["variant"])
    if rate is None or not by_rate or flagged >= 0.95 * rate["value"] - 0.005:
        return []
    found = facts.counts.copies_flagged / facts.counts.copies
    return [
        f"The estimated noise rate of {rate['value']:.0%} is not to be believed: flagging {flagged:.0%} of the rows "
        f"finds {found:.0%} of the planted errors. The classifier is too unsure for an estimate; more --epochs or a "
        "stronger --encoder or --network help."
    ]


def trust_warnings(counts: Counts, manifest: DatasetManifest) -> list[str]:
    """Plain sentences on what makes the answer doubtful."""
    found = []
    recall = counts.copies_flagged / counts.copies
    if recall < 0.5:
        found.append(
            f"Only {recall:.0%} of the errors that were planted on purpose were found: the features do not tell the "
            "classes apart, or most labels are wrong. Try a stronger --encoder or --network."
        )
    flagged = counts.pairs.sum(axis=1)
    bad = [n for n, f, g in zip(manifest.class_names, flagged, counts.given, strict=True) if g and 2 * f > g]
    if bad:
        names = ", ".join(bad[:5]) + (" and others" if len(bad) > 5 else "")
        found.append(f"More than half of the labels look wrong in {len(bad)} class(es): {names}. Look at them by hand.")
    return found
