"""The labels of an experiment, made from the truth; from features block by block where they depend on the input."""

from __future__ import annotations

import numpy as np

from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.engine.data.feature_blocks import FeatureBlocks, map_features, reduce_features
from dynacor_ray.ground_truth.fitted_noise import ClassSums, difficulty, glance
from dynacor_ray.ground_truth.noise_spec import HARD_ROWS, Noise, given_labels, make_labels, scaled_features


def labels_from_features(
    noise: Noise, truth: GivenLabels, num_classes: int, seed: int, blocks: FeatureBlocks, mean: np.ndarray
) -> np.ndarray:
    """Given labels of a kind that `needs_features`, int32 (N,), in the order of the ids of `truth`.

    mean: float (D,), subtracted from the features.
    """
    if not noise.needs_sketch:

        def block(numbers: np.ndarray, features: np.ndarray, true: np.ndarray) -> np.ndarray:
            return given_labels(noise, true, numbers, num_classes, seed, features - mean)

        return map_features(blocks, block, truth)
    if noise.kind == HARD_ROWS:

        def add(features: np.ndarray, true: np.ndarray) -> ClassSums:
            return ClassSums.of(scaled_features(features - mean), true, num_classes)

        means = reduce_features(blocks, add, ClassSums.merge, truth).means()

        def look(_: np.ndarray, features: np.ndarray, true: np.ndarray) -> np.ndarray:
            return difficulty(scaled_features(features - mean), true, means)

    else:

        def look(_: np.ndarray, features: np.ndarray, true: np.ndarray) -> np.ndarray:
            return glance(scaled_features(features - mean), seed)

    sketch = map_features(blocks, look, truth)
    return make_labels(noise, truth.labels.astype(np.int64), truth.ids, num_classes, seed, sketch)
