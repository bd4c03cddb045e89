"""Named sets of training options for `--recipe`: Table 5 (App. A.2), and the released code's where it differs.

Networks come with the paper's center crop for the copies (§4.2).

The paper says "multi-step" without milestones; those here are the usual ones: a tenth after half and three quarters of
the epochs for CIFAR, after half of them where the paper follows DivideMix (PreAct-ResNet18, Clothing1M).
"""

from __future__ import annotations

from typing import Any

_CLIP: dict[str, Any] = {
    "encoder": "open_clip:ViT-B-32/openai",
    "lr_schedule": "cosine",
    "weight_decay": 5e-4,
    "batch_size": 128,
    "alpha": 0.5,
}
_NETWORK: dict[str, Any] = {
    "augmentation": "crop",
    "lr_schedule": "multistep",
    "lr_decay": 0.1,
    "weight_decay": 5e-4,
    "batch_size": 128,
    "alpha": 0.05,
}
_RESNET34 = _NETWORK | {"network": "cifar_resnet34", "learning_rate": 0.1, "epochs": 100}

RECIPES: dict[str, dict[str, Any]] = {
    "frozen_clip": _CLIP | {"learning_rate": 0.1, "epochs": 30},
    "frozen_clip_released": _CLIP | {"learning_rate": 0.02, "epochs": 20},
    "cifar_resnet34": _RESNET34 | {"lr_milestones": (0.5, 0.75)},
    "cifar_resnet34_released": _RESNET34 | {"lr_milestones": (0.5, 0.6, 0.7, 0.8, 0.9), "lr_decay": 0.01},
    "cifar_preact_resnet18": _NETWORK
    | {"network": "cifar_preact_resnet18", "learning_rate": 0.02, "epochs": 300, "lr_milestones": (0.5,)},
    "clothing1m_resnet50": _NETWORK
    | {"network": "resnet50", "learning_rate": 0.002, "epochs": 10, "lr_milestones": (0.5,)}
    | {"weight_decay": 1e-3, "batch_size": 64, "alpha": 0.5},
}
"""Name -> options of DetectConfig; milestones are shares of the epochs, so they move along when --epochs is given."""
