"""Content of `report.html` as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dynacor_ray.report.terminal import shown
from dynacor_ray.report.trajectories import Band
from dynacor_ray.runs.audit import Review
from dynacor_ray.runs.records import RunSummary


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One row on the page, with the columns of `issues.parquet`.

    Attributes:
        rank: position in `issues.parquet`, 1 is the most suspicious.
        audit_place: position in the audit sample, None outside.
        margins: its dynamics, empty when unknown.
        thumbnail: a `data:` URI made by `thumbnails.thumbnail`.
    """

    instance_id: int
    uri: str | None
    given_label: int
    predicted_label: int
    is_label_issue: bool
    label_quality: float
    noise_score: float
    mean_margin: float
    predicted_share: float
    duplicate_of: int | None = None
    rank: int
    audit_place: int | None
    margins: tuple[float, ...] = ()
    thumbnail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page.

    Attributes:
        summary: content of `summary.json`.
        suspects: the rows shown.
        pairs: (given, predicted, flagged rows) of all pairs, also of equal classes.
        histogram: label quality in equal bins over [0, 1]; counts of flagged and of other rows.
        bands: per group of `GROUPS`.
        images: why thumbnails are missing; empty when there is nothing to say.
        review: a person's answers, if there are some.
    """

    summary: RunSummary
    suspects: tuple[Suspect, ...]
    pairs: tuple[tuple[int, int, int], ...]
    histogram: tuple[tuple[int, ...], tuple[int, ...]]
    bands: dict[str, Band]
    images: str = ""
    review: Review | None = None

    @cached_property
    def names(self) -> list[str]:
        """Class names without control characters."""
        return [shown(name) for name in self.summary.class_names]
