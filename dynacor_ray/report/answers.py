"""A person's answers on the rows of a run, checked against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.label_studio_links import paths_meant
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import batches
from dynacor_ray.report.answer_files import FileAnswer, read_answer_file
from dynacor_ray.report.terminal import clean
from dynacor_ray.runs.audit import Review
from dynacor_ray.runs.directory import ISSUES


@dataclass(frozen=True)
class Answers:
    """Answers by instance_id: mark of each row, and its right class by name where a person gave one."""

    marks: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, review: Review | None) -> Answers:
        """Those of an earlier review."""
        return cls() if review is None else cls(review.marks, review.labels)

    def updated(self, newer: Answers) -> Answers:
        """These and newer ones, which win."""
        labels = {row: label for row, label in self.labels.items() if row not in newer.marks}
        return Answers(self.marks | newer.marks, labels | newer.labels)


def read_answers(run: Location, names: Sequence[str], place: Location) -> Answers:
    """The answers in a file (`read_answer_file`), if they are on rows of this run.

    A class other than the given one says wrong, and what is right; the given one says right.

    Args:
        run: A finished run.
        names: Its classes.
        place: The file.

    Raises:
        DataError: The file has no answers, or some that fit no row, no class, or each other.
    """
    found = read_answer_file(place)
    found = _with_rows(run, found, place)
    given = _given_labels(run, names, found, place)
    classes, answers = _ClassNames(names), dict[int, FileAnswer]()
    for one in found:
        row = one.row
        assert row is not None
        if one.given and classes.named(one.given) != given[row]:
            got = f"instance_id {row} with given label {one.given!r}, which is {given[row]!r} here"
            raise DataError(expected_got(f"answers on {run} in {place}", got, "review the rows of this run"))
        one = _judged(one, given[row], classes, run, place)
        if one.mark:
            answers[row] = _latest(answers.get(row), one, place)
    if not answers:
        remedy = "fill in the column mark with wrong, right or unsure, or choose classes"
        raise DataError(expected_got(f"answers in {place}", "none", remedy))
    labels = {row: one.label for row, one in answers.items() if one.label and one.mark == "wrong"}
    return Answers({row: one.mark for row, one in answers.items()}, labels)


def _plain(text: str) -> str:
    return clean(text).plain.lstrip("'")


class _ClassNames:
    """The classes of a run by what tools make of their names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        self._plain = {_plain(name): name for name in names}

    def named(self, text: str) -> str | None:
        """The class that is meant; a spreadsheet may have made 7.0 of 7."""
        if text in self._names:
            return text
        plain = _plain(text.strip())
        return self._plain.get(plain) or self._plain.get(plain.removesuffix(".0"))


def _judged(one: FileAnswer, given: str, classes: _ClassNames, run: Location, place: Location) -> FileAnswer:
    """The answer with its mark, which may follow from the class; without one where it says nothing."""
    if not one.label or one.mark == "unsure":
        return replace(one, label="")
    label = classes.named(one.label)
    if label is None:
        raise DataError(expected_got(f"classes of {run} in {place}", repr(one.label), "choose among its classes"))
    if one.mark == "right" and label != given:
        got = f"instance_id {one.row} marked right with {one.label!r} instead of {given!r}"
        raise DataError(expected_got(f"marks and classes that agree in {place}", got, "keep one of them"))
    if one.mark:
        return replace(one, label="" if label == given else label)
    if label == given:
        return replace(one, label="", mark="right" if one.by_person else "")
    return replace(one, label=label, mark="wrong")


def _latest(before: FileAnswer | None, one: FileAnswer, place: Location) -> FileAnswer:
    """Of two answers on a row the later one. Raises DataError when two marks without a time differ."""
    if before is None or before == one:
        return one
    if not (before.when and one.when) and before.mark != one.mark:
        got = f"'{before.mark}' and '{one.mark}' for instance_id {one.row}"
        raise DataError(expected_got(f"one mark per row in {place}", got, "keep one of them"))
    return one if one.when >= before.when else before


def _given_labels(run: Location, names: Sequence[str], found: Sequence[FileAnswer], place: Location) -> dict[int, str]:
    """Given label by instance_id of the answered rows. Raises DataError when one is no row of the run."""
    ids = np.array(sorted({one.row for one in found if one.row is not None}), np.int64)
    given = np.full(len(ids), -1, np.int64)
    for _, table in batches(run / ISSUES, [schema.INSTANCE_ID, schema.GIVEN_LABEL]):
        at = sorted_positions(ids, table[schema.INSTANCE_ID].to_numpy())
        given[at[at >= 0]] = table[schema.GIVEN_LABEL].to_numpy()[at >= 0]
    unknown = ids[given < 0].tolist()
    if unknown:
        got = f"instance_id {unknown[0]}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        raise DataError(expected_got(f"rows of {run} in {place}", got, "review the rows of this run"))
    return {row: names[code] for row, code in zip(ids.tolist(), given.tolist(), strict=True)}


def _with_rows(run: Location, found: list[FileAnswer], place: Location) -> list[FileAnswer]:
    """The answers with the instance_id of those that name an image only: the row whose path ends like its own.

    Raises DataError when there is no such row, or several.
    """
    wanted = {one.uri.replace("\\", "/") for one in found if one.row is None}
    if not wanted:
        return found
    by_end: dict[str, list[tuple[str, str]]] = {}
    for link in wanted:
        for path in paths_meant(link):
            by_end.setdefault(path.rpartition("/")[2], []).append((link, path))
    ends, rows = pa.array(list(by_end), pa.string()), dict[str, dict[int, bool]]()
    for _, table in batches(run / ISSUES, [schema.INSTANCE_ID, schema.URI]):
        last = pc.replace_substring_regex(table[schema.URI], "^.*/", "")
        some = table.filter(pc.is_in(last, value_set=ends))
        for instance_id, uri in zip(some[schema.INSTANCE_ID].to_pylist(), some[schema.URI].to_pylist(), strict=True):
            for link, path in by_end[uri.rpartition("/")[2]]:
                if f"/{uri}".endswith(f"/{path}") or f"/{path}".endswith(f"/{uri}"):
                    hits = rows.setdefault(link, {})
                    hits[instance_id] = hits.get(instance_id, False) or uri == path
    known: dict[str, int] = {}
    for name in sorted(wanted):
        hits = rows.get(name, {})
        exact = [row for row, is_exact in hits.items() if is_exact] or list(hits)
        if len(exact) != 1:
            got = f"{name!r}, which is the end of {len(exact)} paths" if exact else f"{name!r}, which is none"
            remedy = "name the rows by instance_id, or the images by their whole path"
            raise DataError(expected_got(f"images of {run} in {place}", got, remedy))
        known[name] = exact[0]
    return [one if one.row is not None else replace(one, row=known[one.uri.replace("\\", "/")]) for one in found]
