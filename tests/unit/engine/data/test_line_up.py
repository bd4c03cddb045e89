"""Features in line from files: far rows are found by a second pass, and what was done is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError
from dynacor_ray.core.manifest import FeatureStats
from dynacor_ray.core.robust_scaling import reach_of
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.engine.data import line_up as module
from dynacor_ray.engine.data.line_up import feature_warnings, in_line, line_up, sample_of

ROWS, DIM = 400, 20
IDS = np.arange(ROWS) * 3
PLAIN = np.random.default_rng(0).normal(1.0, 2.0, (ROWS, DIM)).astype(np.float32)


def written(folder: Path, features: np.ndarray, by_key: bool = False) -> list[tuple[Location, FeatureStats, float]]:
    files = []
    for part in np.array_split(np.arange(ROWS), 3):
        place = locate(str(folder / f"{part[0]}.parquet"))
        number = {schema.KEY: IDS[part] << 1} if by_key else {schema.INSTANCE_ID: IDS[part]}
        place.write_table(pa.table({**number, schema.FEATURE: schema.feature_column(features[part])}))
        stats = FeatureStats.of(features[part])
        files.append((place, stats, reach_of(features[part], stats.mean)))
    return files


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.5])
def test_features_that_are_all_equal_are_refused(tmp_path: Path, value: float) -> None:
    equal = np.full_like(PLAIN, value)
    with pytest.raises(DataError, match="features that differ between the rows, but got the same numbers in all 400"):
        line_up(written(tmp_path, equal), equal)


@pytest.mark.parametrize("by_key", [False, True])
def test_features_that_are_alike_need_nothing(tmp_path: Path, by_key: bool) -> None:
    files = written(tmp_path, PLAIN, by_key)
    scaling, found = line_up([(*files[0][:2], np.inf), *files[1:]], PLAIN)
    assert scaling is not None
    assert found is None
    assert feature_warnings(scaling, found, ROWS) == []
    table = pa.table({schema.FEATURE: schema.feature_column(PLAIN)})
    assert in_line(table, None) is table
    assert line_up([], PLAIN[:0]) == (None, None)
    assert feature_warnings(None, None, 0) == []


def test_a_far_row_that_the_sample_lacks_is_named_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * DIM * 7)  # several blocks of each file
    features = PLAIN.copy()
    features[[5, 399]] *= 1000
    files = written(tmp_path, features)
    files[1][0].delete()  # no row can be far there, so that it is not read again
    scaling, found = line_up(files, np.delete(features, [5, 399], axis=0))
    assert found is not None
    assert scaling == found.scaling
    assert (found.far_rows, found.far_examples) == (2, (15, 1197))
    table = in_line(pa.table({schema.FEATURE: schema.feature_column(features)}), found)
    expected = FeatureStats.of(schema.matrix(table[schema.FEATURE]))
    assert found.stats.count == ROWS
    assert found.stats.total == pytest.approx(expected.total, rel=1e-6)
    assert found.stats.squares == pytest.approx(expected.squares, rel=1e-6)
    (said,) = feature_warnings(scaling, found, ROWS)
    assert said.startswith("2 of 400 feature vectors are far from all others and are moved closer")
    assert said.endswith("look at instance_id 15, 1197.")


def test_columns_are_named(tmp_path: Path) -> None:
    features = PLAIN.copy()
    features[:, 2], features[:, 3] = 1.7e9 + 1e6 * PLAIN[:, 2], 4.0
    said = feature_warnings(*line_up(written(tmp_path, features), features), ROWS)
    assert said[0].startswith("1 of 20 feature columns are in other units than the rest")
    assert said[0].endswith(": 2.")
    assert said[1] == "1 of 20 feature columns have the same value in all rows: 3."
    names = [f"x{column}" for column in range(DIM)]
    said = feature_warnings(*line_up(written(tmp_path, features), features), ROWS, names)
    assert said[0].endswith(": 'x2'.")
    assert said[1].endswith(": 'x3'.")
    mixed = (PLAIN * np.geomspace(1e-3, 1e3, DIM)).astype(np.float32)
    (whole,) = feature_warnings(*line_up(written(tmp_path, mixed), mixed), ROWS)
    assert whole.startswith("The 20 feature columns are in different units: all are scaled to one")


def test_the_sample_is_a_matter_of_ids() -> None:
    assert np.array_equal(sample_of(IDS, PLAIN, ROWS), PLAIN)
    whole = sample_of(IDS, PLAIN, 40 * 4096)
    parts = [sample_of(IDS[cut], PLAIN[cut], 40 * 4096) for cut in (slice(0, 50), slice(50, None))]
    assert np.array_equal(np.concatenate(parts), whole)
    assert 0 < len(whole) < 40
