"""The encoder that is taken when the user names none, and why, in one line.

The answer follows the encoder more than anything else: the paper's own is taken where its weights can be had and the
work is bearable, else the one whose weights are installed as a package.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from dynacor_ray.models.encoder_spec import EncoderSpec
from dynacor_ray.models.hub import is_cached, unreachable
from dynacor_ray.models.weights import LITE0, package_weights

CLIP = EncoderSpec("open_clip", "ViT-B-32/openai")
"""The paper's encoder (App. A.1)."""
CLIP_REPOSITORY, CLIP_FILE = "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors"
"""Where open_clip finds its weights on the hub."""
CLIP_SIDE, CLIP_RATE = 224, 7.0
"""Images per second that it encodes on one core of a CPU at its own side in pixels (jobs/RESULTS.md)."""
BEARABLE_SECONDS = 900
"""Longest time for which a CPU is kept busy with the better encoder."""
_NAME = "the paper's CLIP ViT-B/32"


@dataclass(frozen=True)
class Work:
    """Images that are to be encoded, and what would encode them.

    Attributes:
        images: how many, with their copies.
        max_side: largest image side in pixels.
        gray: whether all have one channel.
        cpus: CPUs in all.
        gpu: whether a GPU encodes.
        image_size: side in pixels that the user wants, None for the encoder's own.
    """

    images: int
    max_side: int
    gray: bool = False
    cpus: float = 1.0
    gpu: bool = False
    image_size: int | None = None

    @property
    def clip_seconds(self) -> float:
        """What CLIP takes on the CPUs."""
        return self.images / (CLIP_RATE * max(self.cpus, 1.0)) * ((self.image_size or CLIP_SIDE) / CLIP_SIDE) ** 2


@dataclass(frozen=True)
class Choice:
    """An encoder, and the line that tells the user why this one, and what a better one would need."""

    spec: EncoderSpec
    reason: str


def candidates(work: Work) -> list[EncoderSpec]:
    """All encoders that `choose` may take for images of this kind.

    Tiny images, and gray ones up to 32 pixels (digits, glyphs), are used as they are: a network trained on photographs
    sees little in them. Small images (<= 64) are enlarged for the packaged network to 128 only, a third of the work of
    224.
    """
    if work.max_side <= (32 if work.gray else 16):
        side = work.image_size or max(work.max_side, 1)
        return [EncoderSpec("pixels", "gray" if work.gray else "pixels", image_size=side)]
    small = EncoderSpec("timm", LITE0, image_size=work.image_size or (128 if work.max_side <= 64 else None))
    return [dataclasses.replace(CLIP, image_size=work.image_size), small]


def choose(work: Work, failure: str | None = None) -> Choice:
    """The encoder for images for which the user named none. Offline it takes two seconds at most.

    failure: why CLIP's weights could not be had after all.
    """
    first, *others = candidates(work)
    if not others:
        kind = "gray and at most 32" if work.gray else "at most 16"
        return Choice(first, f"Encoder: the pixels themselves, since images are {kind} px; others: --encoder.")
    takes = "" if work.gpu else f"about {_duration(work.clip_seconds)} on {work.cpus:g} CPUs"
    if package_weights() is None:
        end = f", {takes}" if takes else ""
        return Choice(first, f"Encoder: {_NAME}{end}; a quicker one: pip install 'dynacor-ray[encoders]'.")
    if not work.gpu and work.clip_seconds > BEARABLE_SECONDS:
        needs = f"would take {takes}: a GPU, or that time with --encoder {CLIP}"
    else:
        here = failure is None and is_cached(CLIP_REPOSITORY, CLIP_FILE)
        problem = None if here else failure or unreachable()
        if problem is None:
            why = "its weights are on this machine" if here else "the hub has its weights"
            return Choice(first, f"Encoder: {_NAME}, since {why}" + (f" and it takes {takes}." if takes else "."))
        why = re.sub(r"\[Errno -?\d+\] ", "", problem)
        needs = f"needs its weights: --encoder open_clip:ViT-B-32@FILE, or the hub, which cannot be reached ({why})"
    size = others[0].image_size
    at = f" at {size} px" if size else ""
    return Choice(others[0], f"Encoder: {LITE0}{at}, whose weights are installed; a better one, {_NAME}, {needs}.")


def _duration(seconds: float) -> str:
    """Seconds in words.

    >>> _duration(3), _duration(100), _duration(8000)
    ('1 min', '2 min', '2.2 h')
    """
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"
