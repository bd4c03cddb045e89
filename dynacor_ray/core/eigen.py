"""Eigenvectors of symmetric matrices that LAPACK gives up on at first."""

from __future__ import annotations

import torch
from torch import Tensor

_JITTER = 1e-10
"""Of the mean of the diagonal: far below what rounding leaves of an eigenvalue in float32."""


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in increasing order, and eigenvectors as columns, of a symmetric matrix.

    Many equal eigenvalues, such as the zeros of constant columns, can keep LAPACK's divide and conquer from converging,
    for one matrix in many thousands and in float32 above all. Then float64 is tried, and last a little is added to the
    diagonal, which moves no eigenvector.

    Args:
        matrix: float32 or float64 (D, D), finite.

    Returns:
        float (D,) and (D, D), of the matrix's type and device.

    Raises:
        RuntimeError: all of it failed.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except RuntimeError:  # of which LinAlgError is one, which torch's types do not know
        exact = matrix.double()
        try:
            values, vectors = torch.linalg.eigh(exact)
        except RuntimeError:
            unit = float(exact.diagonal().mean(dim=0))
            values, vectors = torch.linalg.eigh(exact + _JITTER * unit * torch.eye(len(exact)).to(exact))
    return values.to(matrix.dtype), vectors.to(matrix.dtype)
