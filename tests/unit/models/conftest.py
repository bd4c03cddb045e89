"""Weight files of small networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.small_networks import CLIP_CONFIG, CONV, weights_of


@pytest.fixture
def conv_file(tmp_path: Path) -> Path:
    """Weights of the whole convolutional network, classifier included."""
    torch.manual_seed(1)
    path = tmp_path / "conv.pt"
    torch.save(weights_of(CONV), path)
    return path


@pytest.fixture
def clip_files(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny CLIP: its model config and its weights."""
    import open_clip

    torch.manual_seed(2)
    config, weights = tmp_path / "tiny-clip.json", tmp_path / "clip.pt"
    config.write_text(json.dumps(CLIP_CONFIG))
    torch.save(open_clip.CLIP(**CLIP_CONFIG).state_dict(), weights)
    return config, weights
