"""Names of encoders: the texts that a user may write, and the description that travels to a worker."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dynacor_ray.core.errors import EncoderError, expected_got
from dynacor_ray.models.weights import LITE0, LITE0_PACKAGE, file_digest, package_weights

EncoderKind = Literal["features", "pixels", "timm", "open_clip"]
BackEnd = Literal["torch", "cuda", "openvino"]
"""What runs a network: PyTorch on a CPU in float32, PyTorch on a GPU in bfloat16, or OpenVINO on a CPU in float32."""

VALID_FORMS = (
    "auto",
    "features",
    "pixels",
    "pixels:16",
    "gray",
    "gray:16",
    "timm:NAME",
    "timm:NAME@weights.safetensors",
    "open_clip:MODEL/TAG",
    "open_clip:MODEL@weights.pt",
    "open_clip:config.json@weights.pt",
)
"""Texts that name an encoder; `auto` is for `auto_encoder.choose`, all others for `parse_encoder`."""


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder: enough to build the same one on another machine that sees the same files.

    Attributes:
        kind: family of encoders.
        name: the network; pixels: `pixels` or `gray`; open_clip: `MODEL/TAG`, `MODEL`, or the path of a JSON model
            config.
        weights: path of a local weight file, None for published weights.
        image_size: side of the square input in pixels, None for the network's own.
        back_end: what runs the network. Features of different ones differ, if little, and are not mixed.
    """

    kind: EncoderKind
    name: str
    weights: str | None = None
    image_size: int | None = None
    back_end: BackEnd = "torch"

    def __str__(self) -> str:
        """The text that `parse_encoder` reads, without image size and back end."""
        if self.kind in ("features", "pixels"):
            return self.name
        return f"{self.kind}:{self.name}" + (f"@{self.weights}" if self.weights else "")

    def fingerprint(self) -> str:
        """16 hex digits that change with network, image size, back end, content of local files and packaged weights.

        Raises:
            EncoderError: a local file cannot be read.
        """
        words = [self.kind, self.name, str(self.image_size)]
        words += [self.back_end] if self.back_end != "torch" else []
        if self.weights is not None:
            words.append(file_digest(self.weights))
        if self.name.endswith(".json"):
            words[1] = file_digest(self.name)
        if self.packaged_weights() is not None:
            words.append(f"{LITE0_PACKAGE}=={importlib.metadata.version(LITE0_PACKAGE)}")
        return words_digest(words)

    @property
    def identity(self) -> str:
        """Name and fingerprint: what features depend on."""
        return f"{self.slug} {self.fingerprint()}"

    def identities(self) -> list[str]:
        """`identity` with each back end."""
        return [dataclasses.replace(self, back_end=name).identity for name in get_args(BackEnd)]

    def packaged_weights(self) -> Path | None:
        """The weight file of the installed package, if this encoder uses it."""
        named = self.kind == "timm" and self.name in (LITE0, f"{LITE0}.in1k")
        return package_weights() if named and self.weights is None else None

    @property
    def slug(self) -> str:
        """A readable directory name, different for different fingerprints."""
        base = Path(self.name).stem if self.name.endswith(".json") else self.name
        words = [self.kind] if self.kind == self.name else [self.kind, re.sub(r"[^A-Za-z0-9_.]+", "-", base)]
        words += [] if self.image_size is None else [str(self.image_size)]
        words += [self.back_end] if self.back_end != "torch" else []
        return "-".join([*words, self.fingerprint()[:8]])


def words_digest(words: list[str]) -> str:
    """16 hex digits of a SHA-256 over some words."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def did_you_mean(name: str, known: list[str]) -> str:
    """A question with the names closest to an unknown one, or with all if they are few; empty without any."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or (known if len(known) <= 12 else [])
    return f"did you mean {', '.join(close)}? " if close else ""


def unknown(library: str, name: str, known: list[str]) -> EncoderError:
    """The error for a name that the library does not know, with the closest names."""
    got = f"{name!r}, which {library} does not know"
    remedy = f"{did_you_mean(name, known)}see its list"
    return EncoderError(expected_got(f"an encoder ({', '.join(VALID_FORMS)})", got, remedy))
