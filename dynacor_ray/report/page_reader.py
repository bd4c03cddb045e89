"""From the files of a run to the content of `report.html`: a few passes in batches, which keep only the rows shown.

Rows shown are the most suspicious ones, the most suspicious of each frequent class pair, those on both sides of the
threshold, and the audit sample, from which alone something follows for all rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.packed_dataset import PackedDataset
from dynacor_ray.core.storage import Location
from dynacor_ray.core.table_files import batches, rows_at
from dynacor_ray.report.page_model import Page, Suspect
from dynacor_ray.report.thumbnails import read_thumbnails
from dynacor_ray.report.trajectories import Band, Trajectories
from dynacor_ray.runs.records import RunSummary

TOP = 400
PER_PAIR, PAIRS = 10, 60
NEAR = 30
BINS = 50


@dataclass
class _Survey:
    """Counts of one pass over `issues.parquet`."""

    num_classes: int
    sample: NDArray[np.int64]
    """instance_id of the audit sample."""
    flagged: list[NDArray[np.int64]] = field(default_factory=list)
    """instance_id of the flagged rows, 8 bytes each."""
    sampled: list[int] = field(default_factory=list)
    """Positions of the audit sample."""
    last: int = 0
    """Position behind the last flagged row."""
    pairs: Counter[int] = field(default_factory=Counter)
    """given * C + predicted -> flagged rows."""
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, first: int, batch: pa.Table) -> None:
        """Count one batch. first: position of its first row."""
        flags, ids = _flags(batch), batch[schema.INSTANCE_ID].to_numpy()
        self.flagged.append(ids[flags])
        self.sampled += (first + np.flatnonzero(np.isin(ids, self.sample))).tolist()
        if flags.any():
            self.last = first + int(np.flatnonzero(flags)[-1]) + 1
        quality = batch[schema.LABEL_QUALITY].to_numpy()
        for place, mask in enumerate((flags, ~flags)):
            self.histogram[place] += np.histogram(quality[mask], BINS, (0.0, 1.0))[0]
        codes, counts = np.unique(_pair_codes(batch, self.num_classes)[flags], return_counts=True)
        self.pairs.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))

    def frequent_pairs(self) -> NDArray[np.int64]:
        """Codes of the PAIRS most frequent pairs of different classes."""
        off = [(code, n) for code, n in self.pairs.items() if code // self.num_classes != code % self.num_classes]
        return np.array([code for code, _ in sorted(off, key=lambda pair: (-pair[1], pair[0]))[:PAIRS]], np.int64)


def read_page(
    issues: Location,
    dynamics: Location,
    summary: RunSummary,
    audit: Sequence[int],
    dataset: PackedDataset | None,
    images: str = "",
) -> Page:
    """Read what the page shows of a finished run.

    Memory: one batch, the rows shown, and 8 bytes per flagged row.

    Args:
        issues: `issues.parquet`, or `reviewed_issues.parquet`.
        dynamics: `dynamics.parquet`.
        summary: content of `summary.json`.
        audit: instance_id of the rows of the audit sample, in the order of the questions.
        dataset: packed data whose images are shown as thumbnails; None for a page without.
        images: why there are no thumbnails.
    """
    survey = _Survey(len(summary.classes), np.array(audit, np.int64))
    for first, batch in batches(issues, _NUMBERS):
        survey.add(first, batch)
    flagged = np.sort(np.concatenate([np.zeros(0, np.int64), *survey.flagged]))
    places = _places(issues, survey, summary.num_flagged)
    rows = rows_at(issues, places)
    bands, paths = _read_dynamics(dynamics, summary, flagged, rows[schema.INSTANCE_ID].to_numpy())
    thumbnails: dict[int, str] = {}
    if dataset is not None:
        thumbnails = read_thumbnails(dataset, rows[schema.INSTANCE_ID].to_pylist())
        missing = rows.num_rows - len(thumbnails)
        note = f"{missing:,} of {rows.num_rows:,} rows have no picture here: reading them takes long."
        images = note if missing else ""
    audit_places = {instance_id: place for place, instance_id in enumerate(audit)}
    suspects = [
        Suspect(
            **{name: row[name] for name in schema.issues_schema().names},
            rank=int(place) + 1,
            audit_place=audit_places.get(row[schema.INSTANCE_ID]),
            margins=paths.get(row[schema.INSTANCE_ID], ()),
            thumbnail=thumbnails.get(row[schema.INSTANCE_ID]),
        )
        for row, place in zip(rows.to_pylist(), places, strict=True)
    ]
    pairs = [(code // survey.num_classes, code % survey.num_classes, n) for code, n in sorted(survey.pairs.items())]
    below, above = (tuple(counts) for counts in survey.histogram.tolist())
    return Page(
        summary=summary,
        suspects=tuple(suspects),
        pairs=tuple(pairs),
        histogram=(below, above),
        bands=bands,
        images=images,
    )


_NUMBERS = [
    *(schema.INSTANCE_ID, schema.GIVEN_LABEL, schema.PREDICTED_LABEL, schema.IS_LABEL_ISSUE),
    schema.LABEL_QUALITY,
]


def _flags(batch: pa.Table) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = batch[schema.IS_LABEL_ISSUE].to_numpy(zero_copy_only=False).astype(bool)
    return flags


def _pair_codes(batch: pa.Table, num_classes: int) -> NDArray[np.int64]:
    given = batch[schema.GIVEN_LABEL].to_numpy().astype(np.int64)
    codes: NDArray[np.int64] = given * num_classes + batch[schema.PREDICTED_LABEL].to_numpy()
    return codes


def _places(issues: Location, survey: _Survey, num_flagged: int) -> NDArray[np.int64]:
    """Positions in `issues.parquet`, increasing, of the rows that are shown."""
    chosen = set(range(min(TOP, num_flagged)))
    chosen |= set(range(max(0, num_flagged - NEAR), min(num_flagged + NEAR, survey.histogram.sum())))
    missing = dict.fromkeys(survey.frequent_pairs().tolist(), PER_PAIR)
    chosen |= set(survey.sampled)
    for first, batch in batches(issues, [schema.GIVEN_LABEL, schema.PREDICTED_LABEL, schema.IS_LABEL_ISSUE]):
        if first >= survey.last or not missing:
            break
        codes = np.where(_flags(batch), _pair_codes(batch, survey.num_classes), -1)
        for place in np.flatnonzero(np.isin(codes, list(missing))).tolist():
            code = int(codes[place])
            if missing.get(code, 0):
                chosen.add(first + place)
                missing[code] -= 1
        missing = {code: count for code, count in missing.items() if count}
    return np.array(sorted(chosen), np.int64)


def _read_dynamics(
    dynamics: Location, summary: RunSummary, flagged: NDArray[np.int64], shown: NDArray[np.int64]
) -> tuple[dict[str, Band], dict[int, tuple[float, ...]]]:
    """Bands over all rows, and the margins of the rows that are shown, by instance_id."""
    trajectories, paths = Trajectories(int(summary.config["epochs"])), dict[int, tuple[float, ...]]()
    for _, batch in batches(dynamics, [schema.KEY, schema.MARGIN]):
        ids, is_copy = schema.decode_key(batch[schema.KEY].to_numpy())
        margins = schema.matrix(batch[schema.MARGIN])
        group = np.where(is_copy, 2, np.where(sorted_positions(flagged, ids) >= 0, 0, 1))
        trajectories.add(margins, group.astype(np.int64))
        for row in np.flatnonzero(np.isin(ids, shown) & ~is_copy).tolist():
            paths[int(ids[row])] = tuple(margins[row].astype(float).tolist())
    return trajectories.bands(), paths
