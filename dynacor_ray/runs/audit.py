"""The audit of a run: which rows a person is asked about, what was answered, and what follows from the answers.

Beside `issues.parquet`, which stays as it was made: `audit.json` (the rows that were drawn), `review.json` (the answers
and the figures that follow), `reviewed_issues.parquet` (flags and probabilities after the answers). All three are tied
to the content of `issues.parquet`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import RunDirectoryError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import rows_at, table_files
from dynacor_ray.decision.audit_sample import RankGroups, draw_audit, first_density
from dynacor_ray.runs.directory import AUDIT, ISSUES, REVIEW, REVIEWED
from dynacor_ray.runs.records import ASK_FOR_REVIEW, RunSummary

AUDIT_ROWS = 100
"""Rows of the sample that every report shows."""
_READ = 1 << 22


@dataclass(frozen=True, kw_only=True)
class AuditRound:
    """Rows that were drawn together, in random order.

    Attributes:
        seed: Of the draw.
        ids: instance_id of each.
        places: Position of each in `issues.parquet`, from 0.
        probability: Chance of each to be drawn, in (0, 1].
    """

    seed: int
    ids: Sequence[int]
    places: Sequence[int]
    probability: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Review:
    """`review.json`: a person's answers, and what they say of the run.

    Attributes:
        issues: Digest of the `issues.parquet` that was reviewed.
        marks: instance_id -> wrong, right or unsure.
        labels: instance_id -> the right class by name, where it was named.
        num_audited: Answers on the audit sample, unsure ones left out.
        num_flagged: Rows flagged after the review.
        flagged_by_class: The same per given class, in class order.
        cut: Rows before the cut, answers apart.
        rate, precision, recall, f1: Estimate and the ends of its 95% interval, in [0, 1]: of all rows, of the new
            flags. None without answers on the audit sample.
        f1_before: The same of the flags of the run.
        model_weight: How far the answers bear out the run's own probabilities, in [0, 1].
    """

    issues: str
    marks: dict[int, str]
    labels: dict[int, str]
    num_audited: int
    num_flagged: int
    flagged_by_class: Sequence[int]
    cut: int
    rate: Sequence[float] | None = None
    precision: Sequence[float] | None = None
    recall: Sequence[float] | None = None
    f1: Sequence[float] | None = None
    f1_before: Sequence[float] | None = None
    model_weight: float = 0.0

    def write(self, run: Location) -> None:
        """Write `review.json`."""
        (run / REVIEW).write_json(dataclasses.asdict(self))

    def revise(self, summary: RunSummary) -> RunSummary:
        """The summary with what the answers say in place of what the run said; it asks for no answers any more."""
        classes = [
            {**row, "flagged": flagged, "flagged_share": flagged / row["rows"] if row["rows"] else 0.0}
            for row, flagged in zip(summary.classes, self.flagged_by_class, strict=True)
        ]
        rate: dict[str, Any] = {}
        if self.rate is not None:
            warnings = [warning for warning in summary.warnings if ASK_FOR_REVIEW not in warning]
            rate = {"estimated_noise_rate": self.rate[0], "noise_rate_range": self.rate[1:], "warnings": warnings}
        share = self.num_flagged / summary.num_rows
        return dataclasses.replace(summary, num_flagged=self.num_flagged, flagged_share=share, classes=classes, **rate)


def issues_digest(run: Location) -> str:
    """Hash of the content of `issues.parquet`, 16 hex digits."""
    found = hashlib.blake2b(digest_size=8)
    for file in table_files(run / ISSUES):
        with file.stream() as stream:
            while block := stream.read(_READ):
                found.update(block)
    return found.hexdigest()


def read_review(run: Location) -> Review | None:
    """The review of a run, if there is one. Raises RunDirectoryError when `issues.parquet` changed since."""
    if not (run / REVIEW).exists():
        return None
    held = _tied(run, REVIEW)
    ids = {name: {int(key): value for key, value in held[name].items()} for name in ("marks", "labels")}
    return Review(**held | ids)


def issues_in_use(run: Location) -> Location:
    """The rows that report, export and cleaned copies read: the reviewed ones, where there are such.

    Raises RunDirectoryError when `issues.parquet` changed since the review.
    """
    return run / ISSUES if read_review(run) is None else run / REVIEWED


def read_rounds(run: Location) -> list[AuditRound]:
    """The rounds of `audit.json`, oldest first. Raises RunDirectoryError when `issues.parquet` changed since."""
    if not (run / AUDIT).exists():
        return []
    return [AuditRound(**held) for held in _tied(run, AUDIT)["rounds"]]


def write_rounds(run: Location, digest: str, rounds: Sequence[AuditRound]) -> None:
    """Write `audit.json`. digest: of `issues_digest`."""
    (run / AUDIT).write_json({"issues": digest, "rounds": [dataclasses.asdict(one) for one in rounds]})


def open_round(run: Location, summary: RunSummary) -> AuditRound:
    """The latest round; where nothing was drawn, what `first_round` draws by default."""
    rounds = read_rounds(run)
    return rounds[-1] if rounds else first_round(run, summary, AUDIT_ROWS, summary.seed)


def first_round(run: Location, summary: RunSummary, count: int, seed: int) -> AuditRound:
    """A first sample: over the whole ranking, and more of it near the cut."""
    groups = RankGroups.of(summary.num_rows)
    return draw_round(run, groups, first_density(groups, summary.num_flagged), count, seed, [])


def draw_round(
    run: Location,
    groups: RankGroups,
    density: NDArray[np.float64],
    count: int,
    seed: int,
    before: Sequence[AuditRound],
) -> AuditRound:
    """Draw rows by `audit_sample.draw_audit`, none of those drawn before."""
    taken = np.array([place for one in before for place in one.places], np.int64)
    sample = draw_audit(groups, density, count, seed, taken)
    places = np.sort(sample.ranks)
    ids = rows_at(run / ISSUES, places, [schema.INSTANCE_ID])[schema.INSTANCE_ID].to_numpy()
    return AuditRound(
        seed=seed,
        ids=ids[np.searchsorted(places, sample.ranks)].tolist(),
        places=sample.ranks.tolist(),
        probability=sample.probability.tolist(),
    )


def _tied(run: Location, name: str) -> Any:
    """A file of the audit. Raises RunDirectoryError when it belongs to other rows."""
    held = (run / name).read_json()
    if not isinstance(held, dict) or held.get("issues") != issues_digest(run):
        got = f"a {name} of other rows: detect made {ISSUES} again since, or an older version wrote it"
        remedy = f"remove {AUDIT}, {REVIEW} and {REVIEWED} from {run}, and review again"
        raise RunDirectoryError(expected_got(f"a review of the {ISSUES} in {run}", got, remedy))
    return held
