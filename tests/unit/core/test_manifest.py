"""What is known of packed data: sums that merge, and a file that comes back as it was written."""

from __future__ import annotations

import functools
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.manifest import MANIFEST, TARGET_NORM, DataFile, DatasetManifest, FeatureStats, read_stats
from dynacor_ray.core.storage import locate


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    backwards=st.booleans(),
)
def test_any_split_gives_the_one_pass_answer(seed: int, rows: int, cuts: list[int], backwards: bool) -> None:
    features = np.random.default_rng(seed).normal(3, 2, (rows, 5)).astype(np.float32)
    blocks = [FeatureStats.of(block) for block in np.split(features, sorted(min(cut, rows) for cut in cuts))]
    merged = functools.reduce(operator.add, blocks[::-1] if backwards else blocks)
    whole = FeatureStats.of(features)
    assert merged.count == whole.count == rows
    assert np.allclose(merged.total, features.astype(np.float64).sum(axis=0), rtol=1e-12)
    assert merged.squares == pytest.approx(whole.squares, rel=1e-12)
    assert np.allclose(merged.scaling()[0], features.mean(axis=0), atol=1e-5)
    assert merged.scaling()[1] == pytest.approx(whole.scaling()[1], rel=1e-9)


@pytest.mark.parametrize(("offset", "spread"), [(0, 1), (5, 0.01), (-1000, 3), (1e5, 1), (0, 1e-3)])
def test_scaled_rows_have_the_target_norm(offset: float, spread: float) -> None:
    features = np.random.default_rng(0).normal(offset, spread, (500, 8)).astype(np.float32)
    mean, factor = FeatureStats.of(features).scaling()
    scaled = (features - mean) * factor
    assert mean.dtype == np.float32
    assert np.sqrt(np.square(scaled.astype(np.float64)).sum(axis=1).mean()) == pytest.approx(TARGET_NORM, rel=1e-2)


def test_by_hand() -> None:
    stats = FeatureStats.of(np.array([[1, 2], [3, 6]], np.float32))
    assert stats == FeatureStats(2, (4.0, 8.0), 50.0)
    mean, factor = stats.scaling()
    assert mean.tolist() == [2, 4]
    assert factor == pytest.approx(10 / np.sqrt(5))  # both rows are (1, 2) away from the mean


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_equal_rows_give_a_finite_factor(rows: int) -> None:
    mean, factor = FeatureStats.of(np.full((rows, 4), 0.1, np.float32)).scaling()
    assert np.isfinite(mean).all()
    assert np.isfinite(factor)


def manifest() -> DatasetManifest:
    return DatasetManifest(
        source="table",
        uri="/data/ä b.csv",
        kind="image",
        fingerprint="f",
        content_hash="c",
        payload_hash="p",
        num_rows=5,
        class_names=("cat", "dög"),
        class_counts=(2, 3),
        feature_dim=None,
        parts=(DataFile("part-0.parquet", 3, 0, 2), DataFile("part-1.parquet", 2, 3, 4)),
        quarantine="a1/quarantine.parquet",
        truth="a1/truth.parquet",
        allows_thumbnails=False,
        max_side=640,
        quarantined=1,
        quarantine_reasons={"missing file": 1},
        quarantine_examples=({"row": 7, "reason": "missing file"},),
        stats=FeatureStats(2, (4.0, 8.0), 50.0),
        warnings=("Class 'x' is declared",),
    )


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = locate(str(tmp_path))
    assert DatasetManifest.read(folder) is None
    manifest().write(folder)
    assert DatasetManifest.read(folder) == manifest()
    assert manifest().num_classes == 2


def test_data_packed_by_an_older_version_are_packed_again(tmp_path: Path) -> None:
    manifest().write(locate(str(tmp_path)))
    known = json.loads((tmp_path / MANIFEST).read_text())
    del known["payload_hash"]
    (tmp_path / MANIFEST).write_text(json.dumps(known))
    assert DatasetManifest.read(locate(str(tmp_path))) is None


def test_without_stats(tmp_path: Path) -> None:
    assert read_stats(None) is None
    assert read_stats(json.loads('{"count": 1, "total": [2.0], "squares": 4.0}')) == FeatureStats(1, (2.0,), 4.0)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"source": ')
    with pytest.raises(StorageError, match=r"Expected JSON in .*manifest\.json, but got '.*'; remove the damaged file"):
        DatasetManifest.read(locate(str(tmp_path)))


@pytest.mark.parametrize("name", ["../../secret.parquet", "/etc/passwd"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    known: dict[str, Any] = {
        **dict.fromkeys(("source", "uri", "kind", "fingerprint", "content_hash", "payload_hash"), "x"),
        **{
            "num_rows": 1,
            "class_names": ["a", "b"],
            "class_counts": [1, 0],
            "feature_dim": None,
            "truth": None,
            "duplicates": None,
        },
        **{"parts": [{"name": "a/p", "rows": 1, "first_id": 0, "last_id": 0}], "quarantine": "a/q"},
        **{"allows_thumbnails": True, "stats": None, "lined_up": None, "quarantine_examples": [], "warnings": []},
    }
    parts = [known["parts"][0] | {"name": name}]
    for change in (
        {},
        {"parts": parts},
        {"quarantine": name},
        {"truth": name},
        {"duplicates": name},
        {"parts": 3},
        {"more": 1},
    ):
        (tmp_path / MANIFEST).write_text(json.dumps(known | change))
        if not change:
            assert DatasetManifest.read(locate(str(tmp_path))) is not None
            continue
        with pytest.raises(StorageError, match=r"the manifest of packed data .*; remove "):
            DatasetManifest.read(locate(str(tmp_path)))


@pytest.mark.parametrize("shape", [(3, 5), (700, 130), (5001, 13)])
def test_sums_by_parts_are_those_of_the_whole(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert FeatureStats.of(features).squares == float(np.square(features, dtype=np.float64).sum())
