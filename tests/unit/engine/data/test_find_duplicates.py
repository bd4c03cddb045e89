"""Equal rows are found in any number of buckets and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data import find_duplicates as module
from dynacor_ray.engine.data.find_duplicates import DUPLICATES, HASHES, bucket_count, row_hashes, write_duplicates

NUMBERS = np.random.default_rng(0).integers(0, 30, 80)  # rows of the same number are equal
IDS = np.random.default_rng(1).permutation(80).astype(np.int64)


@pytest.mark.parametrize("bucket_rows", [1000, 25])
def test_twins_in_different_files_and_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket_rows: int
) -> None:
    monkeypatch.setattr(module, "BUCKET_ROWS", bucket_rows)
    monkeypatch.setattr(module, "parallel_map", map)
    place, parts = locate(str(tmp_path / "attempt")), []
    features = NUMBERS[:, None] + np.zeros(3, np.float32)
    for part in np.array_split(np.arange(80), 4):
        parts.append(f"attempt/part-{part[0]}.parquet")
        hashes = row_hashes(features[part])
        module.write_hashes(place / HASHES / f"part-{part[0]}.parquet", IDS[part], hashes, bucket_count(80))
    assert write_duplicates(place, parts, 80) == "attempt/duplicates.parquet"
    table = (place / f"{DUPLICATES}.parquet").read_table().to_pydict()
    found = dict(zip(table["instance_id"], table["duplicate_of"], strict=True))
    groups = {n: IDS[n == NUMBERS] for n in NUMBERS.tolist()}
    assert found == {i: min(g) for g in groups.values() if len(g) > 1 for i in g.tolist()}
    assert place.names() == ["duplicates.parquet"]


def test_no_file_without_twins(tmp_path: Path) -> None:
    place = locate(str(tmp_path / "a"))
    module.write_hashes(place / HASHES / "p.parquet", np.arange(3), row_hashes([b"a", b"b", b""]), 1)
    assert write_duplicates(place, ["a/p.parquet"], 3) is None
    assert place.names() == []


def test_hashes_are_those_of_the_bytes() -> None:
    images = row_hashes([b"abc", b"abd", b"abc"])
    assert images.shape == (3, 2)
    assert images[0].tolist() == images[2].tolist() != images[1].tolist()
    features = np.array([[1, 2], [1, 2], [2, 1]], np.float32)
    found = row_hashes(features)
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()
    assert row_hashes([features[0].tobytes()]).tolist() == found[:1].tolist()
    assert row_hashes(features[:0]).shape == (0, 2)
