"""Columns in other units and far rows are brought into line; features that are alike stay bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dynacor_ray.core.robust_scaling import FAR_ROW, RobustScaling, reach_of

RNG = np.random.default_rng(0)
PLAIN = RNG.normal(2.0, 1.0, (500, 40)).astype(np.float32)


def test_features_that_are_alike_stay_bit_for_bit() -> None:
    falling = (PLAIN * np.geomspace(15, 1, 40)).astype(np.float32)  # as principal components fall
    sparse = np.where(RNG.random((500, 40)) < 0.02, 9.0, 0.0).astype(np.float32)
    for features in (PLAIN, falling, sparse, PLAIN[:, :2], PLAIN[:200], np.float32(PLAIN * 1e-6)):
        scaling = RobustScaling.of(features)
        assert not scaling.scales
        assert scaling.far_columns == ()
        near = features[scaling.distances(features) <= scaling.limit]
        assert np.array_equal(scaling.apply(near), near)


def test_a_far_row_is_moved_back_in_its_direction_and_moves_nothing_else() -> None:
    features = PLAIN.copy()
    features[7] *= 1000
    scaling = RobustScaling.of(features)
    assert np.flatnonzero(scaling.distances(features) > scaling.limit).tolist() == [7]
    lined, center = scaling.apply(features), np.asarray(scaling.center)
    assert np.array_equal(np.delete(lined, 7, axis=0), np.delete(features, 7, axis=0))
    assert np.linalg.norm(lined[7] - center) == pytest.approx(scaling.limit, rel=1e-5)
    cosine = (lined[7] - center) @ (features[7] - center)
    assert cosine == pytest.approx(scaling.limit * np.linalg.norm(features[7] - center), rel=1e-5)
    usual = np.median(np.linalg.norm(PLAIN - np.median(PLAIN, axis=0), axis=1))
    assert scaling.limit == pytest.approx(FAR_ROW * usual, rel=0.02), "the far row has no say in it"


@pytest.mark.parametrize("column", [1.7e9 + 3e7 * RNG.random(500), np.arange(500.0), 1e-4 * RNG.random(500)])
def test_a_column_in_other_units_gets_the_usual_unit(column: np.ndarray) -> None:
    features = np.column_stack([PLAIN, column]).astype(np.float32)
    scaling = RobustScaling.of(features)
    assert scaling.far_columns == (40,)
    assert not scaling.mixed
    lined = scaling.apply(features)
    assert np.array_equal(lined[:, :40], PLAIN)
    assert 0.5 < lined[:, 40].std() / PLAIN.std() < 2
    assert np.corrcoef(lined[:, 40], column)[0, 1] > 0.99


def test_the_row_number_of_few_rows_beside_many_columns() -> None:
    wide = RNG.normal(0.0, 5.0, (200, 64))
    assert RobustScaling.of(np.column_stack([wide, np.arange(200)])).far_columns == (64,)


def test_columns_of_mixed_units_all_get_the_same() -> None:
    mixed = (PLAIN * np.geomspace(1e-3, 1e3, 40)).astype(np.float32)
    scaling = RobustScaling.of(mixed)
    assert scaling.mixed
    spread = scaling.apply(mixed).std(axis=0)
    assert spread.max() / spread.min() < 1.5


def test_many_far_rows_do_not_hide_in_a_column_that_is_rarely_used() -> None:
    features = PLAIN.copy()
    features[:, 3] = np.where(RNG.random(500) < 0.01, 1.0, 0.0)
    features[:10] = features[:10] * 1000 + 5
    scaling = RobustScaling.of(features)
    assert scaling.far_columns == ()
    assert np.flatnonzero(scaling.distances(features) > scaling.limit).tolist() == list(range(10))


def test_constant_columns_are_named_and_left() -> None:
    features = PLAIN.copy()
    features[:, [4, 9]] = 7.0
    scaling = RobustScaling.of(features)
    assert scaling.constant_columns == (4, 9)
    assert np.array_equal(scaling.apply(features), features)
    alike = RobustScaling.of(np.full((5, 3), 2.0, np.float32))
    assert alike.constant_columns == (0, 1, 2)
    assert alike.limit == float("inf")
    assert np.array_equal(alike.apply(np.full((2, 3), 9.0, np.float32)), np.full((2, 3), 9.0, np.float32))


def test_values_at_the_end_of_float32_stay_finite() -> None:
    features = PLAIN.copy()
    features[0, 0], features[1, 1] = 3e38, -3e38
    scaling = RobustScaling.of(features)
    assert np.isfinite(scaling.apply(features)).all()
    assert (scaling.distances(features) > scaling.limit).sum() == 2


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_no_row_is_beyond_its_reach(offset: float) -> None:
    features = (np.random.default_rng(0).normal(size=(500, 9)) + offset).astype(np.float32)
    center = features.mean(axis=0, dtype=np.float64)
    largest = np.linalg.norm(features - center, axis=1).max()
    assert largest <= reach_of(features, center) <= 1.002 * largest + 1e-5 * offset
    scaling = dataclasses.replace(RobustScaling.of(features), limit=float(largest) + 1.0)
    assert not scaling.may_be_far(np.asarray(scaling.center), largest)
    assert scaling.may_be_far(np.asarray(scaling.center) + 1.0, largest)
    assert scaling.may_be_far(np.asarray(scaling.center), reach_of(np.full((1, 9), 1e30, np.float32), center))
