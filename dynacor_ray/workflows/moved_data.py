"""Data that were moved since a run: checked, and packed again where the packed images are gone."""

from __future__ import annotations

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.progress import Progress
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.data.ingest import ingest
from dynacor_ray.export.run_data import open_run_data
from dynacor_ray.report.build import packed_images
from dynacor_ray.runs.directory import finished_run, packed_place
from dynacor_ray.runs.records import RunSummary


def bring_data(run: Location, data: str | None) -> None:
    """Check that `data` are those that a finished run read, and see to its packed images. None: nothing is done.

    The images are packed in this process; a table, an image folder and packed data that are still there need no work.

    Raises:
        DataError: They are other data, or cannot be packed.
        RunDirectoryError: The run is not finished.
    """
    if data is None:
        return
    run = finished_run(run)
    summary = RunSummary.read(run)
    source, _ = open_run_data(run, summary, data)
    if summary.data.kind != "image" or packed_images(run, summary.data) is not None:
        return
    packed = ingest(source, packed_place(run, summary.data.packed).make_dir(), 1.0, Progress())
    if packed.manifest.content_hash != summary.data.content_hash:
        remedy = "run detect again with another --out"
        raise DataError(expected_got("the images that the run read", f"others at {data}", remedy))
