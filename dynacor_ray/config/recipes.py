"""Named sets of training options: Table 5 (App. A.2), and the released code's where it differs.

`--recipe` names one; `--variant paper` takes the one of Table 5 that fits what is trained. Those of Table 5 weigh
originals and copies by Eq. 2 and have the paper's MLP of two hidden layers (§5.1); networks come with the paper's
center crop for the copies (§4.2).

The paper says "multi-step" without milestones; those here are the usual ones: a tenth after half and three quarters of
the epochs for CIFAR, after half of them where the paper follows DivideMix (PreAct-ResNet18, Clothing1M).
"""

from __future__ import annotations

from typing import Any

_PAPER: dict[str, Any] = {"corrupted_weight": "paper"}
_HEAD: dict[str, Any] = {
    "lr_schedule": "cosine",
    "weight_decay": 5e-4,
    "batch_size": 128,
    "alpha": 0.5,
}
_CLIP = {"encoder": "open_clip:ViT-B-32/openai"}
_PAPER_HEAD = _HEAD | _PAPER | {"classifier": "mlp_2", "learning_rate": 0.1, "epochs": 30}
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
    "frozen_clip": _CLIP | _PAPER_HEAD,
    "frozen_clip_released": _CLIP | _HEAD | {"learning_rate": 0.02, "epochs": 20},
    "cifar_resnet34": _RESNET34 | _PAPER | {"lr_milestones": (0.5, 0.75)},
    "cifar_resnet34_released": _RESNET34 | {"lr_milestones": (0.5, 0.6, 0.7, 0.8, 0.9), "lr_decay": 0.01},
    "cifar_preact_resnet18": _NETWORK
    | _PAPER
    | {"network": "cifar_preact_resnet18", "learning_rate": 0.02, "epochs": 300, "lr_milestones": (0.5,)},
    "clothing1m_resnet50": _NETWORK
    | _PAPER
    | {"network": "resnet50", "learning_rate": 0.002, "epochs": 10, "lr_milestones": (0.5,)}
    | {"weight_decay": 1e-3, "batch_size": 64, "alpha": 0.5},
}
"""Name -> options of DetectConfig; milestones are shares of the epochs, so they move along when --epochs is given."""


def published_options(network: str | None) -> dict[str, Any]:
    """What `--variant paper` sets beside the clustering: Table 5's options for a head on frozen features or a network.

    network: as in `--network`; one that is not in Table 5 is trained as CIFAR's ResNet34 (ours).
    """
    if network is None:
        return dict(_PAPER_HEAD)
    name = network.removeprefix("timm:").partition("@")[0]
    recipe = next((held for held in RECIPES.values() if held.get("network") == name), RECIPES["cifar_resnet34"])
    return {option: value for option, value in recipe.items() if option != "network"}
