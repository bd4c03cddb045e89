"""One file or a folder of several: the same rows, whole or not at all, and what an attempt that died leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dynacor_ray.core import table_files
from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.core.table_files import batches, columns_of, first_rows, has_table, read_rows, rows_at, write_rows

ROWS = pa.table({"number": pa.array(range(1000)), "text": pa.array([f"row {i}" for i in range(1000)])})
WANTED = pa.schema([("number", pa.int32()), ("text", pa.string())])
TABLES = [ROWS.slice(start, 100) for start in range(0, 1000, 100)]


@pytest.fixture(params=["one file", "a folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    if request.param == "a folder":
        monkeypatch.setattr(table_files, "MOST_BYTES", 3000)
    written = locate(str(tmp_path / "issues.parquet"))
    write_rows(written, WANTED, TABLES)
    assert written.exists() == (request.param == "one file")
    return written


def test_readers_see_one_table(place: Location) -> None:
    expected = ROWS.cast(WANTED)
    assert has_table(place)
    assert columns_of(place) == WANTED
    assert read_rows(place) == expected
    assert read_rows(place, ["text"]) == expected.select(["text"])
    assert first_rows(place, 5) == expected.slice(0, 5)
    at = np.array([0, 99, 100, 550, 999])
    assert rows_at(place, at, ["number"])["number"].to_pylist() == at.tolist()
    assert rows_at(place, at[:0]).schema == WANTED
    seen = list(batches(place, ["number"], size=70))
    assert [first for first, _ in seen] == np.cumsum([0, *(len(batch) for _, batch in seen)])[:-1].tolist()
    assert pa.concat_tables([batch for _, batch in seen])["number"].to_pylist() == list(range(1000))


def test_a_folder_is_read_by_others_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MOST_BYTES", 3000)
    write_rows(locate(str(tmp_path / "dynamics.parquet")), WANTED, TABLES)
    assert len(list((tmp_path / "dynamics").glob("*.parquet"))) > 1
    assert pd.read_parquet(tmp_path / "dynamics")["number"].tolist() == list(range(1000))


def test_a_failure_leaves_what_was_there(place: Location) -> None:
    def breaks() -> Iterator[pa.Table]:
        yield from TABLES[:7]
        raise ValueError("the power failed")

    before = read_rows(place)
    with pytest.raises(ValueError, match="power"):
        write_rows(place, WANTED, breaks())
    assert read_rows(place) == before


def test_the_next_attempt_replaces_either_form(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place.parent / "issues"
    for most in (3000, 1 << 30, 3000, 3000):
        monkeypatch.setattr(table_files, "MOST_BYTES", most)
        write_rows(place, WANTED, TABLES[:8])
        assert len(read_rows(place)) == 800
        assert place.exists() == (most > 3000)
        assert folder.exists() == (most == 3000)
        assert len(folder.names()) == (len(table_files.table_files(place)) + 1 if most == 3000 else 0)
    assert not [name for name in place.parent.names() if name.endswith(".part")]


def test_a_list_leads_nowhere_else(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "issues.parquet"))
    for names in (["../secret.parquet"], [], "x", None):
        (tmp_path / "issues").mkdir(exist_ok=True)
        (place.parent / "issues" / table_files.LIST).write_json({"files": names})
        with pytest.raises(StorageError, match="names of files"):
            read_rows(place)
