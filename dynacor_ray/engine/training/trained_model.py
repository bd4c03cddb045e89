"""What the training of a classifier leaves: weights that are never executed, and figures per epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.module import forward, pictures
from dynacor_ray.models.augmentation import TrainingAugmentation

MODEL, HISTORY = "model.safetensors", "history.json"
_ROWS = 1024
_IMAGES = 128


def write_model(folder: Location, weights: Mapping[str, torch.Tensor], history: list[dict[str, Any]]) -> None:
    """Write the weights after the last epoch, and `history.json`."""
    (folder / MODEL).write_bytes(save({name: value.detach().cpu().contiguous() for name, value in weights.items()}))
    (folder / HISTORY).write_json(history)


def predict(
    network: nn.Module, features: np.ndarray, device: torch.device, augmentation: TrainingAugmentation | None
) -> torch.Tensor:
    """Logits of rows in evaluation mode, float32 (n, C) on the device.

    Args:
        network: Left in training mode.
        features: float32 (n, D), or uint8 (n, 3 * stored**2) of images.
        device: Of the network.
        augmentation: That makes images of the latter, without change; None for features.
    """
    network.eval()
    size = _ROWS if augmentation is None else _IMAGES
    found = []
    with torch.no_grad():
        for start in range(0, len(features), size):
            block = torch.from_numpy(features[start : start + size].copy()).to(device)  # Arrow memory is read-only
            key = torch.zeros(len(block), dtype=torch.int64)
            batch = Batch(key, key.to(device), block, torch.ones(len(block), device=device))
            if augmentation is not None:
                batch = pictures(augmentation, batch, 0)
            found.append(forward(network, batch).float())
    network.train()
    return torch.cat(found)


def prediction_table(ids: np.ndarray, labels: np.ndarray, logits: torch.Tensor) -> pa.Table:
    """Predictions of rows: instance_id, given_label (what is taken as right), predicted_label, its probability.

    ids: int64 (n,); labels: int (n,); logits: float (n, C).
    """
    probability, predicted = torch.softmax(logits, dim=1).max(dim=1)
    return pa.table(
        {
            schema.INSTANCE_ID: pa.array(ids, pa.int64()),
            schema.GIVEN_LABEL: pa.array(labels, pa.int32()),
            schema.PREDICTED_LABEL: pa.array(predicted.cpu().numpy(), pa.int32()),
            schema.PROBABILITY: pa.array(probability.cpu().numpy(), pa.float32()),
        }
    )
