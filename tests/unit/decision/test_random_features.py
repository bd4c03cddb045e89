from __future__ import annotations

import numpy as np
import torch

from dynacor_ray.decision.leave_one_out_ridge import RidgeSums
from dynacor_ray.decision.random_features import FEWEST, MOST, RandomFeatures, feature_count


def test_the_given_features_come_first_scaled_and_the_rest_is_relu() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    random = RandomFeatures(x.mean(dim=0), 1 / 3, 6, seed=1)
    wide = random.widen(x)
    assert wide.shape == (50, random.dim) == (50, 10)
    assert torch.allclose(wide[:, :4], (x - x.mean(dim=0)) / 3)
    assert (wide[:, 4:] >= 0).all()
    assert (wide[:, 4:] > 0).any(dim=0).all()


def test_every_worker_draws_the_same() -> None:
    x, mean = torch.ones(3, 2), torch.zeros(2)
    first, again, other = (RandomFeatures(mean, 1.0, 5, seed).widen(x) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert RandomFeatures(mean, 1.0, 0, 7).widen(x).shape == (3, 2)


def test_classes_that_no_line_separates_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype(np.float32)
    label = torch.from_numpy((x[:, 0] * x[:, 1] > 0).astype(np.int64))
    features, everywhere = torch.from_numpy(x), torch.ones(600, dtype=torch.bool)
    right = []
    for count in (0, 200):
        wide = RandomFeatures(features.mean(dim=0), 1.0, count, seed=0).widen(features)
        sums = RidgeSums(2, wide.mean(dim=0), 1.0)
        sums.add(wide, label)
        ridge = sums.solve()
        assert ridge is not None
        right.append(float((ridge.predict(wide, label, everywhere).argmax(dim=1) == label).float().mean(dim=0)))
    assert right[0] < 0.65
    assert right[1] > 0.9


def test_few_rows_have_few_random_features() -> None:
    assert [feature_count(rows) for rows in (0, 200, 1800, 50_000)] == [FEWEST, FEWEST, 600, MOST]
