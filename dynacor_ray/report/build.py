"""Make `report.html` from the files of a finished run, at its end or at any later time. Starts no cluster."""

from __future__ import annotations

import dataclasses

from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import Location
from dynacor_ray.report.page import render
from dynacor_ray.report.page_reader import read_page
from dynacor_ray.runs.audit import issues_in_use, open_round, read_review
from dynacor_ray.runs.directory import DYNAMICS, REPORT, finished_run, packed_place
from dynacor_ray.runs.records import DataSummary, RunSummary

ROWS_BY_URI = ("folder", "table", "clothing1m")
"""Kinds of sources whose images are files of their own."""
_LEFT_OUT = "Pictures are left out. To see them: dynacor report RUN --thumbnails"
_TERMS = "Pictures are left out, since the terms of this data forbid to pass them on. For yourself: --thumbnails"
_GONE = (
    "No pictures: the packed images that this run read are gone or have changed. To pack them again: "
    "dynacor report RUN --data PLACE"
)


def make_report(run: Location, thumbnails: bool | None = None) -> Location:
    """Write `report.html` into a finished run's directory, in place of an older one; returns where it is.

    Flags are those that follow from a person's answers, where there are some. thumbnails: whether small copies of
    images are inside; None: as the run was configured, else unless the data's terms forbid it. Raises
    RunDirectoryError when the run is not finished, or the answers are on other rows.
    """
    run = finished_run(run)
    summary = RunSummary.read(run)
    if thumbnails is None:
        thumbnails = summary.config.get("thumbnails")
    dataset, images = images_of(run, summary.data, thumbnails)
    review, audit = read_review(run), open_round(run, summary)
    if review is not None:
        summary = review.revise(summary)
    page = read_page(issues_in_use(run), run / DYNAMICS, summary, audit.ids, dataset, images)
    page = dataclasses.replace(page, review=review)
    (run / REPORT).write_bytes(render(page).encode())
    return run / REPORT


def images_of(run: Location, data: DataSummary, thumbnails: bool | None) -> tuple[PackedDataset | None, str]:
    """The packed images, if they are to be shown; else why there are none."""
    if data.kind != "image":
        return None, ""
    if thumbnails is None and not data.allows_thumbnails:
        return None, _TERMS
    if thumbnails is False:
        return None, _LEFT_OUT
    dataset = packed_images(run, data)
    return dataset, "" if dataset else _GONE


def packed_images(run: Location, data: DataSummary) -> PackedDataset | None:
    """The packed images that the run read; None when they are gone or there were none."""
    dataset = PackedDataset.read(packed_place(run, data.packed)) if data.kind == "image" else None
    return dataset if dataset is not None and dataset.manifest.content_hash == data.content_hash else None
