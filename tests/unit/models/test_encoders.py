"""Encoders by the text that names them: valid forms, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynacor_ray.core.errors import ConfigError, EncoderError
from dynacor_ray.models.encoders import EncoderSpec, load_encoder, parse_encoder
from tests.small_networks import CONV


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("features", None, EncoderSpec("features", "features")),
        ("pixels", None, EncoderSpec("pixels", "pixels", image_size=32)),
        ("pixels", 8, EncoderSpec("pixels", "pixels", image_size=8)),
        ("pixels:16", None, EncoderSpec("pixels", "pixels", image_size=16)),
        ("gray:16", None, EncoderSpec("pixels", "gray", image_size=16)),
        ("pixels:16", 16, EncoderSpec("pixels", "pixels", image_size=16)),
        ("timm:resnet18", None, EncoderSpec("timm", "resnet18")),
        ("tf_efficientnet_lite0", 128, EncoderSpec("timm", "tf_efficientnet_lite0", image_size=128)),
        (f"timm:{CONV}", None, EncoderSpec("timm", CONV)),
        ("open_clip:ViT-B-32/openai", None, EncoderSpec("open_clip", "ViT-B-32/openai")),
    ],
)
def test_parse_valid_forms(text: str, size: int | None, expected: EncoderSpec) -> None:
    assert parse_encoder(text, size) == expected


def test_parse_local_weights(conv_file: Path, clip_files: tuple[Path, Path]) -> None:
    config, weights = clip_files
    assert parse_encoder(f"timm:{CONV}@{conv_file}") == EncoderSpec("timm", CONV, str(conv_file))
    assert parse_encoder(f"{CONV}@{conv_file}").kind == "timm"
    spec = parse_encoder(f"open_clip:{config}@{weights}", 64)
    assert spec == EncoderSpec("open_clip", str(config), str(weights), 64)
    assert parse_encoder(f"open_clip:ViT-B-32@{weights}").name == "ViT-B-32"
    assert parse_encoder(str(spec), 64) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pixels:16, gray, gray:16, timm:NAME"),
        ("magic:thing", "open_clip:MODEL/TAG"),
        ("pixels:0", "'pixels:0'"),
        ("pixels:x", "'pixels:x'"),
        ("timm:", "use one of these forms"),
        ("resnet81", r"'resnet81', which timm does not know; did you mean .*resnet18"),
        ("timm:resnet18.no_such_tag", "did you mean resnet18"),
        ("timm:resnet18@/nowhere/w.pt", "'/nowhere/w.pt', which is not there"),
        ("timm:resnet18@/nowhere/w.ckpt", r"in a \.pt, \.pth, \.safetensors file"),
        ("open_clip:ViT-B-33/openai", "open_clip does not know; did you mean .*ViT-B-32"),
        ("open_clip:ViT-B-32/openia", "did you mean ViT-B-32/openai"),
        ("open_clip:ViT-B-32", "'ViT-B-32', which open_clip does not know"),
        ("open_clip:/nowhere/c.json@w.pt", "Expected a JSON model config"),
    ],
)
def test_parse_refuses(text: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        parse_encoder(text)


def test_parse_refuses_bad_sizes() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel, but got 0"):
        parse_encoder("pixels", 0)
    with pytest.raises(ConfigError, match="but got pixels:16 and 8"):
        parse_encoder("pixels:16", 8)


def test_parse_refuses_config_without_weights_or_towers(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    config, weights = clip_files
    with pytest.raises(EncoderError, match="Expected weights for a model config"):
        parse_encoder(f"open_clip:{config}")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(EncoderError, match="embed_dim and vision_cfg"):
        parse_encoder(f"open_clip:{tmp_path / 'list.json'}@{weights}")


def test_features_has_no_images() -> None:
    with pytest.raises(EncoderError, match="Expected an encoder of images, but got 'features'"):
        load_encoder(parse_encoder("features"))
