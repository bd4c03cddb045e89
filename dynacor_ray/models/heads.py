"""Classifiers on feature vectors, and the registry that builds one by name.

Table 5: "two fully connected layers with hidden dimension 512 and ReLU" on frozen CLIP features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dynacor_ray.core.errors import ConfigError, expected_got, require_two_classes

HIDDEN = 512
"""Width of a hidden layer (Table 5)."""


class FeatureScaling(nn.Module):
    """`x' = (x - mean) * scale`, with one scale for all features. Ours: it makes one learning rate fit all encoders.

    Both are buffers: saved with the model, moved with it, never trained.

    Args:
        mean: (D,).
        scale: a positive number.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().to(torch.float32).clone())
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Shift and scale. float (B, D) -> float (B, D)."""
        return (x - self.mean).mul_(self.scale)  # in place: half the time


class OutputLayer(nn.Linear):
    """The last layer, in full precision also under autocast: bfloat16 logits tie, and a tied margin has no sign."""

    def forward(self, input: Tensor) -> Tensor:
        """Logits. float (B, D) -> float (B, C)."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input)


class MlpHead(nn.Module):
    """Hidden layers of 512 units with ReLU, then the logits, on scaled features.

    Two hidden layers (D-512-512-C) are the paper's (§5.1, App. A.2), one (D-512-C) is ours, and quicker.
    """

    def __init__(self, num_features: int, num_classes: int, scaling: FeatureScaling, hidden_layers: int = 1) -> None:
        super().__init__()
        self.scaling = scaling
        widths = [num_features, *[HIDDEN] * hidden_layers]
        layers = [(nn.Linear(width, HIDDEN), nn.ReLU(inplace=True)) for width in widths[:-1]]
        self.hidden = nn.Sequential(*[module for layer in layers for module in layer])
        self.output = OutputLayer(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits. float (B, D) -> float (B, C)."""
        logits: Tensor = self.output(self.hidden(self.scaling(x)).float())
        return logits


Builder = Callable[[int, int, FeatureScaling], nn.Module]

CLASSIFIERS: dict[str, Builder] = {"mlp": MlpHead, "mlp_2": functools.partial(MlpHead, hidden_layers=2)}
"""Name -> builder(num_features, num_classes, scaling)."""


def build_classifier(
    name: str, *, num_features: int, num_classes: int, mean: NDArray[np.float32] | Tensor, scale: float
) -> nn.Module:
    """Build a classifier with torch's default initialization; seed torch before.

    Args:
        name: a key of CLASSIFIERS.
        num_features: D.
        num_classes: C >= 2.
        mean: float (D,), subtracted from the features.
        scale: positive factor for the centered features.

    Raises:
        ConfigError: fewer than two classes, or a mean or scale that does not fit.
    """
    require_two_classes(num_classes, "check the label column")
    vector = torch.as_tensor(np.array(mean) if isinstance(mean, np.ndarray) else mean)
    if vector.shape != (num_features,) or not bool(torch.isfinite(vector).all()):
        remedy = "recompute it"
        raise ConfigError(expected_got(f"a finite mean of shape ({num_features},)", str(tuple(vector.shape)), remedy))
    if not 0 < scale < float("inf"):
        remedy = "check for constant or non-finite features"
        raise ConfigError(expected_got("a positive, finite scale", str(scale), remedy))
    return CLASSIFIERS[name](num_features, num_classes, FeatureScaling(vector, scale))
