"""Frozen image encoders: pixels, any timm network, any open_clip image tower. Weights are read, never executed.

An encoder is named by a text (`parse_encoder`), described by an `EncoderSpec` that can travel to a worker, and built
where it is needed (`load_encoder`), on a CPU by OpenVINO where that is installed (`ready_encoder`). `auto_encoder`
chooses one when the user did not. torch, timm, open_clip and OpenVINO are imported only when a network is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynacor_ray.core.errors import ConfigError, EncoderError, expected_got, first_line
from dynacor_ray.models.encoder import Encoder, PixelEncoder
from dynacor_ray.models.encoder_spec import VALID_FORMS, BackEnd, EncoderSpec

if TYPE_CHECKING:
    from dynacor_ray.models.torch_encoder import NetworkEncoder

__all__ = ["Encoder", "EncoderSpec", "ReadyEncoder", "load_encoder", "parse_encoder", "ready_encoder", "with_back_ends"]

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
        if rest and image_size not in (None, int(rest)):
            raise ConfigError(expected_got("one image size", f"{text} and {image_size}", "leave one of them out"))
        return EncoderSpec("pixels", kind, image_size=int(rest) if rest else image_size or PIXELS_SIZE)
    if kind == "open_clip" and rest:
        from dynacor_ray.models.open_clip_encoders import parse_open_clip

        return parse_open_clip(rest, image_size)
    network = rest if kind == "timm" and rest else text if ":" not in text else ""
    if network:
        from dynacor_ray.models.timm_encoders import parse_timm

        return parse_timm(network, image_size)
    raise EncoderError(expected_got(f"an encoder ({', '.join(VALID_FORMS)})", repr(text), "use one of these forms"))


def load_encoder(spec: EncoderSpec, device: str = "cpu", callers: int = 1) -> Encoder:
    """Build the encoder and read its weights, from the hub where they are neither local nor packaged.

    Args:
        spec: which one; its back end is used and no other.
        device: name of a torch device; of no meaning for OpenVINO.
        callers: threads that call `encode` at the same time.

    Raises:
        EncoderError: the weights are unavailable, do not fit or hold code; the back end is missing or cannot run the
            network; or the spec is `features`, which has no images.
    """
    if spec.kind == "pixels":
        return PixelEncoder(spec.image_size or PIXELS_SIZE, gray=spec.name == "gray")
    if spec.back_end != "openvino":
        return _load_network(spec, device)
    if not _has_openvino():
        remedy = "install `dynacor-ray[encoders]` on every machine"
        raise EncoderError(expected_got(f"OpenVINO for {spec}", "a machine without it", remedy))
    from dynacor_ray.models.openvino_encoder import OpenVinoEncoder

    return OpenVinoEncoder(_load_network(spec, "cpu"), callers)


@dataclass(frozen=True)
class ReadyEncoder:
    """An encoder in this process's memory, with the back end that was found for it.

    Attributes:
        spec: names network and back end; another machine builds the same from it.
        encoder: it, on a CPU; one that is for a GPU is here for its sizes only.
        note: the line that tells the user why it is slower than it could be, None if it is not.
    """

    spec: EncoderSpec
    encoder: Encoder
    note: str | None = None


def ready_encoder(spec: EncoderSpec, use_gpu: bool, callers: int = 1, begun: str | None = None) -> ReadyEncoder:
    """Load an encoder with the quickest back end that can run it.

    Args:
        spec: which one; its back end is not looked at.
        use_gpu: whether GPUs will encode.
        callers: threads that will call `encode` at the same time.
        begun: `identity` of the encoder that a run was begun with; it keeps its back end.

    Raises:
        EncoderError: as `load_encoder`.
    """
    spec = dataclasses.replace(spec, back_end="torch")
    if spec.kind == "pixels":
        return ReadyEncoder(spec, load_encoder(spec))
    if use_gpu:
        return ReadyEncoder(dataclasses.replace(spec, back_end="cuda"), load_encoder(spec))
    plain = _load_network(spec, "cpu")
    if begun == spec.identity:
        return ReadyEncoder(spec, plain)
    if not _has_openvino():
        return ReadyEncoder(spec, plain, _slow("OpenVINO is not installed: pip install 'dynacor-ray[encoders]'"))
    from dynacor_ray.models.openvino_encoder import OpenVinoEncoder

    try:
        return ReadyEncoder(dataclasses.replace(spec, back_end="openvino"), OpenVinoEncoder(plain, callers))
    except EncoderError as error:
        return ReadyEncoder(spec, plain, _slow(first_line(error)))


def with_back_ends(spec: EncoderSpec, use_gpu: bool) -> list[EncoderSpec]:
    """The specs that `ready_encoder` may come to here, the quickest first."""
    names: tuple[BackEnd, ...] = ("openvino", "torch") if _has_openvino() else ("torch",)
    if spec.kind == "pixels":
        names = ("torch",)
    elif use_gpu:
        names = ("cuda",)
    return [dataclasses.replace(spec, back_end=name) for name in names]


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def _slow(why: str) -> str:
    return f"The encoder runs on plain PyTorch, which is slower on a CPU. {why}"


def _load_network(spec: EncoderSpec, device: str) -> NetworkEncoder:
    if spec.kind == "timm":
        from dynacor_ray.models.timm_encoders import load_timm

        return load_timm(spec, device)
    if spec.kind == "open_clip":
        from dynacor_ray.models.open_clip_encoders import load_open_clip

        return load_open_clip(spec, device)
    remedy = "use the feature column as it is, or `pixels`"
    raise EncoderError(expected_got("an encoder of images", "'features'", remedy))
