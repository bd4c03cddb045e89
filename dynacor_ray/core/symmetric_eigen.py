"""Eigenvectors of symmetric matrices of any rank."""

from __future__ import annotations

import torch
from torch import Tensor


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order and eigenvectors as columns, by LAPACK.

    In float32, which takes half the time, it sometimes does not converge where the rank is low, as where units of a
    hidden layer are dead. In float64 it did.

    Args:
        matrix: float (D, D), symmetric and finite.

    Returns:
        float32 or float64 (D,) and (D, D).

    Raises:
        RuntimeError: It does not converge in float64 either.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix.float())
    except RuntimeError:  # of which LinAlgError is one, which torch's types do not know
        values, vectors = torch.linalg.eigh(matrix.double())
    return values, vectors
