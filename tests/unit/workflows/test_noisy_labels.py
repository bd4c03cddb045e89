"""Labels made block by block are those made of all rows at once, in the order of their ids."""

from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.core.packed_dataset import GivenLabels
from dynacor_ray.engine.data.feature_blocks import FeatureBlocks
from dynacor_ray.engine.runtime.tasks import share
from dynacor_ray.ground_truth.noise_spec import given_labels, parse_noise
from dynacor_ray.workflows.noisy_labels import labels_from_features

IDS = np.arange(600) * 3
TRUE = (np.arange(600) % 3).astype(np.int32)
FEATURES = (np.eye(3, 5)[TRUE] + np.random.default_rng(0).normal(0, 0.4, (600, 5))).astype(np.float32)


@pytest.mark.parametrize("text", ["instance_dependent:0.3", "hard_rows:0.2", "weak_annotator:0.5"])
def test_block_by_block(text: str) -> None:
    noise, mean = parse_noise(text), FEATURES.mean(axis=0)
    order = np.random.default_rng(1).permutation(600)
    parts = np.split(order, [100, 101, 450])
    blocks = FeatureBlocks(tuple(IDS[part] for part in parts), tuple(share(FEATURES[part]) for part in parts))
    labels = labels_from_features(noise, GivenLabels(IDS, TRUE), 3, 4, blocks, mean)
    whole = given_labels(noise, TRUE.astype(np.int64), IDS, 3, 4, FEATURES - mean)
    assert labels.tolist() == whole.tolist()
    assert 0.02 < (labels != TRUE).mean() < 0.5
