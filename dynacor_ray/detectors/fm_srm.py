"""FM-SRM stage 1 (2026): the distance to class prototypes decides the clear cases, neighbors the others.

A class's prototype is the normalized mean of the normalized features of the instances labeled with it. The margin is
the cosine to the own prototype minus the best other. A mixture of two Gaussians on it decides where one of them has a
posterior of 0.8 or more. A second mixture, on the share of the 20 nearest neighbors with the same given label, decides
the rest.

Deviations from the paper:

- Only its first stage.
- The second mixture is fitted to the shares of the undecided instances alone, the cases that it has to separate, and
  its likelier component decides. When their shares are all equal, a share below 1/2 flags.

Cost: two passes over the features, N x C x D multiply-adds, N x 20 comparisons, two mixtures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.decision.gaussian_mixture import fit_mixture
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.detectors.nearest_neighbors import first_neighbors, normalized

NEIGHBORS = 20
"""Neighbors whose labels are compared."""
CERTAIN = 0.8
"""Posterior from which the first mixture decides."""


class PrototypeSums:
    """Sums of normalized features per given class, which merge by addition.

    Attributes:
        sums: float64 (C, D).
    """

    def __init__(self, num_classes: int, dim: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros((num_classes, dim), dtype=torch.float64, device=device)

    def add(self, features: Tensor, given: Tensor) -> None:
        """Add a block. features: float (B, D), normalized here; given: integers (B,) in 0..C-1."""
        self.sums.index_add_(0, given.long(), normalized(features).double())

    def merge(self, other: PrototypeSums) -> None:
        """Add the sums over other instances."""
        self.sums += other.sums.to(self.sums.device)

    def prototypes(self) -> Tensor:
        """Normalized means, float32 (C, D); zeros for a class without instances."""
        length = torch.linalg.vector_norm(self.sums, dim=1, keepdim=True)
        return (self.sums / torch.where(length > 0, length, 1.0)).float()


def prototype_margin(features: Tensor, given: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine to the own prototype minus the largest to another, in [-2, 2].

    Args:
        features: float (B, D), normalized here.
        given: integers (B,).
        prototypes: float32 (C, D), rows of length 1, or of zeros for a class without instances: its cosine is -1, the
            least possible.

    Returns:
        float32 (B,).
    """
    cosine = normalized(features) @ prototypes.T
    cosine[:, ~(prototypes != 0).any(dim=1)] = -1.0
    column = given.long().unsqueeze(1)
    own = cosine.gather(1, column).squeeze(dim=1)
    others = cosine.scatter(1, column, -1.0)
    return own - others.amax(dim=1)


def agreement(given: NDArray[np.integer[Any]], neighbor_labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Share of the 20 nearest neighbors with the same given label.

    Args:
        given: integers (N,).
        neighbor_labels: integers (N, K), -1 for no neighbor.

    Returns:
        float64 (N,) in [0, 1]; 1 for an instance without any neighbor.

    Raises:
        ConfigError: K < 20.
    """
    labels = first_neighbors(neighbor_labels, NEIGHBORS)
    present = (labels >= 0).sum(axis=1)
    same = (labels == np.asarray(given)[:, None]).sum(axis=1)
    share: NDArray[np.float64] = np.where(present > 0, same / np.maximum(present, 1), 1.0)
    return share


def fm_srm(evidence: Evidence) -> Verdict:
    """FM-SRM, stage 1 (2026): prototypes decide where they are certain, neighbors elsewhere.

    Args:
        evidence: prototype_margin, float (N,), and neighbor_labels, (N, K) with K >= 20.

    Returns:
        Score: log-odds of a right label by the mixture that decided, negative where flagged. Those of the second are
            scaled into the range of +-log 4 that the first leaves open, so what the first decides lies outside all
            undecided ones.

    Raises:
        ConfigError: too few neighbors.
    """
    margin = evidence.part("prototype_margin").astype(np.float64)
    share = agreement(evidence.given_label, evidence.part("neighbor_labels"))
    fitted = fit_mixture(margin)
    score = np.zeros(len(margin)) if fitted is None else fitted.log_odds(margin)
    bound = float(np.log(CERTAIN / (1.0 - CERTAIN)))
    undecided = np.abs(score) < bound
    score[undecided] = bound * _lean(share[undecided])
    return Verdict(score < 0, score)


def _lean(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(right) - P(wrong) by the second mixture, float64 (n,) in (-1, 1); by the share itself if it does not vary."""
    fitted = fit_mixture(share)
    lean = np.tanh(fitted.log_odds(share) / 2.0) if fitted is not None else 2.0 * share - 1.0
    limit = np.nextafter(1.0, 0.0)
    return np.clip(lean, -limit, limit)
