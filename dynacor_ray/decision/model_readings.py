"""What a fitted label noise model leaves to be explained, without the network's surest predictions (ours).

What is made of it is in `noise_decision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.class_overlap import overlap
from dynacor_ray.decision.label_noise_model import LabelNoiseModel
from dynacor_ray.decision.likely_classes import stands_for

_MOST_OVERLAP = 0.95
"""Overlap that is counted at most: with more of it nothing is left to tell errors by."""


@dataclass(frozen=True)
class ModelReadings:
    """What a model, its scores and the density of the rows say of how well labels can be predicted.

    Attributes:
        doubts: 1 - P of the most probable class, without the label, float64 (n,).
        disagreement: share of labels that are not the most probable class, in [0, 1].
        linear, early: the same by the linear regression alone, and by the network's early logits.
        overlap: mean doubt by the density of the rows, in [0, 1] (`class_overlap`).
        unexplained: `LabelNoiseModel.unexplained`, in [0, 1].
    """

    doubts: NDArray[np.float64]
    disagreement: float = 0.0
    linear: float = 0.0
    early: float = 0.0
    overlap: float = 0.0
    unexplained: float = 0.0

    def errors(self, times: float, predictable: float = 0.0) -> float:
        """Share of labels that are wrong if classes overlap so many times as much as density says, in [0, 1].

        A label differs from the prediction unless it is right and the row is not where classes overlap:
        `1 - disagreement = (1 - errors)(1 - times overlap)`. predictable: share that a better model would predict.
        """
        overlap = min(times * self.overlap, _MOST_OVERLAP)
        return max(0.0, self.disagreement - predictable - overlap) / (1.0 - overlap)

    @property
    def curved(self) -> float:
        """Share of the labels that random features predict and a linear regression does not, >= 0."""
        return max(0.0, self.linear - self.disagreement)


def read_model(
    model: LabelNoiseModel, scores: NDArray[np.float64], classes: NDArray[np.int64], early: NDArray[np.floating[Any]]
) -> ModelReadings:
    """Those of some rows.

    scores: float64 (B, n, K), of `fitted_decision.model_scores`, the first those of the linear regression; classes:
    int64 (n, K); early: float (n, K), the network's early logits, freed of the row's own label where that can be done.
    """
    probability, num_classes = model.class_probability(scores, classes), len(model.error)
    single = probability / stands_for(classes.shape[1], num_classes)

    def differ(values: NDArray[np.floating[Any]]) -> float:
        return float((values.argmax(axis=1) != 0).mean(axis=0))  # the label is the first class

    return ModelReadings(
        doubts=1.0 - single.max(axis=1),
        disagreement=differ(single),
        linear=differ(scores[0]),
        early=differ(early),
        overlap=overlap(probability, classes, num_classes),
        unexplained=model.unexplained(scores, classes),
    )
