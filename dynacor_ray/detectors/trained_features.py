"""Features of a network trained from pixels, for detectors that look at features (SimiFeat, FM-SRM; Table 2).

A classifier of its own learns the given labels by cross-entropy. What counts is the input of its last layer **in the
last epoch**, of each image as the training pass shows it, augmented and with the batch's statistics in batch norm: that
pass is made anyway, and the learning rate is lowest there.

Cost: one more classifier in the baselines' pass, and D numbers per row on disk, once.
"""

from __future__ import annotations

from dynacor_ray.detectors.baseline_classifiers import BaselineClassifier, BaselineTraining


class FeatureClassifier(BaselineClassifier):
    """A plain training, whose penultimate layer is kept."""

    stream = 30
    keeps_features = True


TRAINED_FEATURES = BaselineTraining(
    "features", lambda num_classes, class_counts, seed: [FeatureClassifier()], lambda _: {}
)
"""Nothing of it is evidence by itself: neighbors and prototypes are made of its features, block by block."""
