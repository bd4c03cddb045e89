"""What the public verbs return: handles of finished run directories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.core.table_files import first_rows, read_rows, table_files
from dynacor_ray.export.datalab import as_datalab
from dynacor_ray.report.build import make_report
from dynacor_ray.report.wording import headline
from dynacor_ray.runs.directory import (
    BEST,
    COMPARISON,
    DYNAMICS,
    INDEX,
    ISSUES,
    PREDICTIONS,
    REPORT,
    SIGNAL_ANALYSIS,
    TRIALS,
    finished_run,
)
from dynacor_ray.runs.records import RunSummary
from dynacor_ray.sources.label_values import is_integer_text

if TYPE_CHECKING:
    import pandas as pd
    from cleanlab import Datalab

    from dynacor_ray.engine.runtime.chunk_datasource import Dataset

WORST = 10
"""Most suspicious rows shown on the terminal."""


class _Handle:
    """Passes for the path of its run directory, wherever one is asked for."""

    run: Location

    def __fspath__(self) -> str:
        return str(self.run)


@dataclass(frozen=True)
class DetectResult(_Handle):
    """What a finished run left in its directory; `summary` is its summary.json."""

    run: Location
    summary: RunSummary

    @classmethod
    def read(cls, run: Location) -> DetectResult:
        """The result in a finished run's directory."""
        return cls(run, RunSummary.read(run))

    def __repr__(self) -> str:
        flagged, rows = self.summary.num_flagged, self.summary.num_rows
        return f"<DetectResult {self.run}: {flagged:,} of {rows:,} labels look wrong>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline, and where the page is."""
        place = self.run / REPORT
        link = Path(place.path).as_uri() if self.run.is_local else str(place)
        return f'<p><b>{headline(self.summary)}</b><br><a href="{escape(link)}">{escape(str(place))}</a></p>'

    @property
    def issues(self) -> pa.Table:
        """`issues.parquet` as an Arrow table, most suspicious first (schema.issues_schema); read at each use."""
        return read_rows(self.run / ISSUES)

    def worst(self, count: int = WORST) -> list[dict[str, Any]]:
        """The `count` most suspicious rows, read without the rest."""
        rows: list[dict[str, Any]] = first_rows(self.run / ISSUES, count).to_pylist()
        return rows

    def to_pandas(self, codes: bool = False) -> pd.DataFrame:
        """`issues.parquet` as a pandas data frame in the order of the data, so that `frame.join` finds its rows.

        The index is that of the data frame that was searched, else instance_id. Rows that were quarantined are absent.
        Given and predicted labels are categories with the names of the classes, so that `.cat.codes` has their numbers;
        labels that are integers are those integers.

        codes: Whether they are the numbers of the classes instead, as in `issues.parquet`.
        """
        frame: pd.DataFrame = self.issues.to_pandas()
        for name in () if codes else (schema.GIVEN_LABEL, schema.PREDICTED_LABEL):
            frame[name] = _labels_of(frame[name].to_numpy(), self.summary.class_names)
        found = frame.set_index(schema.INSTANCE_ID, drop=False).rename_axis(None)
        if not (self.run / INDEX).exists():
            return found.sort_index()
        known: pd.DataFrame = (self.run / INDEX).read_table().to_pandas()
        known = known[known[schema.INSTANCE_ID].isin(found.index)]
        return found.loc[known[schema.INSTANCE_ID]].set_axis(known.index)

    def to_datalab(self) -> Datalab:
        """The rows as `label` issues of a cleanlab Datalab, by instance_id (`dynacor_ray.export.datalab`)."""
        return as_datalab(self.issues, self.summary.class_names)

    def report(self, thumbnails: bool | None = None) -> str:
        """Make `report.html` anew and say where it is. thumbnails: as in `make_report`."""
        return str(make_report(self.run, thumbnails))

    def to_ray(self) -> Dataset:
        """`issues.parquet` as a Ray data set."""
        return _ray_dataset(self.run / ISSUES)

    def dynamics(self) -> Dataset:
        """`dynamics.parquet` as a Ray data set (schema.dynamics_schema)."""
        return _ray_dataset(self.run / DYNAMICS)


def _labels_of(codes: NDArray[np.integer[Any]], names: Sequence[str]) -> Any:
    """Labels as the data have them, for a column of pandas: integers, else categories. codes: int (N,)."""
    if all(is_integer_text(name) and str(int(name)) == name for name in names):
        return np.array([int(name) for name in names])[codes]
    import pandas as pd

    return pd.Categorical.from_codes(codes, list(names))


def _ray_dataset(place: Location) -> Dataset:
    """A table, for which Ray is started where it is not."""
    from dynacor_ray.engine.runtime.chunk_datasource import read_parquet
    from dynacor_ray.engine.runtime.session import connect

    connect()
    return read_parquet(table_files(place))


def load(run: str | os.PathLike[str]) -> DetectResult:
    """The result of a finished run, or of a sweep's chosen one, by its directory. Starts nothing.

    Raises RunDirectoryError when there is none.
    """
    return DetectResult.read(finished_run(locate(os.fspath(run))))


@dataclass(frozen=True)
class _TableResult(_Handle):
    """A finished run directory whose rows lie in one table."""

    run: Location
    summary: dict[str, Any]
    """The content of its summary.json."""

    _table: ClassVar[str]

    def _rows(self) -> pa.Table:
        return (self.run / self._table).read_table()

    def to_pandas(self) -> pd.DataFrame:
        """The table as a pandas data frame."""
        return self._rows().to_pandas()


class SweepResult(_TableResult):
    """What a finished sweep left in its directory."""

    _table = TRIALS

    def __repr__(self) -> str:
        chosen = ", ".join(f"{name}={value}" for name, value in self.summary["chosen"]["options"].items())
        return f"<SweepResult {self.run}: {self.summary['num_trials']} trials, chosen {chosen}>"

    @property
    def best(self) -> DetectResult:
        """The chosen trial's run directory, as `detect` leaves it."""
        return DetectResult.read(self.run / BEST)

    def trials(self) -> pa.Table:
        """`trials.parquet` as an Arrow table, one row per trial."""
        return self._rows()


class CompareResult(_TableResult):
    """What a finished comparison left in its directory."""

    _table = COMPARISON

    def __repr__(self) -> str:
        return f"<CompareResult {self.run}: {len(self.summary['detectors'])} detectors>"

    def judgments(self) -> pa.Table:
        """`comparison.parquet` as an Arrow table: one row per detector, noise and seed."""
        return self._rows()


class TrainResult(_TableResult):
    """What a finished training of a classifier left in its directory."""

    _table = PREDICTIONS

    def __repr__(self) -> str:
        last = self.summary["last"]["test_accuracy"]
        tested = "not tested" if last is None else f"{last:.1%} right on the test rows"
        return f"<TrainResult {self.run}: {tested}>"

    def predictions(self) -> pa.Table:
        """`predictions.parquet` as an Arrow table, one row per test row; there is none without --test."""
        return self._rows()

    @property
    def issues(self) -> pa.Table:
        """`issues.parquet` as an Arrow table, as of `detect`; there is none without --method. Read at each use."""
        return read_rows(self.run / ISSUES)


class AnalyzeSignalsResult(_TableResult):
    """What a finished analysis of signals left in its directory."""

    _table = SIGNAL_ANALYSIS

    def __repr__(self) -> str:
        return f"<AnalyzeSignalsResult {self.run}: {len(self.summary['detectors'])} readers>"

    def findings(self) -> pa.Table:
        """`signal_analysis.parquet` as an Arrow table: one row per reader, signal, noise, seed and corruption rate."""
        return self._rows()
