"""`reviewed_issues.parquet`: the rows of a run with the flags, qualities and probabilities that follow from answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import batches, rows_at, write_rows
from dynacor_ray.decision.audit_sample import RankGroups
from dynacor_ray.report.answer_files import MARKS
from dynacor_ray.report.answers import Answers
from dynacor_ray.runs.directory import ISSUES, REVIEWED

_OPEN, _WRONG, _RIGHT = -1, 0, 1
"""Places in MARKS; without an answer."""


@dataclass(frozen=True)
class Revision:
    """What becomes of rows in the order of `issues.parquet`.

    Attributes:
        ids: Answered rows, int64 (A,), increasing.
        marks: Of each its place in MARKS, int64 (A,).
        labels: Of each its right class, int32 (A,), -1 where none was named.
        groups: Of the ranks.
        probability: P(wrong) per group, float64 (G,).
        cut: Rows before it are flagged, answered ones apart.
        edge: The label quality of the run at the cut.
    """

    ids: NDArray[np.int64]
    marks: NDArray[np.int64]
    labels: NDArray[np.int32]
    groups: RankGroups
    probability: NDArray[np.float64]
    cut: int
    edge: float

    @classmethod
    def of(
        cls,
        run: Location,
        names: list[str],
        answers: Answers,
        groups: RankGroups,
        probability: NDArray[np.float64],
        cut: int,
    ) -> Revision:
        """For the rows of a run. names: its classes."""
        ids = np.array(sorted(answers.marks), np.int64)
        codes = {name: code for code, name in enumerate(names)}
        marks = np.array([MARKS.index(answers.marks[row]) for row in ids.tolist()], np.int64)
        labels = np.array([codes.get(answers.labels.get(row, ""), -1) for row in ids.tolist()], np.int32)
        beside = np.unique(np.clip([cut - 1, cut], 0, groups.num_rows - 1))
        edge = rows_at(run / ISSUES, beside, [schema.LABEL_QUALITY])[schema.LABEL_QUALITY].to_numpy().mean(axis=0)
        return cls(ids, marks, labels, groups, probability, cut, float(edge))

    def marks_of(self, table: pa.Table) -> NDArray[np.int64]:
        """Places in MARKS of the answers to some rows, int64 (n,), -1 without an answer."""
        at = sorted_positions(self.ids, table[schema.INSTANCE_ID].to_numpy())
        return np.append(self.marks, _OPEN)[at]

    def revise(self, table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
        """Rows of `issues.parquet` at some places, by `schema.reviewed_schema`."""
        mark = self.marks_of(table)
        flags = np.where(mark == _OPEN, places < self.cut, mark == _WRONG)
        quality = moved_quality(table[schema.LABEL_QUALITY].to_numpy(), self.edge)
        quality = np.where(flags, np.minimum(quality, np.nextafter(0.5, 0.0)), np.maximum(quality, 0.5))
        quality = np.where(mark == _OPEN, quality, np.where(mark == _WRONG, 0.0, 1.0))
        chance = self.probability[self.groups.at(places)]
        chance = np.where(mark == _WRONG, 1.0, np.where(mark == _RIGHT, 0.0, chance))
        label = np.append(self.labels, -1)[sorted_positions(self.ids, table[schema.INSTANCE_ID].to_numpy())]
        label = np.where(label >= 0, label, table[schema.PREDICTED_LABEL].to_numpy())
        columns = {name: table[name] for name in schema.issues_schema().names} | {
            schema.IS_LABEL_ISSUE: pa.array(flags),
            schema.LABEL_QUALITY: pa.array(quality),
            schema.PREDICTED_LABEL: pa.array(label.astype(np.int32)),
            schema.WRONG_PROBABILITY: pa.array(chance),
            schema.MARK: pa.array([*MARKS, None], pa.string()).take(pa.array(mark % (len(MARKS) + 1))),
        }
        return pa.table(columns, schema=schema.reviewed_schema())


@dataclass(frozen=True)
class _Reviewed(Iterable[pa.Table]):
    """The rows of `write_reviewed`, which can be read again. flagged: int64 (C,), filled as they are read."""

    issues: Location
    revision: Revision
    flagged: NDArray[np.int64]

    def __iter__(self) -> Iterator[pa.Table]:
        self.flagged[:] = 0
        for marks in ([_WRONG], [_OPEN], range(_RIGHT, len(MARKS))):
            for first, table in batches(self.issues, schema.issues_schema().names):
                kept = np.flatnonzero(np.isin(self.revision.marks_of(table), marks))
                if len(kept):
                    rows = self.revision.revise(table.take(pa.array(kept)), first + kept)
                    given = rows.filter(rows[schema.IS_LABEL_ISSUE])[schema.GIVEN_LABEL].to_numpy()
                    self.flagged[:] += np.bincount(given, minlength=len(self.flagged))
                    yield rows


def write_reviewed(run: Location, revision: Revision, num_classes: int) -> NDArray[np.int64]:
    """Write `reviewed_issues.parquet`, most suspicious first; `issues.parquet` is read three times, in batches.

    First come the rows answered wrong, then those without an answer as the run ranked them, then the others.

    Returns:
        Flagged rows per given class, int64 (C,).
    """
    flagged = np.zeros(num_classes, np.int64)
    write_rows(run / REVIEWED, schema.reviewed_schema(), _Reviewed(run / ISSUES, revision, flagged))
    return flagged


def moved_quality(quality: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """Label quality in the same order, with 1/2 where it was `edge`: float64 (n,) in [0, 1].

    >>> moved_quality(np.array([0.0, 0.2, 0.4, 0.7, 1.0]), edge=0.4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    edge = min(max(edge, 1e-12), 1.0 - 1e-12)
    return np.where(quality < edge, 0.5 * quality / edge, 1.0 - 0.5 * (1.0 - quality) / (1.0 - edge))
