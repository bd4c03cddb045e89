"""What is recognized as what, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynacor_ray.core.errors import ConfigError, DataError, StorageError
from tests.opened_sources import opened, write


def test_nothing_there(tmp_path: Path) -> None:
    for data in (f"{tmp_path}/absent", "", f"clothing1m:{tmp_path}/absent"):
        with pytest.raises(DataError, match=r"Expected data to look at .*, but got no such path '.*'; check the path"):
            opened(data)
    with pytest.raises(StorageError, match="installed driver"):
        opened("nosuchprotocol://x")


def test_not_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a .csv or .tsv table .* but got a file of type '.zip'"):
        opened(write(tmp_path / "x.zip", "zip"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"'demo', a .parquet file, .* but got an empty folder"):
        opened(tmp_path / "empty")
    write(tmp_path / "tables" / "t.csv", "uri,label\n")
    with pytest.raises(DataError, match=r"but got the files t.csv; give the path of the table itself"):
        opened(tmp_path / "tables")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"balanced_sample": 14}, "--balanced-sample"),
        ({"include_double_labeled": True, "label_column": "x"}, "--include-double-labeled, --label-column"),
        ({"classes": ("a", "b")}, "--classes"),
    ],
)
def test_options_that_do_not_apply(options: dict[str, Any], flags: str) -> None:
    with pytest.raises(
        ConfigError, match=f"options that apply to data of kind 'demo', but got {flags}; leave them out"
    ):
        opened("demo", **options)
