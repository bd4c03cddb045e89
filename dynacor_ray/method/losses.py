"""The clustering's distances, soft assignment, target and losses (§4.4, Eq. 3 to 8)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.method.selection import EPOCH_CHOICES

NOISY, CLEAN = 0, 1
"""Row of a centroid, and column of a distance, of each cluster."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "kl_reduction": ("sum", "batchmean"),
    "assignment_distance": ("cosine", "squared_euclidean"),
    "metric_rows": ("all", "copied"),
    "epoch_choice": EPOCH_CHOICES,
}


def cosine_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """`d(a, b) = 1 - cos(a, b)` (§4.4, in Eq. 3 and 7). float (B, D) and (K, D) -> float (B, K) in [0, 2].

    A vector of length 0 has distance 1 to everything.
    """
    # The lengths divide the few products, not the many coordinates.
    length = torch.linalg.vector_norm(embedding, dim=1, keepdim=True).clamp(min=1e-12)
    distance: Tensor = 1.0 - embedding @ F.normalize(centroids, dim=1).T / length
    return distance


def squared_euclidean_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """`|a - b|^2`, in Eq. 3's place for d when the released code assigns. float (B, D) and (K, D) -> (B, K) >= 0."""
    return (embedding.unsqueeze(1) - centroids.unsqueeze(0)).square().sum(dim=2)


def soft_assignment(distance: Tensor) -> Tensor:
    """Eq. 3: `q_noisy = (1+d_noisy)^-1 / ((1+d_noisy)^-1 + (1+d_clean)^-1)`; `q_clean = 1 - q_noisy`.

    distance: float (B, 2), to the noisy and the clean centroid, >= 0. Returns float (B,) in (0, 1).

    >>> soft_assignment(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    tensor([0.6667, 0.3333])
    """
    similarity = (1.0 + distance).reciprocal()
    return similarity[:, NOISY] / similarity.sum(dim=1)


def flag(q_noisy: Tensor) -> Tensor:
    """Eq. 4: `v = 1[q_noisy > q_clean]`. float (B,) -> bool (B,); a tie is not flagged."""
    return q_noisy > 1.0 - q_noisy


def target_distribution(q_noisy: Tensor, counts: Tensor | None = None) -> Tensor:
    """Eq. 5: `p_noisy = (q_noisy^2/s_noisy) / (q_noisy^2/s_noisy + q_clean^2/s_clean)`, `s_k = sum of q_k`.

    q_noisy: float (B,) in (0, 1); counts: rows behind each entry, (B,), 1 when None. Returns float (B,) in [0, 1],
    detached: no gradient flows through the target.
    """
    q = torch.stack((q_noisy.detach(), 1.0 - q_noisy.detach()), dim=1)
    weighted = q if counts is None else q * counts.unsqueeze(1)
    ratio = q.square() / weighted.sum(dim=0)
    return ratio[:, NOISY] / ratio.sum(dim=1)


def clustering_loss(p_noisy: Tensor, q_noisy: Tensor, reduction: str = "sum", counts: Tensor | None = None) -> Tensor:
    """Eq. 6: sum over rows of `KL(p || q)`, or its mean ("batchmean", released code).

    p_noisy, q_noisy: float (B,) in [0, 1]; counts: rows behind each entry, (B,), 1 when None. Returns a scalar >= 0.
    Raises ConfigError for another reduction.
    """
    if reduction not in _CHOICES["kl_reduction"]:
        raise ConfigError(expected_got("a reduction of 'sum' or 'batchmean'", repr(reduction), "pass one of these"))
    p = torch.stack((p_noisy, 1.0 - p_noisy), dim=1)
    q = torch.stack((q_noisy, 1.0 - q_noisy), dim=1)
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=1)
    rows = torch.ones_like(divergence) if counts is None else counts
    total = (divergence * rows).sum(dim=0)
    return total if reduction == "sum" else total / rows.sum(dim=0)


def alignment_loss(embedding: Tensor, flagged: Tensor, original_count: Tensor, corrupted_count: Tensor) -> Tensor:
    """Eq. 7: half the sum of `d(mean z of originals, mean z of corrupted)` over the flagged and the unflagged.

    embedding: float (B, D); flagged: bool (B,); the counts: float (B,), originals and corrupted rows behind each entry
    (for plain rows `~is_corrupted` and `is_corrupted`). A term whose two groups are not both non-empty is dropped.
    Returns a scalar in [0, 2].
    """
    inside = torch.stack((flagged, ~flagged), dim=0).to(embedding.dtype)
    groups = torch.cat(
        (inside * original_count, inside * corrupted_count), dim=0
    )  # (4, B): both originals, both copies
    size = groups.sum(dim=1)
    means = groups @ embedding / size.clamp(min=1.0).unsqueeze(1)
    distance = cosine_distance(means[:2], means[2:]).diagonal()
    present = (size[:2] > 0) & (size[2:] > 0)
    return 0.5 * torch.where(present, distance, 0.0).sum(dim=0)


def total_loss(clustering: Tensor, alignment: Tensor, alpha: float) -> Tensor:
    """Eq. 8: `L = L_cluster + alpha * L_align`. Two scalars -> a scalar."""
    return clustering + alpha * alignment
