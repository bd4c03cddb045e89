"""What a fitted label noise model leaves to be explained, without the network's surest predictions (ours).

What is made of it is in `noise_decision`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.decision.class_overlap import overlap
from dynacor_ray.decision.label_noise_model import LabelNoiseModel
from dynacor_ray.decision.likely_classes import stands_for


@dataclass(frozen=True)
class ModelReadings:
    """What a model, its scores and the density of the rows say of how well labels can be predicted.

    Attributes:
        doubts: 1 - P of the most probable class, without the label, float64 (n,).
        disagreement: share of labels that are not the most probable class, in [0, 1].
        linear, early: the same by the linear regression alone, and by the network's early logits, 0 where not read.
        overlap: mean doubt by the density of the rows, in [0, 1] (`class_overlap`).
        unexplained: `LabelNoiseModel.unexplained`, in [0, 1].
    """

    doubts: NDArray[np.float64]
    disagreement: float = 0.0
    linear: float = 0.0
    early: float = 0.0
    overlap: float = 0.0
    unexplained: float = 0.0

    def clear(self, to_learn: float = 1.0) -> float:
        """Share of labels that differ from the prediction though classes are clear, in [0, 1].

        to_learn: what a better model would predict, in units of what the model has learned beyond a linear one.
        """
        learned = max(0.0, self.linear - self.disagreement)
        return max(0.0, self.disagreement - self.overlap - to_learn * learned)


def read_model(
    model: LabelNoiseModel, scores: NDArray[np.float64], classes: NDArray[np.int64], has_early: bool
) -> ModelReadings:
    """Those of some rows.

    scores: float64 (B, n, K), of `fitted_decision.model_scores`, the third those of early logits if has_early; classes:
    int64 (n, K).
    """
    probability, num_classes = model.class_probability(scores, classes), len(model.error)
    single = probability / stands_for(classes.shape[1], num_classes)

    def differ(values: NDArray[np.float64]) -> float:
        return float((values.argmax(axis=1) != 0).mean(axis=0))  # the label is the first class

    return ModelReadings(
        doubts=1.0 - single.max(axis=1),
        disagreement=differ(single),
        linear=differ(scores[0]),
        early=differ(scores[2]) if has_early else 0.0,
        overlap=overlap(probability, classes, num_classes),
        unexplained=model.unexplained(scores, classes),
    )
