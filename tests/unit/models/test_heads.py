"""Classifiers on features: values that can be worked out, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import ConfigError
from dynacor_ray.models.heads import FeatureScaling, build_classifier


def test_mlp_is_two_layers_on_scaled_features() -> None:
    torch.manual_seed(0)
    mean = np.array([1.0, -2.0, 0.5], np.float32)
    head = build_classifier("mlp", num_features=3, num_classes=4, mean=mean, scale=2.0).eval()
    x = torch.randn(5, 3)
    state = head.state_dict()
    hidden = ((x - torch.from_numpy(mean)) * 2) @ state["hidden.0.weight"].T + state["hidden.0.bias"]
    expected = hidden.clamp(min=0) @ state["output.weight"].T + state["output.bias"]
    torch.testing.assert_close(head(x), expected)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {
        "scaling.mean": (3,),
        "scaling.scale": (),
        "hidden.0.weight": (512, 3),
        "hidden.0.bias": (512,),
        "output.weight": (4, 512),
        "output.bias": (4,),
    }
    assert not any(name.startswith("scaling") for name, _ in head.named_parameters())


def test_the_paper_s_mlp_has_two_hidden_layers() -> None:
    head = build_classifier("mlp_2", num_features=3, num_classes=4, mean=np.zeros(3, np.float32), scale=1.0)
    linear = [(one.in_features, one.out_features) for one in head.modules() if isinstance(one, torch.nn.Linear)]
    assert linear == [(3, 512), (512, 512), (512, 4)], "D-512-512-C (§5.1, App. A.2)"
    assert sum(isinstance(one, torch.nn.ReLU) for one in head.modules()) == 2


def test_scaling_does_not_share_memory_with_its_source() -> None:
    mean = torch.zeros(2)
    scaling = FeatureScaling(mean, 1.0)
    mean += 1
    torch.testing.assert_close(scaling(torch.ones(1, 2)), torch.ones(1, 2))


def test_build_classifier_refuses() -> None:
    good: dict[str, Any] = {"num_features": 2, "num_classes": 3, "mean": np.zeros(2, np.float32), "scale": 1.0}
    with pytest.raises(ConfigError, match="at least 2 classes"):
        build_classifier("mlp", **{**good, "num_classes": 1})
    with pytest.raises(ConfigError, match=r"finite mean of shape \(2,\)"):
        build_classifier("mlp", **{**good, "mean": np.zeros(3, np.float32)})
    with pytest.raises(ConfigError, match="finite mean"):
        build_classifier("mlp", **{**good, "mean": np.array([0, np.nan], np.float32)})
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive, finite scale"):
            build_classifier("mlp", **{**good, "scale": scale})
