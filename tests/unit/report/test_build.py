"""Which run a report is made of, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, RunDirectoryError
from dynacor_ray.core.storage import locate
from dynacor_ray.report.build import make_report
from tests.made_runs import make_run


def test_report_of_a_sweep_is_that_of_its_chosen_run(tmp_path: Path) -> None:
    make_run(tmp_path / "sweep" / "best")
    (tmp_path / "sweep" / "summary.json").write_text("{}")
    assert str(make_report(locate(str(tmp_path / "sweep")))) == f"{tmp_path}/sweep/best/report.html"


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="but got no directory"):
        make_report(locate(str(tmp_path / "none")))
    (tmp_path / "begun").mkdir()
    with pytest.raises(RunDirectoryError, match=r"without summary\.json and issues\.parquet; run dynacor detect"):
        make_report(locate(str(tmp_path / "begun")))


def test_dynamics_of_another_length_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", epochs=6)
    short = pq.read_table(folder / "dynamics.parquet")
    margins = schema.matrix(short["margin"])[:, :3]
    short = short.set_column(1, "margin", schema.fixed_size_list(margins))
    pq.write_table(short.cast(schema.dynamics_schema(3)), folder / "dynamics.parquet")
    with pytest.raises(DataError, match="6 epochs in every row, but got 3"):
        make_report(locate(str(folder)))
