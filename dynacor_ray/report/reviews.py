"""A person's review of flagged rows: marks read back from CSV, and the precision that they measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location, storage_errors
from dynacor_ray.report.page_reader import flagged_ids, random_sample
from dynacor_ray.runs.directory import ISSUES, REVIEW, finished_run
from dynacor_ray.runs.records import RunSummary

MARK = "mark"
MARKS = ("wrong", "right", "unsure")


def read_marks(place: Location) -> dict[int, str]:
    """Marks by instance_id, from a CSV with the columns `instance_id` and `mark`, as the report saves it.

    Rows without a mark are left out.

    Raises:
        DataError: another table, an unknown mark, or a row marked twice.
    """
    kinds = {schema.INSTANCE_ID: pa.int64(), MARK: pa.string()}
    convert = pacsv.ConvertOptions(column_types=kinds, include_columns=list(kinds), strings_can_be_null=True)
    with storage_errors("read", place), place.filesystem.open_input_stream(place.path) as stream:
        try:
            table = pacsv.read_csv(stream, convert_options=convert)
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            got = f"'{str(error).splitlines()[0]}'"
            remedy = "save it with the report's button, or write these two columns"
            raise DataError(expected_got(f"columns {schema.INSTANCE_ID} and {MARK} in {place}", got, remedy)) from error
    marks: dict[int, str] = {}
    for instance_id, text in zip(*(table[name].to_pylist() for name in kinds), strict=True):
        mark = (text or "").strip().lower()
        if mark and (instance_id is None or mark not in MARKS):
            expected = f"one of {', '.join(MARKS)} as mark of instance_id {instance_id}"
            raise DataError(expected_got(expected, repr(text), f"correct {place}"))
        if mark and marks.setdefault(instance_id, mark) != mark:
            got = f"'{marks[instance_id]}' and '{mark}' for instance_id {instance_id}"
            raise DataError(expected_got(f"one mark per row in {place}", got, "keep one of them"))
    return marks


def review_run(run: Location, marks: Location) -> dict[str, Any]:
    """Measure precision with a person's marks, and write it to `review.json` for the next report.

    Precision is the share of wrong labels among flagged rows with a mark other than unsure, with its 95% interval
    (Wilson). `sampled` counts only rows of the report's random sample and is representative of all flagged rows.
    `flagged` counts every marked one, and is too high where a person begins with the most suspicious.

    Args:
        run: a finished run.
        marks: the CSV.

    Returns:
        Content of `review.json`.

    Raises:
        DataError: the run does not have a marked row.
    """
    run = finished_run(run)
    mark_of = read_marks(marks)
    ids = np.array(sorted(mark_of), np.int64)
    unknown = _unknown(run, ids)
    if len(unknown):
        got = f"instance_id {unknown[0]}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
        raise DataError(expected_got(f"rows of {run} in {marks}", got, "review the rows of this run"))
    flagged = flagged_ids(run / ISSUES)
    sample = random_sample(flagged, RunSummary.read(run).seed)
    review = {
        "marked": {mark: sum(value == mark for value in mark_of.values()) for mark in MARKS},
        "sampled": _precision(mark_of, ids[np.isin(ids, sample)]),
        "flagged": _precision(mark_of, ids[np.isin(ids, flagged)]),
        "not_flagged": _precision(mark_of, ids[~np.isin(ids, flagged)]),
    }
    (run / REVIEW).write_json(review)
    return review


def _unknown(run: Location, ids: np.ndarray) -> list[int]:
    """Ids that the run does not have."""
    present = np.zeros(len(ids), bool)
    with (run / ISSUES).parquet() as file:
        for batch in file.iter_batches(columns=[schema.INSTANCE_ID]):
            present |= np.isin(ids, batch.column(0).to_numpy())
    missing: list[int] = ids[~present].tolist()
    return missing


def _precision(marks: dict[int, str], ids: np.ndarray) -> dict[str, Any] | None:
    """Precision of some marked rows; None if all marks are unsure."""
    decided = [marks[instance_id] for instance_id in ids.tolist() if marks[instance_id] != "unsure"]
    if not decided:
        return None
    wrong = decided.count("wrong")
    low, high = wilson_interval(wrong, len(decided))
    return {"rows": len(decided), "wrong": wrong, "share": wrong / len(decided), "low": low, "high": high}


def review_sentences(review: dict[str, Any]) -> list[str]:
    """A review in sentences."""
    marked = review["marked"]
    counts = ", ".join(f"{marked[mark]:,} {mark}" for mark in MARKS)
    sentences = [f"{sum(marked.values()):,} rows marked: {counts}."]
    kinds = {
        "sampled": "Precision, by the random sample of the flagged",
        "flagged": "Wrong among all flagged rows that were marked",
        "not_flagged": "Wrong among rows that were not flagged",
    }
    for kind, text in kinds.items():
        if (part := review[kind]) is not None:
            ends = f"{part['low']:.1%} to {part['high']:.1%}"
            sentences.append(f"{text}: {part['wrong']:,} of {part['rows']:,}, {part['share']:.1%} (95%: {ends}).")
    if review["sampled"] is None:
        sentences.append("None is of the report's random sample, which alone is representative of all flagged rows.")
    return sentences


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95% interval of the share of `hits` in `total` >= 1 trials by Wilson's score (1927): low and high in [0, 1]."""
    from scipy.stats import binomtest  # its import takes long, and only reviews need it

    interval = binomtest(hits, total).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
