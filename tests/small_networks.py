"""Networks small enough for a test, and images for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dynacor_ray.models.weights import package_weights

needs_package = pytest.mark.skipif(package_weights() is None, reason="extra `encoders` is not installed")

# One convolutional, one with position embeddings.
CONV, VIT = "test_resnet.r160_in1k", "test_vit.r160_in1k"
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


def weights_of(name: str) -> dict[str, Any]:
    """The parameters of one of timm's networks, random numbers."""
    import timm  # with torchvision it takes seconds

    state: dict[str, Any] = timm.create_model(name, pretrained=False).state_dict()
    return state


def images(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
