"""Networks of timm: the same features as a plain loop, other image sizes, packaged weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models.encoders import load_encoder, parse_encoder
from dynacor_ray.models.weights import package_weights, read_state_dict
from tests.small_networks import CONV, VIT, images, needs_package, weights_of


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_timm_equals_a_plain_loop(conv_file: Path, suffix: str) -> None:
    state = torch.load(conv_file, weights_only=True)
    path = conv_file.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(state, path)
    encoder = load_encoder(parse_encoder(f"timm:{CONV}@{path}", 64))
    import timm

    oracle = timm.create_model(CONV, pretrained=False).eval()
    oracle.load_state_dict(state)
    batch = images(5, 64)
    mean, std = (torch.tensor(oracle.pretrained_cfg[key]) for key in ("mean", "std"))
    with torch.no_grad():
        x = ((torch.from_numpy(batch) / 255 - mean) / std).permute(0, 3, 1, 2)
        expected = oracle.forward_head(oracle.forward_features(x), pre_logits=True).numpy()
    vectors = encoder.encode(batch)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, encoder.dim)
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_encode_is_a_function_of_the_image(conv_file: Path) -> None:
    encoder = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32))
    batch = images(6, 32)
    whole = encoder.encode(batch)
    one_by_one = np.concatenate([encoder.encode(batch[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(whole, one_by_one, rtol=1e-4, atol=1e-5)
    assert encoder.encode(batch[:0]).shape == (0, encoder.dim)
    batch.flags.writeable = False  # as Ray hands them out
    flipped = encoder.encode(batch[:, :, ::-1])
    np.testing.assert_array_equal(flipped, encoder.encode(np.ascontiguousarray(batch[:, :, ::-1])))
    assert not np.allclose(flipped, whole)


def test_vit_takes_another_size_and_resizes_positions(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = tmp_path / "vit.safetensors"
    save_file(weights_of(VIT), path)
    own = load_encoder(parse_encoder(f"timm:{VIT}@{path}"))
    small = load_encoder(parse_encoder(f"timm:{VIT}@{path}", 64))
    assert (own.image_size, small.image_size, own.dim) == (160, 64, small.dim)
    assert np.isfinite(small.encode(images(1, 64))).all()


def test_impossible_image_size(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(weights_of(VIT), path)
    with pytest.raises(EncoderError, match="image size"):
        load_encoder(parse_encoder(f"timm:{VIT}@{path}", 3))


@needs_package
def test_lite0_with_packaged_weights() -> None:
    encoder = load_encoder(parse_encoder("tf_efficientnet_lite0", 64))
    assert (encoder.image_size, encoder.dim) == (64, 1280)
    batch = np.repeat(np.array([0, 128, 255], np.uint8), 64 * 64 * 3).reshape(3, 64, 64, 3)
    vectors = encoder.encode(batch)
    assert np.isfinite(vectors).all()
    assert vectors.std() > 0.01
    path = package_weights()
    assert path is not None
    first = read_state_dict(path)["_conv_stem.weight"]
    loaded = encoder.network.module.state_dict()["conv_stem.weight"]  # type: ignore[attr-defined]
    torch.testing.assert_close(loaded, first)


@needs_package
def test_lite0_default_size() -> None:
    assert load_encoder(parse_encoder("tf_efficientnet_lite0")).image_size == 224


def test_order_mapping_checks_roles() -> None:
    from dynacor_ray.models import timm_encoders  # imports timm

    expected = {"bn.weight": torch.zeros(2), "bn.bias": torch.zeros(2)}
    swapped = {"_bn.bias": torch.zeros(2), "_bn.weight": torch.zeros(2), "_fc.weight": torch.zeros(3)}
    with pytest.raises(EncoderError, match="in the place of"):
        timm_encoders._rename_by_order(swapped, expected, Path("w.pth"))
    with pytest.raises(EncoderError, match="1 tensors instead of 2"):
        timm_encoders._rename_by_order({"_bn.weight": torch.zeros(2)}, expected, Path("w.pth"))
