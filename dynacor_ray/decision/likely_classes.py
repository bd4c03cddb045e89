"""Of many classes the ones that a row may show, and a few drawn ones that stand for all others (ours).

What the label noise model reads of a row must not grow with the number of classes. A row keeps its label, the classes
that a score ranks first, and DRAWN of the others at random. Each of these stands for an equal share of all others, so
that sums over all classes, such as a softmax's, are right on average. Without them a label that no score ranks first
would look like one of few.

With at most MOST_CLASSES all classes are kept, and each stands for itself.

Cost: a partial sort of C scores per row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_CLASSES = 16
"""K: classes that are kept of each row."""
DRAWN = 4


def likely_classes(scores: Tensor, labels: Tensor, uniform: Tensor) -> Tensor:
    """The classes kept of each row, int64 (n, K), different from one another (ours).

    scores: float (n, C); labels: int64 (n,), which come first; uniform: float64 (n,) in [0, 1), by which the last DRAWN
    are drawn.
    """
    classes = scores.shape[1]
    if classes <= MOST_CLASSES:
        return all_classes(labels, classes)
    first = scores.scatter(1, labels.unsqueeze(1), torch.inf).topk(MOST_CLASSES - DRAWN, dim=1).indices
    others = classes - first.shape[1]
    steps = torch.arange(DRAWN, device=labels.device) * others // DRAWN
    drawn = ((uniform * others).long().unsqueeze(1) + steps) % others
    for passed in first.sort(dim=1).values.unbind(dim=1):  # from a place among the others to a place among all
        drawn += drawn >= passed.unsqueeze(1)
    return torch.cat([first, drawn], dim=1)


def all_classes(labels: Tensor, num_classes: int) -> Tensor:
    """The label and all other classes, int64 (n, C) (ours). labels: int64 (n,)."""
    return (labels.unsqueeze(1) + torch.arange(num_classes, device=labels.device)) % num_classes


def stands_for(kept: int, num_classes: int) -> NDArray[np.float64]:
    """How many classes each of those kept stands for, float64 (K,); they sum to C (ours)."""
    number = np.ones(kept)
    if kept < num_classes:
        number[-DRAWN:] += (num_classes - kept) / DRAWN
    return number
