"""A person's answers read from a file, and what follows from them in words."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.report.terminal import clean
from dynacor_ray.report.wording import percent
from dynacor_ray.runs.audit import Review
from dynacor_ray.runs.records import RunSummary

MARKS = ("wrong", "right", "unsure")


@dataclass(frozen=True)
class Answers:
    """What a file says, by instance_id: mark of each row, its given label and its right one where they are named."""

    marks: dict[int, str] = field(default_factory=dict)
    given: dict[int, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)


def read_marks(place: Location) -> dict[int, str]:
    """The marks of `read_answers`."""
    return read_answers(place).marks


def read_answers(place: Location) -> Answers:
    """Answers from a CSV with the columns `instance_id` and `mark`, or from Label Studio's export (.json).

    Rows without an answer are left out.

    Raises:
        DataError: another table, an unknown mark, or a row answered twice.
    """
    return _read_tasks(place) if place.path.lower().endswith(".json") else _read_csv(place)


def _read_csv(place: Location) -> Answers:
    wanted = (schema.INSTANCE_ID, schema.MARK)
    kinds = {schema.INSTANCE_ID: pa.int64(), schema.MARK: pa.string(), schema.GIVEN_LABEL: pa.string()}
    convert = pacsv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
    with place.stream() as stream:
        try:
            table = pacsv.read_csv(stream, convert_options=convert)
            table.select(wanted)
        except (pa.ArrowInvalid, KeyError) as error:
            got = f"'{str(error).strip(chr(34)).splitlines()[0]}'"
            remedy = "save it with the report's button, or write these two columns"
            raise DataError(expected_got(f"columns {' and '.join(wanted)} in {place}", got, remedy)) from error
    answers = Answers()
    names = [name for name in kinds if name in table.column_names]
    for row in table.select(names).to_pylist():
        instance_id, text = row[schema.INSTANCE_ID], row[schema.MARK]
        if not (mark := (text or "").strip().lower()):
            continue
        if instance_id is None or mark not in MARKS:
            expected = f"one of {', '.join(MARKS)} as mark of instance_id {instance_id}"
            raise DataError(expected_got(expected, repr(text), f"correct {place}"))
        _add(answers, place, instance_id, mark)
        if row.get(schema.GIVEN_LABEL):
            answers.given[instance_id] = row[schema.GIVEN_LABEL]
    return answers


def _read_tasks(place: Location) -> Answers:
    """Of a task the last annotation counts that was not cancelled: its choice is the right class."""
    answers = Answers()
    try:
        for task in json.loads(place.read_bytes()):
            done = [one["result"] for one in task.get("annotations", ()) if not one.get("was_cancelled")]
            chosen = [part["value"]["choices"] for part in (done[-1] if done else ()) if "choices" in part["value"]]
            if chosen:
                instance_id, given = int(task["data"][schema.INSTANCE_ID]), str(task["data"][schema.GIVEN_LABEL])
                (label,) = chosen[-1]
                _add(answers, place, instance_id, "right" if label == given else "wrong")
                answers.given[instance_id] = given
                if label != given:
                    answers.labels[instance_id] = label
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        remedy = "export the annotated tasks of `dynacor review RUN --sample` as JSON"
        got = f"'{type(error).__name__}: {error}'"
        raise DataError(expected_got(f"Label Studio's export in {place}", got, remedy)) from error
    return answers


def _add(answers: Answers, place: Location, instance_id: int, mark: str) -> None:
    if answers.marks.setdefault(instance_id, mark) != mark:
        got = f"'{answers.marks[instance_id]}' and '{mark}' for instance_id {instance_id}"
        raise DataError(expected_got(f"one mark per row in {place}", got, "keep one of them"))


def same_name(one: str, other: str) -> bool:
    """Whether two texts are the same class, but for what exports add or take away for safety."""
    return one == other or clean(one).plain.lstrip("'") == clean(other).plain.lstrip("'")


def review_sentences(review: Review, summary: RunSummary) -> list[str]:
    """A review in sentences. summary: of the run, as it was before."""
    values = list(review.marks.values())
    counts = ", ".join(f"{values.count(mark):,} {mark}" for mark in MARKS)
    sentences = [f"{len(values):,} rows marked: {counts}; {review.num_audited:,} of them on the audit sample."]
    if review.rate is None or review.precision is None or review.recall is None:
        sentences.append("Only answers on the audit sample tell of other rows: dynacor review RUN --sample 100.")
    else:
        sentences.append(f"Noise rate: {interval(review.rate)}; the run estimated {_estimate(summary)}.")
        sentences.append(f"Precision: {interval(review.precision)}; recall: {interval(review.recall)}.")
    if review.f1 is not None and review.f1_before is not None:
        sentences.append(f"F1: {percent(review.f1_before[0])} before, {percent(review.f1[0])} now.")
    sentences.append(f"Flagged: {summary.num_flagged:,} rows before, {review.num_flagged:,} now.")
    return sentences


def _estimate(summary: RunSummary) -> str:
    value, ends = summary.estimated_noise_rate, summary.noise_rate_range
    return "none" if value is None or ends is None else f"{percent(value)} ({percent(ends[0])} to {percent(ends[1])})"


def interval(measured: Any) -> str:
    """Estimate and interval in words.

    >>> interval((0.398, 0.371, 0.425))
    '39.8% (95%: 37.1% to 42.5%)'
    """
    value, low, high = measured
    return f"{percent(value)} (95%: {percent(low)} to {percent(high)})"
