"""The data that a finished run read, at their place then or where they are now."""

from __future__ import annotations

import dataclasses

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.redaction import redact
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.runs import directory as run_directory
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.image_files import matching
from dynacor_ray.sources.registry import from_anywhere, open_source


def open_run_data(run: Location, summary: RunSummary, moved: str | None) -> tuple[Source, Location]:
    """Open the data of a finished run.

    Args:
        run: The run's directory.
        summary: Content of its `summary.json`.
        moved: Where the data are now, None if they are where they were.

    Returns:
        The data, and their place.

    Raises:
        DataError: There are none, or others than those that the run read.
    """
    expected, named = "the data that the run read", summary.config["data"] if moved is None else moved
    if moved is None and not any(place.exists() for place in matching(locate(named))):
        raise DataError(expected_got(expected, f"nothing at {named}", "say where they are by --data"))
    source = open_source(named, SourceOptions.of(summary.config))
    if source.fingerprint() != run_directory.fingerprint(run):
        got = f"other files or times of change at {named}"
        raise DataError(expected_got(expected, got, "name their place by --data, or run detect again"))
    return source, locate(named)


def with_data_at(summary: RunSummary, moved: str | None) -> RunSummary:
    """The summary of a run whose data are at another place now; None: where they were."""
    if moved is None:
        return summary
    return dataclasses.replace(summary, data=dataclasses.replace(summary.data, uri=redact(from_anywhere(moved))))
