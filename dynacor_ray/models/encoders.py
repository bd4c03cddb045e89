"""Frozen image encoders: pixels, any timm network, any open_clip image tower. Weights are read, never executed.

An encoder is named by a text (`parse_encoder`), described by an `EncoderSpec` that can travel to a worker, and built
where it is needed (`load_encoder`). `resolve_auto` chooses one when the user did not. torch, timm and open_clip are
imported only when a network is asked for.
"""

from __future__ import annotations

import re
from typing import Literal

from dynacor_ray.core.errors import ConfigError, EncoderError, expected_got
from dynacor_ray.models.encoder import Encoder, PixelEncoder
from dynacor_ray.models.encoder_spec import VALID_FORMS, EncoderSpec
from dynacor_ray.models.weights import LITE0, package_weights

__all__ = ["Encoder", "EncoderSpec", "load_encoder", "parse_encoder", "resolve_auto"]

PIXELS_SIZE = 32
"""Image size of `pixels` and `gray` when none is given."""


def parse_encoder(text: str, image_size: int | None = None) -> EncoderSpec:
    """Parse the name of an encoder.

    Checks everything that can be checked without a network connection and without building the model.

    Args:
        text: one of VALID_FORMS but `auto`; a bare NAME is taken for timm's.
        image_size: side of the input in pixels, None for the network's own.

    Raises:
        EncoderError: network, tag or weight file do not exist.
        ConfigError: invalid `image_size`.
    """
    if image_size is not None and image_size < 1:
        remedy = "pass e.g. --image-size 224"
        raise ConfigError(expected_got("an image size of at least 1 pixel", str(image_size), remedy))
    kind, _, rest = text.partition(":")
    if text == "features":
        return EncoderSpec("features", "features")
    if rest != "0" and re.fullmatch(r"(pixels|gray)(:\d{1,4})?", text):
        return EncoderSpec("pixels", kind, image_size=_pixels_size(kind, rest, image_size))
    if kind == "open_clip" and rest:
        from dynacor_ray.models.open_clip_encoders import parse_open_clip

        return parse_open_clip(rest, image_size)
    network = rest if kind == "timm" and rest else text if ":" not in text else ""
    if network:
        from dynacor_ray.models.timm_encoders import parse_timm

        return parse_timm(network, image_size)
    raise EncoderError(expected_got(f"an encoder ({', '.join(VALID_FORMS)})", repr(text), "use one of these forms"))


def resolve_auto(kind: Literal["image", "feature"], max_side: int, gray: bool = False) -> EncoderSpec:
    """The encoder for data for which the user named none.

    Tiny images, and gray ones up to 32 pixels (digits, glyphs), are used as they are: a network trained on photographs
    sees little in them. Others go through a pretrained network: the one whose weights are installed as a package, else
    CLIP from the hub. Small images (<= 64) are enlarged to 128 only, which costs a third of 224.

    Args:
        kind: what a row holds.
        max_side: largest image side in pixels; ignored for features.
        gray: whether all images have one channel.
    """
    if kind == "feature":
        return EncoderSpec("features", "features")
    if max_side <= (32 if gray else 16):
        return EncoderSpec("pixels", "gray" if gray else "pixels", image_size=max(max_side, 1))
    if package_weights() is not None:
        return EncoderSpec("timm", LITE0, image_size=128 if max_side <= 64 else None)
    return EncoderSpec("open_clip", "ViT-B-32/openai")


def load_encoder(spec: EncoderSpec, device: str = "cpu") -> Encoder:
    """Build the encoder and read its weights, from the hub where they are neither local nor packaged.

    Raises:
        EncoderError: the weights are unavailable, do not fit or hold code; or the spec is `features`, which has no
            images.
    """
    if spec.kind == "pixels":
        return PixelEncoder(spec.image_size or PIXELS_SIZE, gray=spec.name == "gray")
    if spec.kind == "timm":
        from dynacor_ray.models.timm_encoders import load_timm

        return load_timm(spec, device)
    if spec.kind == "open_clip":
        from dynacor_ray.models.open_clip_encoders import load_open_clip

        return load_open_clip(spec, device)
    remedy = "use the feature column as it is, or `pixels`"
    raise EncoderError(expected_got("an encoder of images", "'features'", remedy))


def _pixels_size(name: str, written: str, image_size: int | None) -> int:
    if written and image_size is not None and int(written) != image_size:
        raise ConfigError(expected_got("one image size", f"{name}:{written} and {image_size}", "leave one of them out"))
    return int(written) if written else image_size or PIXELS_SIZE
