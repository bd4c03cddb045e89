"""Features of very many numbers, in fewer."""

from __future__ import annotations

import torch

from dynacor_ray.decision.feature_hashing import HASHED, FeatureHashing

CPU = torch.device("cpu")


def test_every_number_goes_to_one_place_with_a_sign() -> None:
    hashing = FeatureHashing(800, 4, CPU)
    each = hashing.hashed(torch.eye(800))
    assert each.shape == (800, HASHED)
    assert each.abs().sum(dim=1).eq(1.0).all()
    assert 0.4 < each.sum(dim=1).eq(1.0).float().mean(dim=0) < 0.6
    rows = torch.randn((5, 800), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hashing.hashed(rows), rows @ each, atol=1e-4, rtol=1e-4)
    assert torch.equal(hashing.hashed(rows[0]), hashing.hashed(rows)[0])


def test_inner_products_are_kept() -> None:
    rows = torch.randn((40, 6000), generator=torch.Generator().manual_seed(1))
    hashed = FeatureHashing(6000, 0, CPU).hashed(rows)
    error = (hashed @ hashed.T - rows @ rows.T) / 6000
    assert error.std() < 2 / HASHED**0.5
    assert not torch.equal(hashed, FeatureHashing(6000, 1, CPU).hashed(rows))
