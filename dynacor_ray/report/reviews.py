"""What follows from a person's answers, in words."""

from __future__ import annotations

from typing import Any

from dynacor_ray.core.errors import counted
from dynacor_ray.report.answer_files import MARKS
from dynacor_ray.report.wording import percent
from dynacor_ray.runs.audit import Review
from dynacor_ray.runs.records import RunSummary


def review_sentences(review: Review, summary: RunSummary) -> list[str]:
    """A review in sentences. summary: of the run, as it was before."""
    values = list(review.marks.values())
    counts = ", ".join(f"{values.count(mark):,} {mark}" for mark in MARKS)
    sentences = [f"{counted(len(values), 'row')} marked: {counts}; {review.num_audited:,} of them on the audit sample."]
    if review.rate is None or review.precision is None or review.recall is None:
        sentences.append("Only answers on the audit sample tell of other rows: dynacor review RUN --sample 100.")
    else:
        sentences.append(f"Noise rate: {interval(review.rate)}; the run estimated {_estimate(summary)}.")
        sentences.append(f"Precision: {interval(review.precision)}; recall: {interval(review.recall)}.")
    if review.f1 is not None and review.f1_before is not None:
        sentences.append(f"F1: {percent(review.f1_before[0])} before, {percent(review.f1[0])} now.")
    sentences.append(f"Flagged: {counted(summary.num_flagged, 'row')} before, {review.num_flagged:,} now.")
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
