"""How an encoder is named and told apart from others: the texts that a user may write, and what travels to a worker."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynacor_ray.core.errors import EncoderError, expected_got
from dynacor_ray.models.weights import LITE0, LITE0_PACKAGE, file_digest, package_weights

EncoderKind = Literal["features", "pixels", "timm", "open_clip"]

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
            words.append(file_digest(self.weights))
        if self.name.endswith(".json"):
            words[1] = file_digest(self.name)
        if self.packaged_weights() is not None:
            words.append(f"{LITE0_PACKAGE}=={importlib.metadata.version(LITE0_PACKAGE)}")
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

    def packaged_weights(self) -> Path | None:
        """The file of the installed package, when this encoder takes its weights from there."""
        named = self.kind == "timm" and self.name in (LITE0, f"{LITE0}.in1k")
        return package_weights() if named and self.weights is None else None

    @property
    def slug(self) -> str:
        """A name for a directory: readable, and different for different fingerprints."""
        base = Path(self.name).stem if self.name.endswith(".json") else self.name
        words = [self.kind] if self.kind == self.name else [self.kind, re.sub(r"[^A-Za-z0-9_.]+", "-", base)]
        words += [] if self.image_size is None else [str(self.image_size)]
        return "-".join([*words, self.fingerprint()[:8]])


def unknown(library: str, name: str, known: list[str]) -> EncoderError:
    """The error for a name that the library does not have, with the nearest names that it has."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or (known if len(known) <= 12 else [])
    remedy = f"did you mean {', '.join(close)}? " if close else ""
    return EncoderError(
        expected_got(
            f"an encoder ({', '.join(VALID_FORMS)})",
            f"{name!r}, which {library} does not know",
            f"{remedy}see its list",
        )
    )
