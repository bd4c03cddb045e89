"""SimiFeat: near instances should have equal labels (Zhu et al., ICML 2022, with HOC, Zhu et al., ICML 2021; Table 1).

-V flags a label that loses the vote of the 10 nearest neighbors. -R ranks each given class by its own vote and flags
as many as an estimated noise transition says. The transition comes from HOC: if an instance and its two nearest share
one true class ("clusterability"), how often their given labels occur together, up to third order, identifies prior and
transition.

Deviations from the papers:

- Features are embedded once: one round instead of a majority over several rounds of augmentation.
- A neighbor with negative similarity has no vote. A tie with the given label's vote does not flag. Equal votes are
  ranked by the neighbors' similarity.
- HOC counts all instances, and minimizes the squared difference by L-BFGS from a start near the identity, which picks
  the permutation of true classes.

Written from the published mathematics only.

Cost: the neighbors; N x 10 x 10 comparisons for votes. For -R at most 300 evaluations of C^4 multiply-adds, forward
and backward, which is why it takes no more than 100 classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.detectors.evidence import Evidence, Verdict
from dynacor_ray.detectors.nearest_neighbors import first_neighbors

NEIGHBORS = 10
"""Neighbors that vote."""
MAX_CLASSES = 100
"""Most classes for HOC: its third order has C^3 numbers, computed by C^4 products each time."""
_BLOCK_ROWS = 65_536
_START = 0.7  # P(given = true) from which HOC starts: any start with a clear diagonal keeps the classes' names
_EVALUATIONS = 300


def votes(
    given: NDArray[np.integer[Any]], neighbor_labels: NDArray[np.integer[Any]], similarity: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Similarity-weighted share of the neighbors with the given label, and of the strongest other class.

    Classes are compared pairwise among K neighbors, so the memory does not grow with C. Where no similarity is positive
    all neighbors weigh the same; where there is no neighbor the given label has the whole vote (Zhu et al. 2022).

    Args:
        given: integers (N,).
        neighbor_labels: integers (N, K), -1 for none.
        similarity: float (N, K).

    Returns:
        Own and strongest other vote, float64 (N,) in [0, 1] each; 0 where there is no other class.
    """
    own, other = np.ones(len(given)), np.zeros(len(given))
    for rows, labels, weight, same_class in _blocks(neighbor_labels, similarity):
        total = weight.sum(axis=1)
        class_weight = (same_class * weight[:, None, :]).sum(axis=2)
        mine = labels == given[rows, None]
        voted = total > 0
        share = np.where(voted, total, 1.0)
        own[rows] = np.where(voted, (weight * mine).sum(axis=1) / share, 1.0)
        other[rows] = np.where(mine, 0.0, class_weight).max(axis=1, initial=0.0) / share
    return own, other


def wrong_label_votes(evidence: Evidence) -> tuple[NDArray[np.float64], int]:
    """The own vote of each instance under each label that was not given.

    Args:
        evidence: as in `simifeat_r`.

    Returns:
        The positive votes, float64 (V,), in no order, and how many of the N (C - 1) are 0.
    """
    labels, similarity = nearest(evidence)
    given, positive = np.asarray(evidence.given_label), [np.empty(0)]
    for rows, here, weight, same_class in _blocks(labels, similarity):
        share = (same_class * weight[:, None, :]).sum(axis=2) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        # Each class once per row: at the nearest neighbor that has it.
        nearest_of_class = ~np.tril(same_class, -1).any(axis=2)
        positive.append(share[(here >= 0) & (here != given[rows, None]) & nearest_of_class & (share > 0)])
    votes_for_others = np.concatenate(positive)
    return votes_for_others, len(given) * (evidence.num_classes - 1) - len(votes_for_others)


def simifeat_v(evidence: Evidence) -> Verdict:
    """SimiFeat-V (Table 1; Zhu et al. 2022): flags a given label with a smaller vote than another class.

    Args:
        evidence: neighbor_labels and similarity, (N, K) with K >= 10.

    Returns:
        Score: own vote minus the strongest other, in [-1, 1], negative where flagged.

    Raises:
        ConfigError: fewer than 10 neighbors.
    """
    labels, similarity = nearest(evidence)
    own, other = votes(evidence.given_label, labels, similarity)
    return Verdict(own < other, own - other)


def simifeat_r(evidence: Evidence) -> Verdict:
    """SimiFeat-R (Table 1; Zhu et al. 2022): flags the lowest votes of each given class.

    Of n_j instances labeled j it flags the round(n_j * (1 - P(true = j | given = j))) with the lowest own vote, the
    probability by Bayes from HOC.

    Args:
        evidence: neighbor_labels and similarity, (N, K) with K >= 10.

    Returns:
        Score: the own vote, in [0, 1]; within a class it orders as the flags do.

    Raises:
        ConfigError: fewer than 10 neighbors, or more than 100 classes.
    """
    labels, similarity = nearest(evidence)
    given = np.asarray(evidence.given_label, np.int64)
    own, _ = votes(given, labels, similarity)
    flags = np.zeros(len(given), np.bool_)
    present = np.unique(given)
    wrong = _wrong_shares(given, labels, present)
    # equal votes, mostly none or all, are ordered by how similar the neighbors are that disagree or agree
    weight = _weights(labels, similarity)
    balance = (np.where(labels == given[:, None], 1.0, -1.0) * weight).sum(axis=1)
    for one, share in zip(present, wrong, strict=True):
        rows = np.flatnonzero(given == one)
        ranked = rows[np.lexsort((balance[rows], own[rows]))]
        flags[ranked[: round(len(rows) * share)]] = True
    return Verdict(flags, own)


def consensus(
    given: NDArray[np.integer[Any]], first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How often the labels of an instance and its two nearest occur together (HOC; Zhu et al. 2021).

    Args:
        given: integers (N,) in 0..C-1.
        first: labels of the nearest instances, integers (N,) in 0..C-1.
        second: labels of the second nearest, integers (N,) in 0..C-1.
        num_classes: C.

    Returns:
        Shares c1 (C,), c2 (C, C), c3 (C, C, C), float64, each summing to 1: c3[i, j, l] of given = i, first = j,
        second = l, and so on.

    Raises:
        DataError: a label out of range, or N = 0.
    """
    labels = np.stack((given, first, second)).astype(np.int64)
    if not labels.size or labels.min() < 0 or labels.max() >= num_classes:
        got = f"a range of {labels.min()}..{labels.max()}" if labels.size else "no instance"
        raise DataError(expected_got(f"labels in 0..{num_classes - 1}", got, "leave out instances without neighbors"))
    shape = (num_classes,) * 3
    counts = np.bincount(np.ravel_multi_index(tuple(labels), shape), minlength=num_classes**3).reshape(shape)
    third = counts / labels.shape[1]
    second_order: NDArray[np.float64] = third.sum(axis=2)
    return second_order.sum(axis=1), second_order, third


def estimate_transition(
    c1: NDArray[np.float64], c2: NDArray[np.float64], c3: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Prior p and transition T whose consensus is closest to an observed one (HOC; Zhu et al. 2021).

    Minimizes the squared differences to c1_i = sum_k p_k T_ki, c2_ij = sum_k p_k T_ki T_kj and c3_ijl = sum_k p_k T_ki
    T_kj T_kl.

    Args:
        c1: float64 (C,).
        c2: float64 (C, C).
        c3: float64 (C, C, C).

    Returns:
        p, float64 (C,), and T, float64 (C, C), T[i, j] = P(given = j | true = i), rows sum to 1.

    """
    num_classes = len(c1)
    observed = [torch.from_numpy(np.ascontiguousarray(c, np.float64)) for c in (c1, c2, c3)]
    # one factor for all orders leaves the minimum where it is, and makes tolerances mean the same for any C
    scale = 1.0 / sum(float(c.square().sum()) for c in observed)
    prior = observed[0].clamp(min=1e-6).log().requires_grad_()
    clear = np.log(_START / (1.0 - _START) * max(num_classes - 1, 1))
    transition = (torch.eye(num_classes, dtype=torch.float64) * clear).requires_grad_()
    optimizer = eager(torch.optim.LBFGS)(
        [prior, transition],
        max_iter=_EVALUATIONS,
        max_eval=_EVALUATIONS,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def difference() -> Tensor:
        optimizer.zero_grad()
        expected = _expected_consensus(torch.softmax(prior, dim=0), torch.softmax(transition, dim=1))
        loss = scale * torch.stack([(e - o).square().sum() for e, o in zip(expected, observed, strict=True)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(difference)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return torch.softmax(prior, dim=0).numpy(), torch.softmax(transition, dim=1).numpy()


def probability_right(prior: NDArray[np.float64], transition: NDArray[np.float64]) -> NDArray[np.float64]:
    """`P(true = j | given = j) = p_j T_jj / sum_k p_k T_kj`, by Bayes. (C,), (C, C) -> (C,)."""
    given = prior @ transition
    joint = prior * np.diagonal(transition)
    right: NDArray[np.float64] = np.where(given > 0, joint / np.where(given > 0, given, 1.0), 1.0)
    return np.clip(right, 0.0, 1.0)


def _expected_consensus(prior: Tensor, transition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c1 (C,), c2 (C, C), c3 (C, C, C) of a prior (C,) and a transition (C, C)."""
    num_classes = len(prior)
    joint = prior[:, None] * transition
    pairs = (joint[:, :, None] * transition[:, None, :]).reshape(num_classes, -1)
    third = (pairs.T @ transition).reshape(num_classes, num_classes, num_classes)
    return joint.sum(dim=0), joint.T @ transition, third


def _wrong_shares(
    given: NDArray[np.int64], neighbor_labels: NDArray[np.integer[Any]], present: NDArray[np.int64]
) -> NDArray[np.float64]:
    """1 - P(true = j | given = j) of the classes that occur, float64 (P,); 0 when too few have two neighbors."""
    if len(present) > MAX_CLASSES:
        remedy = "leave simifeat_r out; simifeat_v takes any number"
        raise ConfigError(expected_got(f"at most {MAX_CLASSES} classes for HOC", str(len(present)), remedy))
    complete = (neighbor_labels[:, :2] >= 0).all(axis=1)
    if len(present) < 2 or not complete.any(axis=0):
        return np.zeros(len(present))
    # no instance and no neighbor has an absent class: leaving it out changes no count
    three = [given[complete], neighbor_labels[complete, 0], neighbor_labels[complete, 1]]
    first, second, third = (np.searchsorted(present, labels) for labels in three)
    prior, transition = estimate_transition(*consensus(first, second, third, len(present)))
    return 1.0 - probability_right(prior, transition)


def _weights(labels: NDArray[np.integer[Any]], similarity: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Weights of the votes, float64 (n, K) >= 0: positive similarities, 1 where a row has none; 0 for no neighbor."""
    exists = labels >= 0
    weight = np.where(exists, np.maximum(similarity, 0.0), 0.0).astype(np.float64)
    return np.where(weight.sum(axis=1, keepdims=True) > 0, weight, exists.astype(np.float64))


def _blocks(
    labels: NDArray[np.integer[Any]], similarity: NDArray[np.floating[Any]]
) -> Iterator[tuple[slice, NDArray[np.integer[Any]], NDArray[np.float64], NDArray[np.bool_]]]:
    """Blocks of rows: their range, labels (n, K), weights (n, K), and which neighbors agree (n, K, K)."""
    for start in range(0, len(labels), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        block = labels[rows]
        yield rows, block, _weights(block, similarity[rows]), block[:, :, None] == block[:, None, :]


def nearest(evidence: Evidence) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels and similarity of the 10 nearest, (N, 10) each. Raises ConfigError for fewer columns."""
    labels = first_neighbors(evidence.part("neighbor_labels"), NEIGHBORS)
    return labels, evidence.part("similarity")[:, :NEIGHBORS]
