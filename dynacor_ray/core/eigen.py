"""Eigenvectors of symmetric matrices that LAPACK gives up on at first."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dynacor_ray.core.errors import TrainingError, expected_got

_JITTER = 1e-10
"""Of the mean of the diagonal: far below what rounding leaves of an eigenvalue in float32."""


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in increasing order, and eigenvectors as columns, of a symmetric matrix.

    Many equal eigenvalues, such as the zeros of constant columns, can keep LAPACK's divide and conquer from converging,
    in float32 above all; at times it leaves NaN instead of an error. Then float64 is tried, and last a little is added
    to the diagonal, which moves no eigenvector.

    Args:
        matrix: float32 or float64 (D, D), finite.

    Returns:
        float (D,) and (D, D), of the matrix's type and device.

    Raises:
        TrainingError: all of it failed.
    """
    for tried in _ways(matrix):
        try:
            values, vectors = torch.linalg.eigh(tried)
        except RuntimeError:  # of which LinAlgError is one, which torch's types do not know
            continue
        if bool(torch.isfinite(vectors).all()):  # LAPACK may leave NaN and say nothing
            return values.to(matrix.dtype), vectors.to(matrix.dtype)
    got = f"one of {len(matrix)} x {len(matrix)} for which neither float32 nor float64 converges"
    raise TrainingError(
        expected_got("a symmetric matrix with eigenvectors", got, "look for features that are not finite")
    )


def _ways(matrix: Tensor) -> Iterator[Tensor]:
    """The matrix, and what to try next, each made only when it is asked for."""
    yield matrix
    wide = matrix.double()
    yield wide
    unit = float(wide.diagonal().mean(dim=0))
    yield wide + _JITTER * unit * torch.eye(len(wide)).to(wide)
