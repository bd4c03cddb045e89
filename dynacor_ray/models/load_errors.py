"""Errors shared by the modules that build networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynacor_ray.core.errors import EncoderError, expected_got, first_line


def unfit(path: Path, got: str) -> EncoderError:
    """The error for a weight file that holds `got` instead of the weights of the network."""
    return EncoderError(
        expected_got(f"weights of this network in {path}", got, "give the weight file of the named network")
    )


@contextmanager
def build_errors(name: str) -> Iterator[None]:
    """Turn the errors of a network that cannot be built as asked into an EncoderError."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, ImportError) as error:
        remedy = f"check model config and image size ({first_line(error)})"
        raise EncoderError(expected_got(f"to build {name}", type(error).__name__, remedy)) from error
