"""Means and quartiles of margins per epoch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dynacor_ray.core.errors import DataError
from dynacor_ray.report.trajectories import Trajectories


def test_bands_are_means_and_quartiles_however_the_rows_are_cut() -> None:
    random = np.random.default_rng(0)
    margins = (random.standard_cauchy((5000, 3)) * 3).clip(-6e4, 6e4).astype(np.float16)
    group = random.integers(0, 2, 5000)
    cuts = [0, 1, 1700, 5000]
    total = Trajectories(3)
    for low, high in itertools.pairwise(cuts):
        total.add(margins[low:high], group[low:high])
    bands = total.bands()
    for place, name in enumerate(("flagged", "unflagged")):
        mine = margins[group == place].astype(np.float64)
        band = bands[name]
        assert band.rows == len(mine)
        assert np.allclose(band.mean, mine.mean(axis=0))
        for share, found in ((0.25, band.low), (0.75, band.high)):
            exact = np.quantile(mine, share, axis=0, method="inverted_cdf")
            assert np.allclose(found, exact, rtol=1 / 64, atol=1e-6)
    assert bands["planted"].rows == 0
    with pytest.raises(DataError, match="3 epochs in every row, but got 2"):
        total.add(margins[:, :2], group)
