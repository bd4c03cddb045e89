"""Training dynamics: the signal read at every epoch (Kim et al., CVPR 2024, §4.3, Eq. 1, 2; Table 6, App. B).

Every signal is a pure function of one batch of logits (B, C) and labels (B,); nothing is kept between batches.
Axes: N or n rows, B batch, C classes, D features, E epochs.

Deviations from the paper:

- A margin of exactly 0 counts as positive, as in the paper; the released code maps it to 0.
- Margins are stored as float16 with their sign protected.
- `row_weights` offers Eq. 2 ("paper") and the plain mean over both sets ("uniform", the released code).

Cost: a gather, a scatter and a maximum over (B, C) on logits that training computes anyway; no extra pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.eigen import eigh
from dynacor_ray.core.errors import ConfigError, TrainingError, expected_got

_FLOAT16_MAX = np.float32(65504.0)
_NEGATIVE_SUBNORMAL = np.float16(-(2.0**-24))
_WORD_BITS = 64


@dataclass(frozen=True)
class SignPatterns:
    """Distinct rows of sign dynamics (Eq. 1), in lexicographic order with -1 before +1.

    Attributes:
        signs: int8 (u, E) of -1/+1.
        inverse: int64 (n,), row -> pattern.
        counts: int64 (u,), rows per pattern.
    """

    signs: NDArray[np.int8]
    inverse: NDArray[np.int64]
    counts: NDArray[np.int64]


def logit_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the given label minus the largest other logit (§4.3): `f_y(x) - max_{c != y} f_c(x)`.

    Args:
        logits: float (B, C), C >= 2.
        labels: int64 (B,), given labels.

    Returns:
        float (B,), unbounded; low = likely mislabeled.

    >>> logit_margin(torch.tensor([[2.0, 0.5, -1.0], [1.0, 4.0, 0.0]]), torch.tensor([0, 0]))
    tensor([ 1.5000, -3.0000])
    """
    others = logits.scatter(1, labels.long().unsqueeze(1), -torch.inf)
    return _at_label(logits, labels) - others.amax(dim=1)


def cross_entropy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the given label, per row (§4.3, Table 6): `-log p_y`.

    Args:
        logits: float (B, C).
        labels: int64 (B,), given labels.

    Returns:
        float (B,) >= 0; high = likely mislabeled.
    """
    return F.cross_entropy(logits, labels.long(), reduction="none")


def given_label_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of the given label (§4.3, Table 6): `p_y = softmax(f)_y`.

    Args:
        logits: float (B, C).
        labels: int64 (B,), given labels.

    Returns:
        float (B,) in [0, 1]; low = likely mislabeled.
    """
    return _at_label(torch.softmax(logits, dim=1), labels)


def probability_difference(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest probability minus that of the given label (§4.3, Table 6): `max_c p_c - p_y`.

    Args:
        logits: float (B, C).
        labels: int64 (B,), given labels.

    Returns:
        float (B,) in [0, 1]; high = likely mislabeled.
    """
    probability = torch.softmax(logits, dim=1)
    return probability.amax(dim=1) - _at_label(probability, labels)


def first_eigenvectors(grams: Tensor) -> Tensor:
    """First eigenvector of each class's gram matrix `sum of v_x v_x^T` (§4.3, Table 6; FINE, Kim et al. 2021).

    Args:
        grams: float (C, D, D).

    Returns:
        float (C, D), rows of length 1, up to sign; 0 for a class without rows, whose matrix is 0, and for one whose
        matrix is not finite.
    """
    directions = grams.new_zeros(grams.shape[:2])
    for label, gram in enumerate(grams):
        if bool(gram.any()) and bool(torch.isfinite(gram).all()):
            directions[label] = eigh(gram)[1][:, -1]
    return directions


def alignment(features: Tensor, labels: Tensor, directions: Tensor) -> Tensor:
    """Squared projection of the pre-logits on the given class's direction (§4.3, Table 6; FINE): `<u_y, v_x>^2`.

    Args:
        features: float (B, D), pre-logits.
        labels: int64 (B,), given labels.
        directions: float (C, D) from `first_eigenvectors`.

    Returns:
        float (B,) >= 0; low = likely mislabeled.
    """
    return (features * directions[labels.long()]).sum(dim=1).square()


def to_float16_keeping_sign(margin: NDArray[np.floating[Any]] | Tensor) -> NDArray[np.float16]:
    """Margins as float16 (§4.3); `>= 0` holds after rounding exactly where it held before.

    Args:
        margin: float, any shape.

    Returns:
        float16, same shape, in [-65504, 65504]. Larger values saturate; a negative margin too small for float16 becomes
        the smallest negative subnormal.

    Raises:
        TrainingError: a margin is NaN.
    """
    wide = margin.detach().cpu().float().numpy() if isinstance(margin, Tensor) else np.asarray(margin)
    if np.isnan(wide).any():
        got = f"NaN in {int(np.isnan(wide).sum())} of {wide.size} rows"
        raise TrainingError(expected_got("finite margins", got, "lower the learning rate; training has diverged"))
    narrow = np.clip(wide, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16)
    return np.where((wide < 0) & (narrow == 0), _NEGATIVE_SUBNORMAL, narrow)


def row_weights(is_corrupted: Tensor, gamma_actual: float, weighting: str) -> Tensor:
    """Weights that turn a mean over the union of both sets into the classifier's loss (Eq. 2).

    Args:
        is_corrupted: bool (B,).
        gamma_actual: copies per original, g > 0.
        weighting: "paper" for mean over originals + mean over copies, i.e. `1 + g` for an original and `(1 + g)/g` for
            a copy; "uniform" (released code) for 1 everywhere.

    Returns:
        float32 (B,).

    Raises:
        ConfigError: "paper" without copies.
    """
    if weighting == "uniform":
        return torch.ones(is_corrupted.shape, dtype=torch.float32, device=is_corrupted.device)
    if not gamma_actual > 0.0:
        raise ConfigError(expected_got("at least one corrupted copy for Eq. 2", f"gamma {gamma_actual}", "raise gamma"))
    weights = torch.where(is_corrupted, (1.0 + gamma_actual) / gamma_actual, 1.0 + gamma_actual)
    return weights.to(torch.float32)


def sign_patterns(margins: NDArray[np.floating[Any]]) -> SignPatterns:
    """Distinct sign dynamics and their counts (Eq. 1, §4.3), so that repeated work is done once per pattern.

    DynaCor's signal is +1 where the margin is >= 0, else -1.

    Args:
        margins: float (n, E), n >= 0, E >= 1.

    Returns:
        SignPatterns; `signs[inverse]` is the sign of every row. Only `inverse` depends on the order of rows.
    """
    words = _packed_words(margins >= 0)
    if words.shape[1] == 1:
        distinct, inverse, counts = np.unique(words[:, 0], return_inverse=True, return_counts=True)
        distinct = distinct[:, None]
    else:
        distinct, inverse, counts = _unique_rows(words)
    bits = np.unpackbits(distinct.astype(">u8").view(np.uint8), axis=1, count=margins.shape[1])
    return SignPatterns(bits.astype(np.int8) * np.int8(2) - np.int8(1), inverse.astype(np.int64), counts)


def _at_label(values: Tensor, labels: Tensor) -> Tensor:
    """The value of each row's label. (B, C), (B,) -> (B,)."""
    return values.gather(1, labels.long().unsqueeze(1)).squeeze(dim=1)


def _packed_words(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits (n, E) as uint64 (n, ceil(E/64)), first epoch in the highest bit: integer order is lexicographic order."""
    num_words = -(-bits.shape[1] // _WORD_BITS)
    packed = np.zeros((bits.shape[0], num_words * 8), dtype=np.uint8)
    packed[:, : -(-bits.shape[1] // 8)] = np.packbits(bits, axis=1)
    return packed.view(">u8").astype(np.uint64)


def _unique_rows(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows in lexicographic order, the row -> distinct map and the counts. words: uint64 (n, W)."""
    order = np.lexsort(words.T[::-1])
    ordered = words[order]
    starts = np.ones(len(words), dtype=np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(words), dtype=np.int64)
    inverse[order] = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    return ordered[first], inverse, np.diff(np.append(first, len(words)))
