"""Encoders that are image towers of open_clip, with weights from the hub or a local file.

Importing this module imports open_clip.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import resize_pos_embed

from dynacor_ray.core.errors import EncoderError, expected_got, first_line
from dynacor_ray.models.encoder_spec import EncoderSpec, unknown
from dynacor_ray.models.hub import hub_errors
from dynacor_ray.models.load_errors import build_errors
from dynacor_ray.models.torch_encoder import NetworkEncoder
from dynacor_ray.models.weights import existing_weights, load_exactly, read_state_dict

_UNUSED_TEXT_TOWER = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}


def parse_open_clip(rest: str, image_size: int | None) -> EncoderSpec:
    """The spec for MODEL/TAG, MODEL@FILE or CONFIG@FILE. Raises EncoderError when one of these does not exist."""
    name, at, weights = rest.partition("@")
    model, _, tag = name.partition("/")
    if name.endswith(".json"):
        _read_model_config(name)
    elif (name if at else model) not in open_clip.list_models():
        raise unknown("open_clip", name if at else model, open_clip.list_models())
    elif not at and tag not in open_clip.list_pretrained_tags_by_model(model):
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise unknown("open_clip", name, [f"{model}/{known}" for known in tags])
    if name.endswith(".json") and not at:
        raise EncoderError(expected_got("weights for a model config", repr(rest), f"write open_clip:{name}@weights.pt"))
    return EncoderSpec("open_clip", name, existing_weights(weights) if at else None, image_size)


def load_open_clip(spec: EncoderSpec, device: str) -> NetworkEncoder:
    """Build the image tower and read its weights. Raises EncoderError when they are unavailable or do not fit."""
    model = _from_hub(spec) if spec.weights is None else _from_file(spec)
    for name, _ in list(model.named_children()):
        if name != "visual":  # the text tower would only take memory
            delattr(model, name)
    size = model.visual.image_size
    side = int(size[0] if isinstance(size, (tuple, list)) else size)
    mean, std = tuple(model.visual.image_mean), tuple(model.visual.image_std)
    return NetworkEncoder(model.visual, model.encode_image, side, mean, std, device)


def _from_hub(spec: EncoderSpec) -> Any:
    name, _, tag = spec.name.partition("/")
    # Some tags were trained with another activation than their model's config says; open_clip would only warn.
    quick_gelu = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    with hub_errors(str(spec)), _root_logger_quiet():
        return open_clip.create_model(
            name, pretrained=tag, force_image_size=spec.image_size, force_quick_gelu=quick_gelu, require_pretrained=True
        )


def _from_file(spec: EncoderSpec) -> Any:
    builtin = not spec.name.endswith(".json")
    config = {"model_cfg": open_clip.get_model_config(spec.name)} if builtin else _read_model_config(spec.name)
    if "multimodal_cfg" not in config["model_cfg"]:
        config["model_cfg"]["text_cfg"] = _UNUSED_TEXT_TOWER
    with tempfile.TemporaryDirectory() as folder, build_errors(str(spec)), _root_logger_quiet():
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
        model: Any = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, force_image_size=spec.image_size
        )
    path = Path(spec.weights or "")
    state = {key: value for key, value in read_state_dict(path).items() if key.startswith("visual.")}
    with build_errors(str(spec)), _root_logger_quiet():
        resize_pos_embed(state, model)
    load_exactly(model.visual, {key.removeprefix("visual."): value for key, value in state.items()}, (), path)
    return model


def _read_model_config(path: str) -> dict[str, Any]:
    """Read a JSON model config, bare or under `model_cfg` as in the hub's `open_clip_config.json`."""
    try:
        config = json.loads(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        remedy = "check the file"
        raise EncoderError(expected_got("a JSON model config", f"{path!r} ({first_line(error)})", remedy)) from error
    config = config if isinstance(config, dict) and "model_cfg" in config else {"model_cfg": config}
    model = config["model_cfg"]
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg"} <= model.keys():
        remedy = "take a file of open_clip's model_configs as an example"
        raise EncoderError(expected_got("a model config with embed_dim and vision_cfg", repr(path), remedy))
    return config


@contextmanager
def _root_logger_quiet() -> Iterator[None]:
    """Silence the root logger: open_clip logs through it, which would add a handler for the rest of the process."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)
