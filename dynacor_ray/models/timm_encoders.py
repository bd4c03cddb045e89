"""Encoders that are timm networks, with weights from the hub, the installed package or a local file.

Importing this module imports timm.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from dynacor_ray.core.errors import first_line
from dynacor_ray.models.encoder_spec import EncoderSpec, unknown
from dynacor_ray.models.hub import HUB_REMEDY, hub_errors
from dynacor_ray.models.load_errors import build_errors, unfit
from dynacor_ray.models.torch_encoder import NetworkEncoder
from dynacor_ray.models.weights import existing_weights, load_exactly, read_state_dict


def parse_timm(rest: str, image_size: int | None) -> EncoderSpec:
    """The spec for NAME or NAME@FILE. Raises EncoderError when network, tag or weight file do not exist."""
    name, at, weights = rest.partition("@")
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise unknown("timm", name, timm.list_pretrained(name.partition(".")[0])) from error
    return EncoderSpec("timm", name, existing_weights(weights) if at else None, image_size)


def load_timm(spec: EncoderSpec, device: str) -> NetworkEncoder:
    """Build the network and read its weights. Raises EncoderError when they are unavailable or do not fit."""
    model = timm_body(spec)
    config = model.pretrained_cfg
    size = spec.image_size or int(config["input_size"][1])
    return NetworkEncoder(model, model, size, tuple(config["mean"]), tuple(config["std"]), device)


def timm_body(spec: EncoderSpec, scratch: bool = False, offline_remedy: str = HUB_REMEDY) -> Any:
    """Build a network without its last layer and read its weights.

    Args:
        spec: which network and weights.
        scratch: random numbers instead of weights.
        offline_remedy: what to do when the hub does not answer.

    Raises:
        EncoderError: the weights are unavailable or do not fit.
    """
    packaged = None if scratch else spec.packaged_weights()
    from_hub = packaged is None and spec.weights is None and not scratch
    guard = hub_errors(str(spec), offline_remedy) if from_hub else build_errors(str(spec))
    with guard:
        model: Any = timm.create_model(spec.name, pretrained=from_hub, num_classes=0, **_size_arguments(spec))
    if packaged is not None:
        state = _rename_by_order(read_state_dict(packaged), model.state_dict(), packaged)
        load_exactly(model, state, (), packaged)
    elif spec.weights is not None:
        _load_local(model, Path(spec.weights))
    return model


def _size_arguments(spec: EncoderSpec) -> dict[str, int]:
    """The input size, for networks that fix it when they are built (position embeddings)."""
    config = timm.get_pretrained_cfg(spec.name)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": spec.image_size} if fixed and spec.image_size is not None else {}


def _load_local(model: Any, path: Path) -> None:
    """Load a file in timm's own layout, or in a layout or input size that timm can convert."""
    state, expected = read_state_dict(path), model.state_dict()
    heads = model.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    fits = all(key in state and state[key].shape == value.shape for key, value in expected.items())
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if not fits and convert is not None:
        try:
            state = convert(state, model)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            got = f"a layout or image size that cannot be converted ({first_line(error)})"
            raise unfit(path, got) from error
    load_exactly(model, state, prefixes, path)


def _rename_by_order(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename the tensors of a file to those of a model that stand in the same order; the head is left out.

    Raises:
        EncoderError: roles (the last word of the name) or shapes do not agree one by one.
    """
    renamed: dict[str, Tensor] = {}
    body = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    for (theirs, value), (ours, like) in zip(body, expected.items(), strict=False):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or value.shape != like.shape:
            raise unfit(path, f"{theirs} {tuple(value.shape)} in the place of {ours} {tuple(like.shape)}")
        renamed[ours] = value
    if len(body) != len(expected):
        raise unfit(path, f"{len(body)} tensors instead of {len(expected)}")
    return renamed
