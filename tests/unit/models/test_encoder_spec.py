"""Fingerprints and folder names of encoders follow what they give, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models import encoder_spec
from dynacor_ray.models.encoders import parse_encoder
from tests.small_networks import CLIP_CONFIG, CONV, needs_package


def test_fingerprint_follows_content(conv_file: Path, clip_files: tuple[Path, Path]) -> None:
    spec = parse_encoder(f"timm:{CONV}@{conv_file}")
    before = spec.fingerprint()
    copy = conv_file.with_name("copy.pt")
    copy.write_bytes(conv_file.read_bytes())
    assert parse_encoder(f"timm:{CONV}@{copy}").fingerprint() == before
    conv_file.write_bytes(b"other")
    assert spec.fingerprint() != before
    config, weights = clip_files
    clip = parse_encoder(f"open_clip:{config}@{weights}")
    before = clip.fingerprint()
    config.write_text(json.dumps({**CLIP_CONFIG, "quick_gelu": True}))
    assert clip.fingerprint() != before
    weights.unlink()
    with pytest.raises(EncoderError, match="put the file on every machine"):
        clip.fingerprint()


def test_fingerprints_and_slugs_differ() -> None:
    texts = ["features", "pixels", "pixels:16", "gray", "timm:resnet18", "timm:resnet34", "open_clip:ViT-B-32/openai"]
    specs = [parse_encoder(text) for text in texts] + [parse_encoder("resnet18", 64)]
    assert len({spec.fingerprint() for spec in specs}) == len({spec.slug for spec in specs}) == len(specs)
    assert all(spec.slug.replace("-", "").replace("_", "").replace(".", "").isalnum() for spec in specs)
    assert specs[2].slug.startswith("pixels-16-")


@needs_package
def test_fingerprint_knows_packaged_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_encoder("tf_efficientnet_lite0")
    with_package = spec.fingerprint()
    monkeypatch.setattr(encoder_spec, "package_weights", lambda: None)
    assert spec.fingerprint() != with_package
