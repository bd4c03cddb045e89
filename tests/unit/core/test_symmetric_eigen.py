"""Eigenvectors where float32 does not do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dynacor_ray.core.symmetric_eigen import symmetric_eigen

MATRIX = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])


def fails(monkeypatch: pytest.MonkeyPatch, *types: torch.dtype) -> None:
    """As LAPACK did of 512 units of which 150 were dead, in some epochs."""
    plain = torch.linalg.eigh

    def eigh(matrix: torch.Tensor) -> Any:
        if matrix.dtype in types:
            raise RuntimeError("The algorithm failed to converge")
        return plain(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)


@pytest.mark.parametrize("failing", [(), (torch.float32,)])
def test_by_hand(failing: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, *failing)
    values, vectors = symmetric_eigen(MATRIX)
    assert values.tolist() == pytest.approx([0.0, 1.0, 3.0], abs=1e-6)
    assert vectors[:, -1].abs().tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0], abs=1e-6)
    assert values.dtype == (torch.float64 if failing else torch.float32)


def test_what_never_converges_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, torch.float32, torch.float64)
    with pytest.raises(RuntimeError, match="converge"):
        symmetric_eigen(MATRIX)
