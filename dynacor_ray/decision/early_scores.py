"""A network's early logits as if it had not seen the row's own label; how much that is, the copies say (§4.2, ours).

Early in training a network ranks human errors better than a regression, but it has seen the label that is judged: one
gradient step on a row with label y raises the row's own logit y in proportion to the residual `1 - p_y` (Eq. 1 to first
order in the learning rate). A corrupted copy has the features of its original and a label drawn at random among the
other classes, so whatever its logit of that label is above its logits of classes that nobody gave it, training on the
label did. That difference over the mean residual is the influence, and

    z_y - influence (1 - p_y)

is what is left without the own label. A row with a copy saw the copy's label as well, which is taken off likewise.
For two classes there is no third one to compare with: there the influence is how much lower the margins of rows with a
copy are than those of the others, at equal margins of another score.

Cost: one softmax per row of early logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.likely_classes import stands_for
from dynacor_ray.decision.noise_rate import SIGMAS

_LEAST_VARIANCE = 1e-12


def own_label_influence(
    copies: NDArray[np.floating[Any]],
    classes: NDArray[np.integer[Any]],
    given: NDArray[np.integer[Any]],
    num_classes: int,
    other: NDArray[np.floating[Any]],
    weight: NDArray[np.floating[Any]] | float = 1.0,
) -> float:
    """How much one label raises its own logit where the network gave it no probability, >= 0, for C > 2.

    The upper end of the 95% interval: what is left of a label in its logits is evidence for it, what is taken off too
    much only noise. Labels of copies are drawn at random, so scores that have not seen them say nothing of them on
    average; what they happen to say is taken off.

    copies: float (M, K), early logits of the copies, less the mean of all C; classes: ints (M, K), of which these
    are (`likely_classes`), the copy's label first; given: ints (M,), the label of their originals; other: float (M, K),
    scores that have not seen the label, whose sum over all C is 1; weight: float (M,), of each in the training. 0
    without copies.
    """
    if not len(copies):
        return 0.0
    logits, is_given = copies.astype(np.float64), classes == given[:, None]
    raised = _above_unseen(logits, is_given, 0.0, num_classes)
    chance = _above_unseen(other.astype(np.float64), is_given, 1.0, num_classes)
    away = chance - chance.mean(axis=0)
    slope = (raised * away).mean(axis=0) / max(float((away**2).mean(axis=0)), _LEAST_VARIANCE)
    residual = (1.0 - _probability(logits, num_classes)[:, 0]) * weight
    # those of little weight show little, and have little say
    shown = (raised - slope * chance) * weight / (residual * weight).mean(axis=0)
    error = shown.std(axis=0) / np.sqrt(len(shown))
    return float(max(0.0, shown.mean(axis=0) + SIGMAS * error))


def _above_unseen(
    scores: NDArray[np.float64], is_given: NDArray[np.bool_], total: float, num_classes: int
) -> NDArray[np.float64]:
    """Scores of the first class above the mean of those that nobody gave, float64 (M,). total: of a row's C scores."""
    own = scores[:, 0]
    raised: NDArray[np.float64] = own - (total - own - (scores * is_given).sum(axis=1)) / (num_classes - 2)
    return raised


def two_class_influence(
    originals: NDArray[np.floating[Any]],
    has_copy: NDArray[np.bool_],
    other: NDArray[np.floating[Any]],
    weight: NDArray[np.floating[Any]] | None = None,
) -> float:
    """`own_label_influence` for C = 2, from the originals alone.

    originals: float (N, 2), early logits, that of the label first; has_copy: bool (N,); other: float (N,), another
    margin of the same rows, which takes most of the spread away; weight: float (N,), of each row in the training. 0
    unless there are rows of both kinds.
    """
    if has_copy.all() or not has_copy.any():
        return 0.0
    logits = originals.astype(np.float64)
    margin = logits[:, 0] - logits[:, 1]
    saw_copy = has_copy * (1.0 if weight is None else weight)
    columns = np.stack([np.ones(len(margin)), other, np.minimum(other, 0.0), saw_copy], axis=1).astype(np.float64)
    solution, *_ = np.linalg.lstsq(columns, margin, rcond=None)
    spread = (margin - columns @ solution).std(axis=0)
    error = spread * np.sqrt(np.linalg.pinv(columns.T @ columns)[3, 3])
    # the copy has the other label, whose residual is the probability of this one
    residual = _probability(logits[has_copy], 2)[:, 0]
    return float(max(0.0, SIGMAS * error - solution[3]) / residual.mean(axis=0))


def without_own_label(
    logits: NDArray[np.floating[Any]],
    influence: float,
    num_classes: int,
    also: NDArray[np.bool_] | None = None,
    twins: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float64]:
    """Early logits without what their own label did to them: float64 (N, K), centered on 0 in each row.

    logits: float (N, K), that of the label first; also: bool (N, K), a second label that the row's features were seen
    with (of its copy, or of the original of a copy); twins: float (N, K), labels of other rows with its features, where
    m of them weigh 1/m each.
    """
    seen = np.zeros(logits.shape) if also is None else also.astype(np.float64)
    seen[:, 0] += 1.0
    if twins is not None:
        seen = (seen + twins) / (1.0 + twins.sum(axis=1, keepdims=True))
    left = logits.astype(np.float64)
    left -= influence * seen * (1.0 - _probability(left, num_classes))
    left -= left.mean(axis=1, keepdims=True)
    return left


def _probability(logits: NDArray[np.float64], num_classes: int) -> NDArray[np.float64]:
    """Softmax over all classes at those that are kept, float64 (n, K)."""
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal: NDArray[np.float64] = power / (power @ stands_for(logits.shape[1], num_classes))[:, None]
    return normal
