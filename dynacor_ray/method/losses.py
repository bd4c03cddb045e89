"""Distances, soft assignment, target and losses of the clustering (Kim et al., CVPR 2024, §4.4, Eq. 3-8).

All work on distinct entries with counts: the rows behind each entry. Axes: B entries, K centroids, D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NOISY, CLEAN = 0, 1
"""Row of a centroid, and column of a distance, of each cluster."""


def cosine_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """`d(a, b) = 1 - cos(a, b)` (§4.4, in Eq. 3 and 7). float (B, D) and (K, D) -> float (B, K) in [0, 2].

    A vector of length 0 has distance 1 to everything.
    """
    # The lengths divide the few products, not the many coordinates.
    length = torch.linalg.vector_norm(embedding, dim=1, keepdim=True).clamp(min=1e-12)
    distance: Tensor = 1.0 - embedding @ F.normalize(centroids, dim=1).T / length
    return distance


def squared_euclidean_distance(embedding: Tensor, centroids: Tensor) -> Tensor:
    """`|a - b|^2`: what the released code takes for d in Eq. 3 when it assigns. float (B, D), (K, D) -> (B, K) >= 0."""
    return (embedding.unsqueeze(1) - centroids.unsqueeze(0)).square().sum(dim=2)


def soft_assignment(distance: Tensor) -> Tensor:
    """Eq. 3: `q_noisy = (1+d_noisy)^-1 / ((1+d_noisy)^-1 + (1+d_clean)^-1)`; `q_clean = 1 - q_noisy`.

    Args:
        distance: float (B, 2), to the noisy and to the clean centroid, >= 0.

    Returns:
        float (B,) in (0, 1).

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

    Args:
        q_noisy: float (B,) in (0, 1).
        counts: (B,), rows behind each entry; 1 when None.

    Returns:
        float (B,) in [0, 1], detached: no gradient flows through the target.
    """
    q = torch.stack((q_noisy.detach(), 1.0 - q_noisy.detach()), dim=1)
    weighted = q if counts is None else q * counts.unsqueeze(1)
    ratio = q.square() / weighted.sum(dim=0)
    return ratio[:, NOISY] / ratio.sum(dim=1)


def clustering_loss(p_noisy: Tensor, q_noisy: Tensor, reduction: str = "sum", counts: Tensor | None = None) -> Tensor:
    """Eq. 6: sum over rows of `KL(p || q)`, or its mean ("batchmean", released code).

    Args:
        p_noisy: float (B,) in [0, 1], the target.
        q_noisy: float (B,) in [0, 1].
        reduction: "sum" or "batchmean".
        counts: (B,), rows behind each entry; 1 when None.

    Returns:
        A scalar >= 0.
    """
    p = torch.stack((p_noisy, 1.0 - p_noisy), dim=1)
    q = torch.stack((q_noisy, 1.0 - q_noisy), dim=1)
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=1)
    rows = torch.ones_like(divergence) if counts is None else counts
    total = (divergence * rows).sum(dim=0)
    return total if reduction == "sum" else total / rows.sum(dim=0)


def alignment_loss(embedding: Tensor, flagged: Tensor, original_count: Tensor, corrupted_count: Tensor) -> Tensor:
    """Eq. 7: half the sum of `d(mean z of originals, mean z of corrupted)` over the flagged and the unflagged.

    A term whose two groups are not both non-empty is dropped.

    Args:
        embedding: float (B, D).
        flagged: bool (B,).
        original_count: float (B,), originals behind each entry; `~is_corrupted` for plain rows.
        corrupted_count: float (B,), copies behind each entry; `is_corrupted` for plain rows.

    Returns:
        A scalar in [0, 2].
    """
    inside = torch.stack((flagged, ~flagged), dim=0).to(embedding.dtype)
    groups = torch.cat((inside * original_count, inside * corrupted_count), dim=0)  # (4, B)
    size = groups.sum(dim=1)
    means = groups @ embedding / size.clamp(min=1.0).unsqueeze(1)
    distance = cosine_distance(means[:2], means[2:]).diagonal()
    present = (size[:2] > 0) & (size[2:] > 0)
    return 0.5 * torch.where(present, distance, 0.0).sum(dim=0)


def total_loss(clustering: Tensor, alignment: Tensor, alpha: float) -> Tensor:
    """Eq. 8: `L = L_cluster + alpha * L_align`. Two scalars -> a scalar."""
    return clustering + alpha * alignment
