"""Eigenvectors of matrices with many equal eigenvalues."""

import pytest
import torch

from dynacor_ray.core.eigen import eigh
from dynacor_ray.core.errors import TrainingError


def _symmetric() -> torch.Tensor:
    rows = torch.randn((30, 12), generator=torch.Generator().manual_seed(0))
    rows[:, 5:] = 0.0  # constant columns
    return rows.T @ rows


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_what_does_not_converge_is_tried_in_another_way(monkeypatch, failures):
    """As hashed texts did, of whose 768 columns 503 were constant."""
    real, tried = torch.linalg.eigh, []

    def stubborn(matrix):
        tried.append(matrix.dtype)
        if len(tried) <= failures:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return real(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", stubborn)
    matrix = _symmetric()
    values, vectors = eigh(matrix)
    assert tried == [torch.float32, torch.float64, torch.float64][: failures + 1]
    assert values.dtype == vectors.dtype == matrix.dtype
    torch.testing.assert_close(vectors @ torch.diag(values) @ vectors.T, matrix, atol=1e-4, rtol=1e-4)


def test_what_came_out_as_nan_is_tried_in_another_way(monkeypatch):
    """As of 100 columns of which 88 were constant."""
    real = torch.linalg.eigh

    def silent(matrix):
        values, vectors = real(matrix)
        return values, vectors * torch.nan if matrix.dtype == torch.float32 else vectors

    monkeypatch.setattr(torch.linalg, "eigh", silent)
    assert torch.isfinite(eigh(_symmetric())[1]).all()


def test_what_never_converges_is_said():
    with pytest.raises(TrainingError, match="neither float32 nor float64 converges; look for features"):
        eigh(torch.full((3, 3), torch.nan))
