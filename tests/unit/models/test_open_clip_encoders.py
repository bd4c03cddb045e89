"""Image towers of open_clip: the same features as the library, its configs and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models.encoders import load_encoder, parse_encoder
from tests.small_networks import CLIP_CONFIG, images


def test_open_clip_local(clip_files: tuple[Path, Path]) -> None:
    import open_clip

    config, weights = clip_files
    known, paths = open_clip.list_models(), list(open_clip.factory._MODEL_CONFIG_PATHS)
    encoder = load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))
    assert (encoder.image_size, encoder.dim) == (32, 16)
    oracle = open_clip.CLIP(**CLIP_CONFIG).eval()
    oracle.load_state_dict(torch.load(weights, weights_only=True))
    batch = images(4, 32)
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        expected = oracle.encode_image(((torch.from_numpy(batch) / 255 - mean) / std).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(encoder.encode(batch), expected, rtol=1e-4, atol=1e-5)
    assert open_clip.list_models() == known
    assert list(open_clip.factory._MODEL_CONFIG_PATHS) == paths


def test_open_clip_image_size_and_preprocessing(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    config, weights = clip_files
    larger = load_encoder(parse_encoder(f"open_clip:{config}@{weights}", 48))
    assert larger.image_size == 48
    assert larger.encode(images(1, 48)).shape == (1, 16)
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"mean": [0.0] * 3, "std": [1.0] * 3}}))
    batch = images(2, 32)
    ours = load_encoder(parse_encoder(f"open_clip:{wrapped}@{weights}")).encode(batch)
    assert not np.allclose(ours, load_encoder(parse_encoder(f"open_clip:{config}@{weights}")).encode(batch))


def test_open_clip_weights_of_another_model(clip_files: tuple[Path, Path], conv_file: Path) -> None:
    config, weights = clip_files
    with pytest.raises(EncoderError, match="Expected weights of this network"):
        load_encoder(parse_encoder(f"open_clip:{config}@{conv_file}"))
    config.write_text(json.dumps({**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], "layers": 3}}))
    with pytest.raises(EncoderError, match=r"missing .*resblocks\.2"):
        load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": {"no_such_option": 1}}))
    with pytest.raises(EncoderError, match="check model config"):
        load_encoder(parse_encoder(f"open_clip:{config}@{weights}"))
